"""What vLLM 0.33.0 makes of a folder when it serves embeddings."""

from embedtrain.serving.answers import Answer, Rule, Server, fine, other, refuses, remark
from embedtrain.serving.python_rules import (
    judge_instruction,
    judge_model,
    judge_tokenizer,
    short_window,
)
from embedtrain.serving.served import Served
from embedtrain.serving.tensors import TRANSFORMERS_PREFIXES, judge_weights

ARCHITECTURES = {
    "llama": ("LlamaModel", "LlamaForCausalLM"),
    "mistral": ("MistralModel", "MistralForCausalLM"),
    "qwen2": ("Qwen2Model", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Model", "Qwen3ForCausalLM"),
    "gemma3_text": ("Gemma3TextModel", "Gemma3ForCausalLM"),
    "bert": ("BertModel",),
    "roberta": ("RobertaModel",),
    "xlm-roberta": ("XLMRobertaModel",),
    "modernbert": ("ModernBertModel",),
}
GEMMA_WITH_SWITCH = "Gemma3TextModel"
POOLING_TYPES = (
    "sentence_transformers.models.Pooling",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
)
NORMALIZE_TYPES = (
    "sentence_transformers.models.Normalize",
    "sentence_transformers.base.modules.normalize.Normalize",
    "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
)
DENSE_TYPES = ("sentence_transformers.models.Dense", "sentence_transformers.base.modules.dense.Dense")
ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "silu", "sigmoid")
MODES = {"MEAN": "mean", "CLS": "cls", "LAST": "lasttoken"}


def architecture(served: Served) -> str:
    """The first of config.json's architectures."""
    return str((served.config.get("architectures") or [""])[0])


def judge_architecture(served: Served) -> Answer | None:
    """The class that config.json names."""
    if not served.config:
        return None
    known = ARCHITECTURES.get(served.model_type)
    if known is None:
        return remark(f"model_type '{served.model_type}' is not checked here")
    if architecture(served) not in known:
        return refuses(f"architecture '{architecture(served)}' is not among {', '.join(known)}")
    return fine(architecture(served))


def judge_attention(served: Served) -> Answer | None:
    """The switch that its layers read."""
    if not served.config or served.is_encoder or served.model_type not in ARCHITECTURES:
        return None
    switched = served.is_gemma and architecture(served) == GEMMA_WITH_SWITCH
    key = "use_bidirectional_attention" if switched else "is_causal"
    on = bool(served.config.get(key)) if switched else not served.config.get("is_causal", True)
    found, expected = (("bidirectional" if way else "causal") for way in (on, served.is_bidirectional))
    if found != expected:
        return other(f"{found} attention, by {key}; sentence-transformers has {expected}")
    return fine(f"{found}, by {key}")


def judge_window(served: Served) -> Answer | None:
    """Sliding windows of decoders."""
    layers = served.config.get("layer_types") or []
    mixed = served.model_type in ("qwen2", "qwen3") and len(set(layers)) > 1
    if mixed and served.config.get("max_window_layers") != served.config.get("num_hidden_layers"):
        return refuses("a sliding window on some layers and not on others is not supported for Qwen")
    window = short_window(served)
    if window is None:
        return None
    if served.model_type in ("llama", "mistral") and not layers:
        return remark(
            f"sliding_window {window}: its layers take one by layer_types alone, and there are none"
        )
    return remark(f"sliding_window {window} is shorter than the longest text")


def judge_pooling(served: Served) -> Answer | None:
    """The Pooling module, its string and its booleans, in the order in which they stand in the file."""
    if not served.config:
        return None
    default = "the architecture's own pooling is taken: the last token's state, or an encoder's first"
    module = next((m for m in served.modules if m.type in POOLING_TYPES), None)
    if module is None:
        same = served.pooling_mode == ("cls" if served.is_encoder else "lasttoken")
        return (
            fine(f"{served.pooling_mode}, its default")
            if same
            else other(f"no Pooling that it knows: {default}")
        )
    mode = None
    for key, value in served.mapping(f"{module.path}/config.json").items():
        if key == "pooling_mode" and isinstance(value, str):
            mode = parsed_mode(value) or mode
        elif value is True:
            mode = parsed_mode(key) or mode
    if mode is None:
        return other(f"pooling '{served.pooling_mode}' is not known: {default}")
    if mode != served.pooling_mode:
        return other(f"pools by {mode}, sentence-transformers by {served.pooling_mode}")
    return fine(mode)


def parsed_mode(name: str) -> str | None:
    """A pooling's name as its parser shortens it."""
    short = name.replace("pooling_mode_", "").split("_", 1)[0]
    return MODES.get("LAST" if "lasttoken" in short else short.upper())


