"""What Text Embeddings Inference 1.9.3 makes of a folder: its router and its candle backend."""

import json
from typing import Any

from embedtrain.serving.answers import Answer, Rule, Server, fine, other, refuses, remark
from embedtrain.serving.python_rules import judge_instruction, judge_model, short_window
from embedtrain.serving.served import Served
from embedtrain.serving.tei_configs import FIELDS, OTHER_TYPES, mistakes
from embedtrain.serving.tensors import judge_weights

BOOLEANS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
NO_LAST_TOKEN = ("roberta", "xlm-roberta", "camembert", "modernbert", "bert")
FLASH_ONLY = ("llama", "mistral", "qwen2")
PREFIXES = {
    "qwen2": ("", "model."),
    "qwen3": ("", "model."),
    "bert": ("", "bert."),
    "modernbert": ("", "model."),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert"), ("", "roberta.", "xlm-roberta.", "camembert.")),
}
OLD_NAMES = tuple(
    f"sentence_transformers.models.{k}" for k in ("Transformer", "Pooling", "Dense", "Normalize")
)
ACTIVATIONS = ("torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity", None)
TANH_GELU = "gelu"


def judge_config(served: Served) -> Answer | None:
    """The family, and the fields of config.json."""
    if not served.config:
        return None
    family = served.model_type
    if family in OTHER_TYPES:
        return remark(f"{family} is known; the fields of its config.json are not checked here")
    if family not in FIELDS:
        return refuses(f"model_type '{family}' is not among the families it has code for")
    wrong = mistakes(served.config, FIELDS[family])
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return refuses(f"config.json: {wrong[0]}{more}")
    if family != "modernbert" and not has_rotary_base(served):
        return refuses("config.json: neither rope_theta nor rope_parameters.rope_theta")
    return fine(f"{family}: {len(FIELDS[family])} fields as its parser wants them")


def has_rotary_base(served: Served) -> bool:
    """Whether a decoder's rotary base is found; others need none."""
    config = served.config
    return served.is_encoder or config.get("rope_theta") is not None or bool(config.get("rope_parameters"))


def judge_rotary(served: Served) -> Answer | None:
    """Scaled rotary positions."""
    if served.is_encoder or not served.config:
        return None
    if served.model_type == "llama" and served.config.get("rope_scaling") is not None:
        return refuses("rope_scaling is not supported for Llama")
    scaled = served.config.get("rope_parameters") or {}
    kind = scaled.get("rope_type", "default")
    if kind != "default" and served.config.get("rope_scaling") is None:
        return other(f"rope_parameters.rope_type '{kind}' is not read: positions are plain")
    return None


def judge_pooling(served: Served) -> Answer | None:
    """1_Pooling/config.json, whatever modules.json says."""
    if not served.config:
        return None
    if not served.has("1_Pooling/config.json"):
        if "bert" in served.model_type:
            return other("no 1_Pooling/config.json: the first token's state is taken")
        return refuses("no 1_Pooling/config.json; --pooling must name the pooling")
    values = served.mapping("1_Pooling/config.json")
    missing = [key for key in list(BOOLEANS)[:2] if not isinstance(values.get(key), bool)]
    if missing:
        return refuses(f"1_Pooling/config.json: {missing[0]} is missing; --pooling must name the pooling")
    mode = next((mode for key, mode in BOOLEANS.items() if values.get(key) is True), None)
    if mode is None:
        return refuses(f"pooling '{served.pooling_mode}' is not among cls, mean and lasttoken")
    return judge_mode(served, mode)


def judge_mode(served: Served, mode: str) -> Answer:
    """The mode that the booleans name."""
    if mode != served.pooling_mode:
        return other(f"the booleans say {mode}, sentence-transformers pools by {served.pooling_mode}")
    if mode == "lasttoken" and served.model_type in NO_LAST_TOKEN:
        return refuses(f"lasttoken is not supported for {served.model_type}")
    if mode != "mean" and served.model_type == "gemma3_text":
        return refuses("only mean pooling is supported for Gemma 3: every request fails")
    return fine(mode)


