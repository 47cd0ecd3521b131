"""Rules about names and shapes of tensors, which several servers have in common."""

import re

from embedtrain.serving.answers import Answer, fine, other, refuses, remark
from embedtrain.serving.served import Served

DECODER_TABLE = "embed_tokens.weight"
TABLES = {"modernbert": "embeddings.tok_embeddings.weight"}
ENCODER_TABLE = "embeddings.word_embeddings.weight"
TRANSFORMERS_PREFIXES = {
    "bert": "bert.",
    "roberta": "roberta.",
    "camembert": "roberta.",
    "xlm-roberta": "roberta.",
    "distilbert": "distilbert.",
    "mpnet": "mpnet.",
}
LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")


def table_name(served: Served) -> str:
    """The bare name of the table of token vectors."""
    return TABLES.get(served.model_type, ENCODER_TABLE if served.is_encoder else DECODER_TABLE)


def find_prefix(served: Served) -> str | None:
    """What stands before the bare names in the files; None where the table of token vectors is not found."""
    name = table_name(served)
    found = (key.removesuffix(name) for key in served.shapes if key == name or key.endswith(f".{name}"))
    return min(found, key=len, default=None)


def num_layers(served: Served) -> int:
    """Layers that the files hold weights of."""
    numbers = (LAYER.search(name) for name in served.shapes)
    return len({int(found[1]) for found in numbers if found})


def judge_weights(served: Served, allowed: tuple[str, ...], unknown: str) -> Answer:
    """Files, names, shape of the table and number of layers; `unknown` says what comes of other names."""
    missing = [path.name for path in served.weight_files if not path.is_file()]
    if missing:
        return refuses(f"{', '.join(missing)}: named in the index, but not there")
    if not served.shapes:
        pickled = [name for name in served.pickles if name == "pytorch_model.bin"]
        if pickled:
            return remark("only pytorch_model.bin, a pickle; its names are not checked")
        return refuses("no model.safetensors and no shards")
    adapters = sum(".lora_" in name for name in served.shapes)
    if adapters:
        return other(f"{adapters} tensors are adapters' that were not merged, and are left out")
    prefix = find_prefix(served)
    if prefix is None or prefix not in allowed:
        found = next(iter(served.shapes)) if prefix is None else prefix + table_name(served)
        answer = refuses if unknown.startswith("refused") else other
        return answer(
            f"tensors are named like '{found}', expected '{allowed[0]}{table_name(served)}': {unknown}"
        )
    return judge_sizes(served, served.shapes[prefix + table_name(served)])


def judge_sizes(served: Served, shape: tuple[int, ...]) -> Answer:
    """Whether config.json tells the sizes that the weights have."""
    expected = (served.config.get("vocab_size"), served.config.get("hidden_size"))
    if shape != expected:
        return refuses(f"the table of tokens is {shape}, config.json says {expected}")
    said, found = served.config.get("num_hidden_layers"), num_layers(served)
    if isinstance(said, int) and found < said:
        return other(f"weights of {found} layers, config.json says {said}: the rest would be drawn at random")
    if isinstance(said, int) and found > said:
        return other(f"weights of {found} layers, config.json says {said}: the last ones are left out")
    return fine(f"safetensors, {found} layers, names as expected")