def judge_normalize(served: Served) -> Answer | None:
    """The Normalize module."""
    module = served.module("Normalize")
    if module is None or not served.config:
        return None
    if module.type not in NORMALIZE_TYPES:
        return other(f"{module.type} is not known: vectors are not normalised")
    return fine("normalised")


def judge_dense(served: Served) -> Answer | None:
    """Dense modules."""
    unknown = [m.type for m in served.dense if m.type not in DENSE_TYPES]
    if unknown:
        return other(f"{unknown[0]} is not known: it is left out")
    for module in served.dense:
        activation = served.mapping(f"{module.path}/config.json").get("activation_function") or "identity"
        if activation.rpartition(".")[2].lower() not in ACTIVATIONS:
            return other(f"{module.path}: activation {activation} is not known: all Dense are left out")
    return fine(f"{len(served.dense)} Dense applied") if served.dense else None


def judge_limit(served: Served) -> Answer | None:
    """The longest text."""
    if not served.config:
        return None
    whole = {"max_seq_length", "do_lower_case"} <= served.limits.keys()
    longest = served.config.get("max_position_embeddings")
    told = served.tokenizer_config.get("model_max_length")
    given = [n for n in (longest, told) if isinstance(n, int | float)]
    limit = served.limits["max_seq_length"] if whole else min(given, default=None)
    if served.max_tokens is not None and limit != served.max_tokens:
        return other(f"the limit is {limit} tokens, sentence-transformers cuts at {served.max_tokens}")
    return remark(f'a text over {limit} tokens is refused unless a request says "truncate_prompt_tokens": -1')


def judge_lower_case(served: Served) -> Answer | None:
    """do_lower_case is read only beside a limit."""
    if served.limits.get("do_lower_case") and "max_seq_length" not in served.limits:
        return other("do_lower_case is not read without max_seq_length: capital letters stay")
    return None


def judge_weights_vllm(served: Served) -> Answer | None:
    """Tensors as its loaders take them."""
    if served.model_type not in ARCHITECTURES:
        return None
    prefix = TRANSFORMERS_PREFIXES.get(served.model_type, "model.")
    return judge_weights(
        served, tuple(dict.fromkeys(("", "model.", prefix))), "refused: no place for a tensor"
    )


def judge_precision(served: Served) -> Answer | None:
    """What float32 becomes."""
    stored = served.config.get("dtype") or served.config.get("torch_dtype")
    if stored != "float32":
        return None
    lower = "bfloat16" if served.is_gemma else "float16"
    return remark(f"float32 is rounded to {lower} unless --dtype float32 is given")


def judge_prompts(served: Served) -> Answer | None:
    """Prompts by name."""
    if served.settings.get("default_prompt_name"):
        return other(f"the default prompt '{served.settings['default_prompt_name']}' is not applied")
    if not served.prompts:
        return None
    return remark(
        "the client puts prompts before texts; only the Cohere-style /v2/embed reads them, by input_type"
    )


def judge_chat_template(served: Served) -> Answer | None:
    """A chat template is applied to messages, not to texts."""
    if not served.wraps_texts:
        return None
    return other("sentence-transformers puts every text into the chat template, vLLM only messages")


MODELS = "vllm/model_executor/models"
CONFIG = "vllm/transformers_utils/config.py"
VLLM = Server(
    "vllm",
    "vLLM",
    "vllm 0.33.0, its wheel",
    (
        Rule("model", f"{CONFIG} (get_config)", judge_model),
        Rule("architecture", f"{MODELS}/registry.py", judge_architecture),
        Rule("attention", f"{MODELS}/{{llama,qwen2,qwen3,gemma3,config}}.py", judge_attention),
        Rule("window", f"{MODELS}/{{llama,qwen2}}.py", judge_window),
        Rule("pooling", f"{CONFIG} (get_pooling_config), vllm/config/pooler.py", judge_pooling),
        Rule("Normalize", f"{CONFIG} (get_pooling_config)", judge_normalize),
        Rule("Dense", f"{CONFIG} (try_get_dense_modules), {MODELS}/adapters.py", judge_dense),
        Rule("limit", "vllm/config/model.py, vllm/renderers/params.py", judge_limit),
        Rule("lower case", f"{CONFIG} (get_sentence_transformer_tokenizer_config)", judge_lower_case),
        Rule("weights", f"{MODELS}/adapters.py, {MODELS}/roberta.py", judge_weights_vllm),
        Rule("precision", "vllm/config/model.py (_resolve_auto_dtype)", judge_precision),
        Rule("tokenizer", "transformers' AutoTokenizer, which vllm uses", judge_tokenizer),
        Rule("include_prompt", f"{CONFIG} (get_pooling_config)", judge_instruction),
        Rule("prompts", "vllm/entrypoints/pooling/embed/io_processor.py", judge_prompts),
        Rule("chat template", "vllm/entrypoints/pooling/embed/io_processor.py", judge_chat_template),
    ),
)
