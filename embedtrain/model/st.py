"""Opens any sentence-transformers folder for evaluation, the way its users do."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from torch import nn

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.adapter import check_adapter
from embedtrain.model.existing import ADAPTER
from embedtrain.model.load import quiet
from embedtrain.model.safe_files import MODULES, Module, check_place, check_weights, read_modules
from embedtrain.model.source import resolve_model

if TYPE_CHECKING:  # a training that measures nothing need not wait for it
    from sentence_transformers import SentenceTransformer

Side = Literal["query", "document", ""]
BATCH_SIZE = 32
PLAIN_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus"), "": ()}
ROUTERS = ("Router", "Asym")
PLAIN_MODULES = (
    "Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "WeightedLayerPooling",
    "CNN", "LSTM", "BoW", "WordWeights", "StaticEmbedding",
)  # fmt: skip
"""Those whose files name no other class: a WordEmbeddings has any class imported, by its tokenizer's name."""
ROUTER_CONFIGS = ("router_config.json", "config.json")


class Embedder(Protocol):
    """What evaluation needs of a model."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        ...

    def encode(self, texts: Sequence[str], *, side: Side, normalize: bool = True) -> np.ndarray:
        """Vectors (len(texts), dim), float32; side "" means without a prompt."""
        ...

    def for_task(self, task: str) -> "Embedder":
        """The same model with the prompts it has for the task; itself where it has none."""
        ...


@dataclass(frozen=True)
class SentenceEmbedder:
    """A loaded sentence-transformers model behind the `Embedder` protocol."""

    model: "SentenceTransformer"
    name: str
    dim: int
    task: str = ""

    def for_task(self, task: str) -> "SentenceEmbedder":
        """The model with the prompts named `task-query`, `task-document` and `task`, where it has any."""
        names = {task, f"{task}-query", f"{task}-document"}
        return replace(self, task=task) if names & self.model.prompts.keys() else self

    def prompt_name(self, side: Side) -> str | None:
        """The task's prompt of this side, in the order in which mteb looks; None where it has none."""
        names = (f"{self.task}-{side}", self.task) if side else (self.task,)
        return next((name for name in names if self.task and name in self.model.prompts), None)

    def prompt(self, side: Side) -> str | None:
        """The text that `encode` puts before each of this side's, where it puts any."""
        names = (self.prompt_name(side), *PLAIN_PROMPTS[side], self.model.default_prompt_name)
        return next((self.model.prompts[name] for name in names if name in self.model.prompts), None)

    def encode(
        self, texts: Sequence[str], *, side: Side, normalize: bool = True, prompt: str | None = None
    ) -> np.ndarray:
        """By this prompt, the task's, or else `encode_query`, `encode_document` or, for side "", `encode`."""
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        encoders = {
            "query": self.model.encode_query,
            "document": self.model.encode_document,
            "": self.model.encode,
        }
        vectors = encoders[side](
            list(texts),
            prompt_name=self.prompt_name(side) if prompt is None else None,
            prompt=prompt,
            batch_size=BATCH_SIZE,
            convert_to_tensor=True,
            normalize_embeddings=normalize,
            show_progress_bar=False,
        )
        return vectors.float().cpu().numpy()


def open_sentence_transformer(
    path: str | Path, *, device: str = "cpu", max_tokens: int | None = None, name: str | None = None
) -> SentenceEmbedder:
    """Open a folder, hub id or `pip:` package of a sentence-transformers model.

    Reads safetensors only and runs no code from the folder. The chat template is removed:
    sentence-transformers 6 would wrap every text in it. `max_tokens` can only shorten the model's limit.
    """
    from sentence_transformers import SentenceTransformer

    folder = find_folder(path)
    check_folder(folder)
    try:
        with quiet_sentence_transformers():
            model = SentenceTransformer(
                str(folder), device=device, local_files_only=True, model_kwargs={"use_safetensors": True}
            )
    except ValueError as error:
        raise UserError(f"{folder}: cannot be read: {str(error).splitlines()[0]}") from None
    for route in routes(model):
        remove_chat_template(route[0])
        shorten_limit(route[0], max_tokens)
    return SentenceEmbedder(model, name or str(path), shared_dim(model, folder))


