"""What sentence-transformers and plain transformers make of a folder."""

from embedtrain.serving.answers import Answer, Rule, Server, fine, other, refuses, remark
from embedtrain.serving.served import Served
from embedtrain.serving.tensors import TRANSFORMERS_PREFIXES, judge_weights

POOLINGS = ("mean", "cls", "lasttoken", "weightedmean", "max", "mean_sqrt_len_tokens")
ROUTERS = ("Router", "Asym")


def judge_modules(served: Served) -> Answer:
    """modules.json."""
    if not served.has("modules.json"):
        head = served.config.get("architectures") or [""]
        pooling = "last-token" if str(head[0]).endswith("ForCausalLM") else "mean"
        return other(f"no modules.json: {pooling} pooling is assumed, without a word of warning")
    foreign = [m.type for m in served.modules if not m.type.startswith("sentence_transformers.")]
    if foreign:
        return refuses(f"{foreign[0]} is code from outside sentence-transformers")
    absent = [m.path for m in served.modules if m.path and not (served.path / m.path).is_dir()]
    needing = [path for path in absent if not path.endswith("Normalize")]
    if needing:
        return refuses(f"modules.json names {needing[0]}, which is not there")
    return fine(" → ".join(m.kind for m in served.modules))


def judge_pooling(served: Served) -> Answer | None:
    """1_Pooling/config.json."""
    if not served.modules or served.modules[0].kind in ROUTERS:
        return None
    if not served.pooling:
        return refuses(f"no {served.pooling_file}")
    if served.pooling_mode is None:
        return other("no pooling mode is named, or more than one is: vectors are joined, or of no known mode")
    if served.pooling_mode not in POOLINGS:
        return refuses(f"pooling mode '{served.pooling_mode}' is not known")
    return fine(served.pooling_mode)


def judge_attention(served: Served) -> Answer | None:
    """config.json's switches."""
    if not served.config:
        return None
    found = "bidirectional" if served.is_bidirectional else "causal"
    said = served.config.get("use_bidirectional_attention")
    switched = not served.is_gemma and not served.is_encoder
    if switched and isinstance(said, bool) and said is not served.is_bidirectional:
        return other(
            f"attention is {found}, by is_causal, but use_bidirectional_attention is "
            f"{str(said).lower()}: one of both is lost or wrong"
        )
    return fine(
        f"{found}; transformers before 5.2 reads no switch and is causal" if is_switched(served) else found
    )


def is_switched(served: Served) -> bool:
    """Whether it is a switch that makes a decoder bidirectional."""
    return served.is_bidirectional and not served.is_encoder and not served.is_gemma


def judge_window(served: Served) -> Answer | None:
    """sliding_window of a decoder."""
    window = short_window(served)
    if window is None:
        return None
    kind = "a window to both sides" if served.is_bidirectional else "a window"
    return remark(f"sliding_window {window} is {kind}: tokens further apart do not see each other")


def short_window(served: Served) -> int | None:
    """Tokens of a sliding window that is shorter than the longest text."""
    window = served.config.get("sliding_window")
    if served.is_encoder or not isinstance(window, int) or served.config.get("use_sliding_window") is False:
        return None
    layers = served.config.get("layer_types")
    if isinstance(layers, list) and "sliding_attention" not in layers:
        return None
    reach = window // 2 if served.is_gemma and served.is_bidirectional else window
    longest = served.max_tokens or served.config.get("max_position_embeddings") or 0
    return window if reach < longest else None


def judge_weights_python(served: Served) -> Answer | None:
    """Tensors as transformers' from_pretrained takes them."""
    if not served.config:
        return None
    prefix = TRANSFORMERS_PREFIXES.get(served.model_type, "model.")
    return judge_weights(served, ("", prefix), "all weights would be drawn at random, with a warning only")


def judge_tokenizer(served: Served) -> Answer | None:
    """The tokenizer's files."""
    if not served.config:
        return None
    if not served.has("tokenizer.json"):
        slow = [n for n in ("tokenizer.model", "vocab.txt", "vocab.json") if served.has(n)]
        return remark(f"no tokenizer.json; it is made of {slow[0]}") if slow else refuses("no tokenizer.json")
    return fine("tokenizer.json")


