"""Opens any sentence-transformers folder for evaluation, the way its users do."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.load import quiet
from embedtrain.model.source import resolve_model

Side = Literal["query", "document", ""]
BATCH_SIZE = 32


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

    model: SentenceTransformer
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

    def encode(self, texts: Sequence[str], *, side: Side, normalize: bool = True) -> np.ndarray:
        """By the task's prompt, else by `encode_query`, `encode_document` or, for side "", `encode`."""
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        encoders = {
            "query": self.model.encode_query,
            "document": self.model.encode_document,
            "": self.model.encode,
        }
        prompt_name = self.prompt_name(side)
        vectors = encoders["" if prompt_name else side](
            list(texts),
            prompt_name=prompt_name,
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
    folder = find_folder(path)
    check_folder(folder)
    with quiet_sentence_transformers():
        model = SentenceTransformer(
            str(folder), device=device, local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    remove_chat_template(model)
    if max_tokens is not None:
        model.max_seq_length = min(max_tokens, model.max_seq_length or max_tokens)
    dim = model.get_embedding_dimension()
    if dim is None:
        raise UserError(f"{folder}: sentence-transformers does not know the dim of its vectors")
    return SentenceEmbedder(model, name or str(path), dim)


def find_folder(path: str | Path) -> Path:
    """The local folder, fetched first where `path` names a hub id or a package."""
    return Path(path) if Path(path).is_dir() else resolve_model(str(path)).path


def check_folder(folder: Path) -> None:
    """Raise UserError where the folder is no sentence-transformers model, or holds pickles or code."""
    if not (folder / "modules.json").is_file():
        raise UserError(
            f"{folder}: no modules.json, so this is not a sentence-transformers folder; "
            "`embedtrain` exports one with an export stage"
        )
    for module in read_json(folder / "modules.json"):
        if not module["type"].startswith("sentence_transformers."):
            raise UserError(
                f"{folder}/modules.json: module '{module['type']}' is code from outside "
                "sentence-transformers, which is never run"
            )
        check_weights(folder / module["path"])


def check_weights(folder: Path) -> None:
    """Raise UserError where weights are stored as a pickle and not as safetensors."""
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    if pickles and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: weights are in {pickles[0]}, a pickle, which can run code when read; "
            "only safetensors are read: convert the file first"
        )


def remove_chat_template(model: SentenceTransformer) -> None:
    """Make the model tokenise texts as they are."""
    first: Any = model[0]
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