def routes(model: "SentenceTransformer") -> list[list[nn.Module]]:
    """The modules that a text may run through: those of each route of a Router, or all there are."""
    from sentence_transformers.base.modules import Router

    first, *rest = model
    if not isinstance(first, Router):
        return [[first, *rest]]
    return [[*route, *rest] for route in first.sub_modules.values() if isinstance(route, nn.Sequential)]


def shared_dim(model: "SentenceTransformer", folder: Path) -> int:
    """Dims of a vector, whichever route it came by."""
    dims = {module_dim(route) for route in routes(model)} - {None}
    if len(dims) > 1:
        raise UserError(
            f"{folder}: its routes give vectors of {' and '.join(map(str, sorted(dims, key=str)))} dims, "
            "which cannot be compared"
        )
    if (dim := next(iter(dims), None)) is None:
        raise UserError(f"{folder}: sentence-transformers does not know the dim of its vectors")
    return dim


def module_dim(route: Sequence[Any]) -> int | None:
    """Dims of what the last module that knows it gives."""
    knowing = (module for module in reversed(route) if hasattr(module, "get_embedding_dimension"))
    return next((module.get_embedding_dimension() for module in knowing), None)


def shorten_limit(first: Any, max_tokens: int | None) -> None:
    """Cut texts at `max_tokens` where the route's own limit is not shorter."""
    if max_tokens is not None and hasattr(first, "max_seq_length"):
        first.max_seq_length = min(max_tokens, first.max_seq_length or max_tokens)


def find_folder(path: str | Path) -> Path:
    """The local folder, fetched first where `path` names a hub id or a package."""
    return Path(path) if Path(path).is_dir() else resolve_model(str(path)).path


def check_folder(folder: Path) -> None:
    """Raise UserError where the folder is no sentence-transformers model, or holds pickles or code."""
    if not (folder / MODULES).is_file():
        raise UserError(
            f"{folder}: no modules.json, so this is not a sentence-transformers folder; "
            "`embedtrain` exports one with an export stage"
        )
    for module in read_modules(folder):
        check_module(folder / module.path, folder / MODULES, module)


def check_module(place: Path, listed_in: Path, module: Module) -> None:
    """Raise UserError where a module, or one that a Router holds, is foreign, a pickle, or elsewhere."""
    if not module.type.startswith("sentence_transformers."):
        raise UserError(
            f"{listed_in}: module '{module.type}' is code from outside sentence-transformers, which is never "
            "run"
        )
    if module.kind not in (*PLAIN_MODULES, *ROUTERS):
        raise UserError(
            f"{listed_in}: module '{module.type}' is none that is opened; known: "
            f"{', '.join((*PLAIN_MODULES, *ROUTERS))}"
        )
    check_weights(place)
    if (place / ADAPTER).is_file():
        check_adapter(place)
    if module.kind in ROUTERS:
        config = next((place / name for name in ROUTER_CONFIGS if (place / name).is_file()), None)
        if config is None:
            raise UserError(f"{place}: no {ROUTER_CONFIGS[0]} says what its routes are")
        for name, inner in read_json(config)["types"].items():
            check_place(place, name, config)
            check_module(place / name, config, Module(str(inner), name))


def remove_chat_template(first: Any) -> None:
    """Make the first module of a model, or of a route, tokenise texts as they are."""
    from sentence_transformers.base.modules import Transformer

    if not isinstance(first, Transformer) or "message" not in first.modality_config:
        return
    first.processor.chat_template = None
    entry = first.modality_config.pop("message")
    first.modality_config.setdefault("text", {k: v for k, v in entry.items() if k != "format"})
    first.input_formatter.supported_modalities = list(first.modality_config)


@contextmanager
def quiet_sentence_transformers() -> Iterator[None]:
    """Silence loading bars and warnings while a model is read; errors still raise."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        logger.setLevel(level)
