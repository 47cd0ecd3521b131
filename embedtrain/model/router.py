"""A Router package: queries by one model, documents by another, in one sentence-transformers folder.

Both models are copied in, file by file, behind the names from before sentence-transformers 5.4, under which
versions 5 and 6 load them. A Router has one table of prompts for both routes, looked up by name alone. So
here a name says its side: `query` is what the one model puts before queries, `document` what the other puts
before documents, and of a task there are `TASK-query` and `TASK-document`. What is encoded as neither goes to
the model of documents, whose other prompts keep their names.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from embedtrain.artifacts import read_json, write_atomic, write_json
from embedtrain.config.errors import UserError
from embedtrain.model.safe_files import MODULES, read_modules
from embedtrain.model.st import PLAIN_PROMPTS, ROUTERS

RouteSide = Literal["query", "document"]
CONFIG = "router_config.json"
ROUTER_TYPE = "sentence_transformers.models.Router"
LIMITS = "sentence_bert_config.json"
SETTINGS = "config_sentence_transformers.json"
COPIED = (".json", ".safetensors", ".txt", ".model", ".tiktoken")
LEFT_OUT = (MODULES, SETTINGS, "chat_template.json")
OLD_KINDS = (
    *("Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "WeightedLayerPooling"),
    *("StaticEmbedding", "WordEmbeddings", "WordWeights", "BoW", "CNN", "LSTM"),
)


def write_router(
    queries: Path,
    documents: Path,
    folder: Path,
    prompts: Mapping[str, str],
    *,
    default_prompt: str | None = None,
    document_limit: int | None = None,
    card: str = "",
) -> None:
    """Write the package beside its place, then rename it.

    `queries` and `documents` are sentence-transformers folders; `document_limit` replaces the length limit
    (tokens) of the latter. Raises UserError where `folder` is there already, or one of the two is a Router.
    """
    if folder.exists():
        raise UserError(f"{folder}: it is there already; an export never overwrites a model")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    structure = {
        "query": copy_route(queries, "query", partial),
        "document": copy_route(documents, "document", partial, document_limit),
    }
    types = {name: kind for route in structure.values() for name, kind in route.items()}
    write_json(
        partial / CONFIG,
        {
            "types": types,
            "structure": {side: list(route) for side, route in structure.items()},
            "parameters": {"default_route": "document", "allow_empty_key": True},
        },
    )
    write_json(partial / MODULES, [{"idx": 0, "name": "0", "path": "", "type": ROUTER_TYPE}])
    settings = {"prompts": dict(prompts), "default_prompt_name": default_prompt}
    write_json(partial / SETTINGS, settings | {"similarity_fn_name": similarity(documents)})
    write_atomic(partial / "README.md", card)
    partial.replace(folder)


def similarity(folder: Path) -> str:
    """How vectors of a folder are compared: as it says, else by cosine."""
    settings = folder / SETTINGS
    said = read_json(settings).get("similarity_fn_name") if settings.is_file() else None
    return said or "cosine"


def copy_route(source: Path, side: RouteSide, folder: Path, limit: int | None = None) -> dict[str, str]:
    """Copy all modules of a model; the type of each by the name it has in the package."""
    types = {}
    for number, module in enumerate(read_modules(source)):
        kind = module.kind
        if kind in ROUTERS:
            raise UserError(f"{source} is a Router itself; expected a single model for each side")
        name = f"{side}_{number}_{kind}"
        copy_module(source / module.path, folder / name)
        if kind == "Transformer":
            without_chat_template(folder / name)
            cut_at(folder / name, limit)
        types[name] = f"sentence_transformers.models.{kind}" if kind in OLD_KINDS else module.type
    return types


def copy_module(source: Path, place: Path) -> None:
    """The files of one module: configs, tokenizer and safetensors, and never a pickle.

    A module without any, as Normalize in older folders, gets an empty config: an empty folder would be lost
    where folders are only known by their files.
    """
    place.mkdir()
    for file in sorted(source.glob("*")):
        if file.is_file() and file.suffix in COPIED and file.name not in LEFT_OUT:
            old = fnmatch(file.name, "sentence_*_config.json")  # sentence_roberta_config.json and others
            shutil.copyfile(file, place / (LIMITS if old else file.name))
    if not any(place.iterdir()):
        write_json(place / "config.json", {})


def without_chat_template(place: Path) -> None:
    """Texts are tokenised as they are: sentence-transformers 6 would wrap each in a copied template."""
    change_json(place / "tokenizer_config.json", lambda values: values.pop("chat_template", None))
    change_json(place / LIMITS, drop_messages)


def drop_messages(values: dict[str, Any]) -> None:
    """Leave plain text of what a folder saved by sentence-transformers 6 can read."""
    modalities = values.get("modality_config") or {}
    if entry := modalities.pop("message", None):
        modalities.setdefault("text", {key: value for key, value in entry.items() if key != "format"})


def cut_at(place: Path, limit: int | None) -> None:
    """Set the length limit in both places where versions of sentence-transformers look for it."""
    if limit is not None:
        (place / LIMITS).touch()
        change_json(place / LIMITS, lambda values: values.update(max_seq_length=limit))
        change_json(place / "tokenizer_config.json", lambda values: values.update(model_max_length=limit))


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply `change` to the object in a JSON file that is there, or to a new one where the file is empty."""
    if path.is_file():
        values = read_json(path) if path.stat().st_size else {}
        change(values)
        write_json(path, values)


def router_prompts(queries: Mapping[str, str], documents: Mapping[str, str]) -> dict[str, str]:
    """Prompts by name for both routes: on each side what its own model would put before the text."""
    named = {"query": side_prompt(queries, "query"), "document": side_prompt(documents, "document")}
    tasks = dict.fromkeys([*task_names(queries, "query"), *task_names(documents, "document")])
    for task in tasks:
        named[f"{task}-query"] = side_prompt(queries, "query", task)
        named[f"{task}-document"] = side_prompt(documents, "document", task)
    return named | {task: documents[task] for task in tasks if task in documents}


def task_names(prompts: Iterable[str], side: RouteSide) -> list[str]:
    """What a model has prompts for on this side, beside the plain ones.

    `SOURCE_document` is what embedtrain calls a source's prompt of documents.
    """
    plain = {name for names in PLAIN_PROMPTS.values() for name in names}
    bare = (name.removesuffix("-query").removesuffix("-document") for name in prompts)
    found = [name for name in dict.fromkeys(bare) if name not in plain]
    return [name for name in found if side == "document" or not name.endswith("_document")]


def side_prompt(prompts: Mapping[str, str], side: RouteSide, task: str = "") -> str:
    """What a model puts before a text of this side, in the order in which evaluation and mteb look."""
    own = (f"{task}-{side}", task) if task else ()
    return next((prompts[name] for name in (*own, *PLAIN_PROMPTS[side]) if name in prompts), "")