def judge_limit(served: Served) -> Answer | None:
    """sentence_bert_config.json."""
    if not served.config:
        return None
    if not served.has("sentence_bert_config.json"):
        longest = served.config.get("max_position_embeddings")
        if served.max_tokens is not None and served.max_tokens != longest:
            return other(
                f"no sentence_bert_config.json: texts are cut at {longest}, not at {served.max_tokens}"
            )
        return fine(f"texts are cut at max_position_embeddings, {longest}")
    limit = served.limits.get("max_seq_length")
    if not isinstance(limit, int) or isinstance(limit, bool):
        return refuses(
            f"sentence_bert_config.json: max_seq_length {'is ' + repr(limit) if limit else 'is missing'}"
        )
    return fine(f"texts are cut at {limit} tokens")


def judge_attention(served: Served) -> Answer | None:
    """The switch of each family."""
    family = served.model_type
    if not served.config or served.is_encoder or family not in FIELDS:
        return None
    found, key = read_attention(served)
    expected = "bidirectional" if served.is_bidirectional else "causal"
    if found != expected:
        return other(f"{found} attention, by {key}; sentence-transformers has {expected}")
    return fine(f"{found}, by {key}")


def read_attention(served: Served) -> tuple[str, str]:
    """How a family attends, and what decides it."""
    if served.model_type == "gemma3_text":
        return "bidirectional", "its code alone, whatever config.json says"
    if served.model_type == "qwen2":
        return ("causal" if served.config.get("is_causal", True) else "bidirectional"), "is_causal"
    on = served.config.get("use_bidirectional_attention") is True
    return ("bidirectional" if on else "causal"), "use_bidirectional_attention"


def judge_window(served: Served) -> Answer | None:
    """Sliding windows."""
    if served.model_type in ("qwen2", "qwen3") and served.config.get("use_sliding_window") is True:
        return refuses("use_sliding_window is true, which is not supported")
    window = short_window(served)
    if window is None:
        return None
    if served.model_type in ("llama", "mistral") and served.is_bidirectional:
        return other(f"sliding_window {window} is laid to the left alone; texts longer than it differ")
    return remark(f"sliding_window {window} is shorter than the longest text")


def judge_flash(served: Served) -> Answer | None:
    """Llama and Mistral run on one kernel, which knows no head size and no bias of its own."""
    config = served.config
    if served.model_type not in ("llama", "mistral"):
        return None
    heads, head_dim, hidden = (config.get(k) for k in ("num_attention_heads", "head_dim", "hidden_size"))
    if head_dim is not None and heads * head_dim != hidden:
        return refuses(
            f"num_attention_heads * head_dim is {heads * head_dim}, and must be hidden_size, {hidden}"
        )
    biased = [key for key in ("attention_bias", "mlp_bias") if config.get(key)]
    return other(f"{biased[0]} is true, and biases are not read") if biased else None


def judge_device(served: Served) -> Answer | None:
    """Where the family runs, and in what precision."""
    if not served.config or served.model_type not in FIELDS:
        return None
    if served.model_type in FLASH_ONLY:
        return remark("runs on CUDA in float16 with flash attention only, not on a CPU")
    if served.model_type == "gemma3_text":
        return remark("float32 only")
    return remark("float16 on CUDA unless --dtype float32 is given")


def judge_weights_tei(served: Served) -> Answer | None:
    """Tensors as the candle backend takes them."""
    if served.model_type not in FIELDS:
        return None
    return judge_weights(served, PREFIXES.get(served.model_type, ("",)), "refused: a tensor is not found")


def judge_dense(served: Served) -> Answer | None:
    """Dense modules; one unknown name in modules.json and none of them is read."""
    if not served.dense:
        return None
    unknown = [m.type for m in served.modules if m.type not in OLD_NAMES]
    if unknown:
        return other(f"modules.json holds {unknown[0]}, which it does not know: Dense is left out")
    for module in served.dense:
        activation = served.mapping(f"{module.path}/config.json").get("activation_function")
        if activation not in ACTIVATIONS:
            return refuses(f"{module.path}: activation {activation} is neither Tanh nor Identity")
        if not any(served.has(f"{module.path}/{n}") for n in ("model.safetensors", "pytorch_model.bin")):
            return other(f"{module.path} holds no weights: it is left out")
    return fine(f"{len(served.dense)} Dense applied")


