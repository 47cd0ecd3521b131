"""A teacher's vectors of the rows' texts: encoded once, by one process, and read by all from memory maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedtrain.artifacts import hash_folder
from embedtrain.collate import TeacherLookup
from embedtrain.config.fitting import num_negatives
from embedtrain.config.needs import covers, uses_vectors
from embedtrain.config.stages import Train
from embedtrain.config.tuning import TeacherModel
from embedtrain.data.rows import Row
from embedtrain.dist import current
from embedtrain.model.prompted import OWN_PROMPTS, Prompted
from embedtrain.model.source import resolve_model
from embedtrain.model.st import SentenceEmbedder, open_sentence_transformer
from embedtrain.places import wait_for
from embedtrain.stages.context import StageContext
from embedtrain.vectors import Recipe, Side, encode_texts, vector_key

TEACHER = "teacher"  # in the stage's folder, while it trains


class StoredVectors:
    """Vectors by text and side, K dims each, from the memory maps in a folder."""

    def __init__(self, folder: Path) -> None:
        """Open what `encode_rows` wrote; the vectors stay on disk."""
        sides: tuple[Side, ...] = ("query", "document")
        there = [side for side in sides if (folder / f"{side}.keys.npy").exists()]
        self.keys = {side: np.load(folder / f"{side}.keys.npy") for side in there}
        self.vectors = {side: np.load(folder / f"{side}.npy", mmap_mode="r") for side in there}
        self.dim = int(next(iter(self.vectors.values())).shape[1])

    def __call__(self, texts: Sequence[str], side: Side) -> np.ndarray:
        """float32 (N, K), as the teacher gives them; KeyError for a text that was not encoded."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        asked = np.array([vector_key(text) for text in texts], np.int64)
        keys = self.keys.get(side, asked[:0])
        places = np.searchsorted(keys, asked)
        known = places < len(keys)
        known[known] = keys[places[known]] == asked[known]
        if not known.all():
            raise KeyError(f"no teacher vector of the {side} {texts[int(np.argmin(known))][:80]!r}")
        return np.asarray(self.vectors[side][places])


def teacher_vectors(
    context: StageContext, stage: Train, teacher: TeacherModel, rows: Mapping[str, Sequence[Row]]
) -> StoredVectors:
    """The teacher's vectors of all texts that its terms see.

    The first process encodes, into the run's store, and the others wait for its folder. A stage that goes on
    finds the folder there.
    """
    folder = context.folder / TEACHER
    if current().rank == 0 and not folder.exists():
        encode_rows(context, teacher, texts_by_side(context, stage, rows), folder)
    wait_for([folder])
    return StoredVectors(folder)


def lookups(stage: Train, sources: Iterable[str], vectors: StoredVectors | None) -> dict[str, TeacherLookup]:
    """The vectors for each source whose batches need them."""
    return {name: vectors for name in sources if vectors is not None and is_taught(stage, name)}


def is_taught(stage: Train, source: str) -> bool:
    """Whether a term that looks at the source asks for a teacher's vectors."""
    return any(covers(term, source) and uses_vectors(term) for term in stage.objective.terms)


def texts_by_side(
    context: StageContext, stage: Train, rows: Mapping[str, Sequence[Row]]
) -> dict[Side, set[str]]:
    """Every text that may come into a batch; documents of a symmetric source are queries."""
    texts: dict[Side, set[str]] = {"query": set(), "document": set()}
    for name in filter(lambda source: is_taught(stage, source), rows):
        documents = texts["query" if context.run.sources[name].symmetric else "document"]
        with_negatives = num_negatives(context.run, stage, name) > 0
        for row in rows[name]:
            texts["query"].add(row.query)
            documents.update(row.positives, row.negatives if with_negatives else ())
    return texts


def encode_rows(
    context: StageContext, teacher: TeacherModel, texts: Mapping[Side, set[str]], folder: Path
) -> None:
    """Write each side's vectors in the order of their sorted keys; the folder is there once it is whole."""
    embedder, recipe = open_teacher(context, teacher)
    encoder = Prompted(embedder)
    aside = folder.with_name(f"{folder.name}.partial")
    for side, wanted in texts.items():
        if wanted:
            ordered = sorted(wanted, key=vector_key)
            encode_texts(
                encoder,
                ordered,
                replace(recipe, side=side),
                context.vector_store,
                tokens_per_batch=context.machine.encode_tokens,
                label=f"teacher {teacher.model}: {side} texts",
                out=aside / f"{side}.npy",
            )
            np.save(aside / f"{side}.keys.npy", np.array([vector_key(text) for text in ordered], np.int64))
    aside.replace(folder)


def open_teacher(context: StageContext, teacher: TeacherModel) -> tuple[SentenceEmbedder, Recipe]:
    """The teacher, and the recipe of its raw vectors of queries with its own prompts."""
    model, name = model_folder(context, teacher), teacher.model
    embedder = open_sentence_transformer(
        model, device=context.machine.device, max_tokens=teacher.max_tokens, name=name
    )
    recipe = Recipe(hash_folder(model), OWN_PROMPTS, "query", teacher.max_tokens, normalize=False)
    return embedder, recipe


def model_folder(context: StageContext, teacher: TeacherModel) -> Path:
    """An export stage's model, or the local folder of what the run file names."""
    if teacher.model in context.inputs:
        return context.inputs[teacher.model] / "model"
    return resolve_model(teacher.model, revision=teacher.revision, sha256=teacher.sha256).path
