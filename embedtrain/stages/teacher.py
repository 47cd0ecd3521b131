"""A teacher's vectors of the rows' texts: encoded once, by one process, and read by all from memory maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedtrain.artifacts import hash_folder
from embedtrain.collate import TeacherLookup
from embedtrain.config.errors import UserError, shorten
from embedtrain.config.fitting import num_negatives
from embedtrain.config.needs import covers, uses_vectors
from embedtrain.config.stages import Train
from embedtrain.config.tuning import RowTeacher, TeacherModel
from embedtrain.data.rows import Row
from embedtrain.dist import current
from embedtrain.model.prompted import OWN_PROMPTS, Instructed, Prompted
from embedtrain.model.source import resolve_model
from embedtrain.model.st import SentenceEmbedder, open_sentence_transformer, routes
from embedtrain.places import wait_for
from embedtrain.stages.context import StageContext
from embedtrain.text import instruction_of
from embedtrain.vectors import Recipe, Side, TextEncoder, encode_texts, vector_key

TEACHER = "teacher"  # in the stage's folder, while it trains
Asked = tuple[str, str]
"""A text, and the instruction that the teacher reads before it."""


class StoredVectors:
    """Vectors by text and side, K dims each, from the memory maps in a folder."""

    def __init__(self, folder: Path, *, instructed: bool = False) -> None:
        """Open what `encode_rows` wrote, queries with their instructions or not; the vectors stay on disk."""
        self.instructed = instructed
        sides: tuple[Side, ...] = ("query", "document")
        there = [side for side in sides if (folder / f"{side}.keys.npy").exists()]
        self.keys = {side: np.load(folder / f"{side}.keys.npy") for side in there}
        self.vectors = {side: np.load(folder / f"{side}.npy", mmap_mode="r") for side in there}
        self.dim = int(next(iter(self.vectors.values())).shape[1])

    def __call__(self, texts: Sequence[str], side: Side, instructions: Sequence[str] = ()) -> np.ndarray:
        """float32 (N, K), as the teacher gives them; KeyError for a text that was not encoded."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        if not (self.instructed and side == "query"):
            instructions = [""] * len(texts)
        asked = np.array([vector_key(*one) for one in zip(texts, instructions, strict=True)], np.int64)
        keys = self.keys.get(side, asked[:0])
        places = np.searchsorted(keys, asked)
        known = places < len(keys)
        known[known] = keys[places[known]] == asked[known]
        if not known.all():
            raise KeyError(f"no teacher vector of the {side} {texts[int(np.argmin(known))][:80]!r}")
        return np.asarray(self.vectors[side][places])


def teacher_vectors(
    context: StageContext, stage: Train, teacher: RowTeacher, rows: Mapping[str, Sequence[Row]]
) -> StoredVectors:
    """The teacher's vectors of all texts that its terms see.

    The first process encodes, into the run's store, and the others wait for its folder. A stage that goes on
    finds the folder there.
    """
    folder = context.folder / TEACHER
    if current().rank == 0 and not folder.exists():
        encode_rows(context, teacher, texts_by_side(context, stage, teacher, rows), folder)
    wait_for([folder])
    return StoredVectors(folder, instructed=teacher.is_instructed)


def lookups(stage: Train, sources: Iterable[str], vectors: StoredVectors | None) -> dict[str, TeacherLookup]:
    """The vectors for each source whose batches need them."""
    return {name: vectors for name in sources if vectors is not None and is_taught(stage, name)}


def is_taught(stage: Train, source: str) -> bool:
    """Whether a term that looks at the source asks for a teacher's vectors."""
    return any(covers(term, source) and uses_vectors(term) for term in stage.objective.terms)


def texts_by_side(
    context: StageContext, stage: Train, teacher: RowTeacher, rows: Mapping[str, Sequence[Row]]
) -> dict[Side, set[Asked]]:
    """Every text that may come into a batch; documents of a symmetric source are queries.

    Raises UserError for a row without an instruction where the teacher's prompt shows it.
    """
    texts: dict[Side, set[Asked]] = {"query": set(), "document": set()}
    for name in filter(lambda source: is_taught(stage, source), rows):
        source = context.run.sources[name]
        with_negatives = num_negatives(context.run, stage, name) > 0
        for row in rows[name]:
            instruction = ""
            if teacher.is_instructed:
                instruction = instruction_of(row.instruction, source.instruction)
                require_instruction(instruction, stage.name, name, row)
            documents = [*row.positives, *(row.negatives if with_negatives else ())]
            texts["query"].add((row.query, instruction))
            if source.symmetric:
                texts["query"].update((text, instruction) for text in documents)
            else:
                texts["document"].update((text, "") for text in documents)
    return texts


def require_instruction(instruction: str, stage: str, source: str, row: Row) -> None:
    """Raise UserError where there is none."""
    if not instruction:
        raise UserError(
            f"stage '{stage}': teacher.query_prompt shows {{instruction}}, and source '{source}' has none "
            f"for the query {shorten(row.query)}; give the source or its rows an instruction"
        )


def encode_rows(
    context: StageContext, teacher: RowTeacher, texts: Mapping[Side, set[Asked]], folder: Path
) -> None:
    """Write each side's vectors in the order of their sorted keys; the folder is there once it is whole."""
    embedder, recipe = open_teacher(context, teacher)
    encoder: TextEncoder = Prompted(embedder)
    recipes = {side: replace(recipe, side=side) for side in texts}
    if teacher.query_prompt is not None:
        require_whole_words(embedder, teacher.query_prompt)
        encoder = Instructed(embedder, teacher.query_prompt)
        recipes["query"] = replace(recipe, template=f"query prompt {teacher.query_prompt}")
    aside = folder.with_name(f"{folder.name}.partial")
    for side, wanted in texts.items():
        if wanted:
            ordered = sorted((vector_key(*asked), asked) for asked in wanted)
            encode_texts(
                encoder,
                [text for _, (text, _) in ordered],
                recipes[side],
                context.vector_store,
                instructions=[instruction for _, (_, instruction) in ordered],
                tokens_per_batch=context.machine.encode_tokens,
                label=f"teacher {teacher.model}: {side} texts",
                out=aside / f"{side}.npy",
            )
            np.save(aside / f"{side}.keys.npy", np.array([key for key, _ in ordered], np.int64))
    aside.replace(folder)


def require_whole_words(embedder: SentenceEmbedder, prompt: str) -> None:
    """Raise UserError where the prompt leaves the pool and would take the first word with it.

    sentence-transformers counts the prompt's tokens alone; a space at its end is one token with that word.
    """
    modules = [module for route in routes(embedder.model) for module in route]
    if prompt.endswith((" ", "\t")) and not all(
        getattr(module, "include_prompt", True) for module in modules
    ):
        raise UserError(
            f"teacher.query_prompt {prompt!r} ends in a space, and {embedder.name} leaves prompts out of its "
            "pool; end it in a line break or a colon"
        )


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