def judge_normalize(served: Served) -> Answer | None:
    """Normalisation is a matter of the request."""
    if served.modules and served.module("Normalize") is None:
        return remark(
            'vectors come normalised unless a request says "normalize": false; directions are the same'
        )
    return None


def judge_prompts(served: Served) -> Answer | None:
    """Prompts by name."""
    if served.settings.get("default_prompt_name"):
        name = served.settings["default_prompt_name"]
        return other(f"the default prompt '{name}' is applied only with --default-prompt-name {name}")
    if not served.prompts:
        return None
    return remark('a prompt is added only where asked: "prompt_name" in a request, or --default-prompt-name')


def judge_tokenizer(served: Served) -> Answer | None:
    """tokenizer.json alone is read."""
    if not served.config:
        return None
    if not served.has("tokenizer.json"):
        return refuses("no tokenizer.json; it knows fast tokenizers only")
    ends = added_by_config(served)
    if ends:
        return other(f"{ends[0]} in tokenizer_config.json is not read, and tokenizer.json adds no such token")
    if served.limits.get("do_lower_case"):
        return other("do_lower_case is not read: capital letters stay")
    return fine("tokenizer.json, with the tokens its post-processor adds")


def added_by_config(served: Served) -> list[str]:
    """Switches by which transformers adds a token that tokenizer.json does not add."""
    processor = json.dumps(served.tokenizer.get("post_processor"), ensure_ascii=False)
    wanted = []
    for key, role in (("add_eos_token", "eos_token"), ("add_bos_token", "bos_token")):
        token: Any = served.tokenizer_config.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        if (
            served.tokenizer_config.get(key) is True
            and token
            and json.dumps(token, ensure_ascii=False) not in processor
        ):
            wanted.append(key)
    return wanted


def judge_chat_template(served: Served) -> Answer | None:
    """A chat template is never applied."""
    if not served.wraps_texts:
        return None
    return other("sentence-transformers puts every text into the chat template, TEI does not")


def judge_gelu(served: Served) -> Answer | None:
    """The approximate GELU."""
    activation = served.config.get("hidden_act") or served.config.get("hidden_activation")
    return (
        remark("GELU by its tanh approximation, whose vectors differ a little")
        if activation == TANH_GELU
        else None
    )


CANDLE = "backends/candle/src"
TEI = Server(
    "tei",
    "TEI",
    "huggingface/text-embeddings-inference v1.9.3, commit 06670157",
    (
        Rule("model", "router/src/lib.rs", judge_model),
        Rule("config", f"router/src/lib.rs, {CANDLE}/lib.rs, {CANDLE}/models/*.rs", judge_config),
        Rule("rotary", f"{CANDLE}/lib.rs, {CANDLE}/layers/rotary.rs", judge_rotary),
        Rule("pooling", "router/src/lib.rs (PoolConfig), models/*.rs", judge_pooling),
        Rule("limit", "router/src/lib.rs (STConfig)", judge_limit),
        Rule("attention", f"{CANDLE}/models/{{flash_mistral,flash_qwen2,qwen3,gemma3}}.rs", judge_attention),
        Rule("window", f"{CANDLE}/models/{{flash_mistral,flash_qwen2,qwen3}}.rs", judge_window),
        Rule("flash", f"{CANDLE}/models/flash_mistral.rs", judge_flash),
        Rule("device", f"{CANDLE}/lib.rs, backends/src/dtype.rs", judge_device),
        Rule("weights", f"{CANDLE}/models/*.rs (load)", judge_weights_tei),
        Rule("Dense", f"backends/src/lib.rs (ModuleType), {CANDLE}/models/dense.rs", judge_dense),
        Rule("Normalize", "router/src/http/types.rs (default_normalize)", judge_normalize),
        Rule("include_prompt", "router/src/lib.rs (PoolConfig)", judge_instruction),
        Rule("prompts", "core/src/tokenization.rs, router/src/lib.rs", judge_prompts),
        Rule("tokenizer", "router/src/lib.rs", judge_tokenizer),
        Rule("chat template", "core/src/tokenization.rs", judge_chat_template),
        Rule("GELU", f"{CANDLE}/lib.rs, {CANDLE}/layers/linear.rs", judge_gelu),
    ),
)
