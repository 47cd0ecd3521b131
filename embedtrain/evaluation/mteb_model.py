"""A model as one of mteb: its vectors are those of the folder, under the prompts that the folder has."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks.abstask import AbsTask
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.results import TaskResult

from embedtrain.evaluation.measure import Remembering
from embedtrain.model.st import BATCH_SIZE, Embedder, SentenceEmbedder

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
NO_REVISION = "no_revision_available"  # mteb's own word
KWARGS = {"batch_size": BATCH_SIZE, "show_progress_bar": False}


class MtebModel(AbsEncoder):
    """An embedder for `mteb.evaluate`.

    Prompts are looked up as mteb does: `TASK-query`, `TASK`, those of the type of task, `query`. mteb's own
    wrapper drops a prompt that is named after a task it does not know, as a local one; this one keeps it.
    """

    def __init__(self, embedder: Embedder, revision: str = NO_REVISION) -> None:
        """`revision` stands in the place where mteb files results."""
        self.embedder = embedder
        inner = embedder.embedder if isinstance(embedder, Remembering) else embedder
        facts: dict[str, Any] = {
            "name": mteb_name(embedder.name),
            "revision": revision,
            "embed_dim": embedder.dim,
        }
        if isinstance(inner, SentenceEmbedder):
            self.model = inner.model  # which knows another similarity than the cosine, if it has one
        if getattr(getattr(self, "model", None), "similarity_fn_name", "cosine") == "cosine":
            facts["similarity_fn_name"] = ScoringFunction.COSINE
        self.mteb_model_meta = ModelMeta.create_empty(facts)

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Vectors of the texts of a data loader."""
        texts = [text for batch in inputs for text in batch["text"]]
        own = self.embedder.for_task(task_metadata.name)
        if own is self.embedder:
            own = self.embedder.for_task(task_metadata.type)
        return own.encode(texts, side="" if prompt_type is None else prompt_type.value, normalize=False)


def mteb_name(name: str) -> str:
    """A name as mteb wants it, `organisation/model`: one of the hub, or embedtrain's for a folder."""
    if HUB_NAME.fullmatch(name) and not Path(name).exists():
        return name
    return f"embedtrain/{re.sub(r'[^A-Za-z0-9.=-]+', '_', name).strip('_')}"


def evaluate(model: MtebModel, task: AbsTask) -> TaskResult:
    """mteb's own measurement, which leaves nothing on disk."""
    with quiet_mteb():
        found = mteb.evaluate(
            model,
            task,
            cache=None,
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs=dict(KWARGS),
        )
    return found.task_results[0]


@contextmanager
def quiet_mteb() -> Iterator[None]:
    """Silence warnings and progress bars of mteb and what it calls; errors still raise."""
    with redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