def judge_chat_template(served: Served) -> Answer | None:
    """A chat template around every text."""
    if not served.wraps_texts:
        return None
    return remark("every text is put into the tokenizer's chat template; other servers do not do that")


def judge_limit(served: Served) -> Answer | None:
    """Where texts are cut."""
    if not served.config:
        return None
    if served.max_tokens is None:
        return remark("no limit is given: texts are cut where the model's positions end, if anywhere")
    return fine(f"texts are cut at {served.max_tokens} tokens")


def judge_pickles(served: Served) -> Answer | None:
    """Files that can run code."""
    if not served.pickles:
        return None
    return remark(f"{', '.join(served.pickles[:3])}: pickles, which can run code when they are read")


def judge_model(served: Served) -> Answer:
    """Whether there is one model at the top of the folder."""
    if served.config:
        architectures = served.config.get("architectures") or ["no architectures"]
        return fine(f"{served.model_type}, {architectures[0]}")
    if served.modules and served.modules[0].kind in ROUTERS:
        return refuses("a Router package of several models; load them one by one")
    return refuses("no config.json at the top of the folder")


def judge_plain_pooling(served: Served) -> Answer | None:
    """What AutoModel leaves to whoever calls it."""
    if not served.config:
        return None
    return remark(
        "gives token states: pooling, Dense and normalisation are yours; the model card has the lines"
    )


def judge_plain_limit(served: Served) -> Answer | None:
    """Whether the tokenizer cuts where sentence-transformers does."""
    limit = served.tokenizer_config.get("model_max_length")
    if served.max_tokens is None or limit == served.max_tokens:
        return None
    return other(
        f"the tokenizer cuts at {limit}, sentence-transformers at {served.max_tokens}: longer texts differ"
    )


def judge_plain_template(served: Served) -> Answer | None:
    """A chat template that only sentence-transformers applies."""
    if not served.wraps_texts:
        return None
    return other("sentence-transformers puts texts into the chat template, this does not")


def judge_instruction(served: Served) -> Answer | None:
    """Servers that do not know include_prompt."""
    if served.pooling.get("include_prompt") is False and served.prompts:
        return other(
            "prompts are pooled with the text; sentence-transformers leaves them out (include_prompt)"
        )
    return None


ST_TRANSFORMER = "sentence_transformers/base/modules/transformer.py"
SENTENCE_TRANSFORMERS = Server(
    "sentence-transformers",
    "sentence-transformers",
    "sentence-transformers 6.2.0 on transformers 5.23.0",
    (
        Rule("modules", "sentence_transformers/base/model.py, sentence_transformer/model.py", judge_modules),
        Rule("pooling", "sentence_transformers/sentence_transformer/modules/pooling.py", judge_pooling),
        Rule("attention", "transformers/utils/generic.py, transformers/masking_utils.py", judge_attention),
        Rule("window", "transformers/masking_utils.py", judge_window),
        Rule("weights", "transformers/modeling_utils.py", judge_weights_python),
        Rule("tokenizer", "transformers/models/auto/tokenization_auto.py", judge_tokenizer),
        Rule("chat template", ST_TRANSFORMER, judge_chat_template),
        Rule("limit", ST_TRANSFORMER, judge_limit),
        Rule("pickles", "transformers/modeling_utils.py", judge_pickles),
    ),
)
PLAIN_TRANSFORMERS = Server(
    "transformers",
    "transformers",
    "transformers 5.23.0",
    (
        Rule("model", "transformers/models/auto/auto_factory.py", judge_model),
        Rule("attention", "transformers/utils/generic.py, transformers/masking_utils.py", judge_attention),
        Rule("weights", "transformers/modeling_utils.py", judge_weights_python),
        Rule("tokenizer", "transformers/models/auto/tokenization_auto.py", judge_tokenizer),
        Rule("limit", "transformers/tokenization_utils_base.py", judge_plain_limit),
        Rule("chat template", "transformers/tokenization_utils_base.py", judge_plain_template),
        Rule("pooling", "transformers/models/auto/modeling_auto.py", judge_plain_pooling),
    ),
)
