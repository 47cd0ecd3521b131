"""The teacher's vectors of a distil stage's texts: made once, by all processes, and read from memory maps.

Dimensions: N texts of a side, K dims of a vector.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from embedtrain.artifacts import read_json, write_json
from embedtrain.config.distilling import Distil, ModelTeacher, StoredTeacher
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.dist import Processes, current
from embedtrain.mining.endpoint import open_encoder as open_endpoint
from embedtrain.mining.sharing import first_makes
from embedtrain.model.cost import embedder_macs
from embedtrain.model.prompted import Prompted
from embedtrain.stages.context import StageContext
from embedtrain.stages.stored_vectors import copy_stored, open_stored, require_sides
from embedtrain.stages.teacher import TEACHER, open_teacher
from embedtrain.train.taught import SIDES, Written
from embedtrain.vectors import Recipe, Side, TextEncoder, fill_store, read_vectors

UNIT = 1e-3  # how far from 1 the length of a vector may be that counts as normalised
BLOCK = 8192  # vectors that are measured at a time
Vectors = Mapping[Side, np.ndarray]


@dataclass(frozen=True, slots=True)
class Answering:
    """A teacher that encodes here; `recipe` is that of its queries."""

    name: str
    encoder: TextEncoder
    recipe: Recipe
    macs_per_token: int | None = None


@dataclass(frozen=True, slots=True)
class Lectures:
    """A matrix (N, K) for each side that has texts, and what is known of the teacher."""

    vectors: Vectors
    facts: dict[str, object]


def teach(context: StageContext, stage: Distil, written: Written) -> Lectures:
    """The vectors of all texts, as the teacher gives them with its own prompts.

    All processes share what a model or a server has to encode. A stage that goes on finds the files.
    """
    folder, sides = context.folder / TEACHER, [side for side in SIDES if len(written.texts(side))]
    if not (folder / "facts.json").exists():
        make_vectors(context, stage, written, sides)
    maps = {side: np.load(folder / f"{side}.npy", mmap_mode="r") for side in sides}
    return Lectures(maps, read_json(folder / "facts.json"))


def make_vectors(context: StageContext, stage: Distil, written: Written, sides: list[Side]) -> None:
    """Write a matrix for each side, and then the teacher's facts."""
    folder, processes = context.folder / TEACHER, current()
    facts: dict[str, object] = {}
    if isinstance(stage.teacher, StoredTeacher):
        source = Path(stage.teacher.folder).expanduser()
        stored = open_stored(source)
        require_sides(source, stored, sides)
        for side in sides:
            copy = partial(copy_stored, stored[side], written, stage.vector_precision)
            first_makes(folder / f"{side}.npy", processes, copy)
    else:
        answering = open_answering(context, stage.teacher, processes)
        facts = {"macs_per_token": answering.macs_per_token}
        for side in sides:
            encode_side(context, stage, answering, written, side, processes)
    first_makes(folder / "facts.json", processes, lambda path: write_json(path, facts))


def open_answering(
    context: StageContext, teacher: ModelTeacher | EndpointJudge, processes: Processes
) -> Answering:
    """The teacher's model on this process's device, or the client of its server."""
    if isinstance(teacher, ModelTeacher):
        embedder, recipe = open_teacher(context, teacher)
        return Answering(teacher.model, Prompted(embedder), recipe, embedder_macs(embedder.model))
    endpoint = open_endpoint(teacher, world=processes.world)
    recipe = Recipe(endpoint.weights, endpoint.template, "query", None, normalize=False)
    return Answering(teacher.column, endpoint, recipe)


def encode_side(
    context: StageContext,
    stage: Distil,
    teacher: Answering,
    written: Written,
    side: Side,
    processes: Processes,
) -> None:
    """Fill the run's store, each process its share; then the first one writes the matrix."""
    store, recipe = context.vector_store, replace(teacher.recipe, side=side, dtype=stage.vector_precision)
    filled = fill_store(
        teacher.encoder,
        written.texts(side),
        recipe,
        store,
        tokens_per_batch=context.machine.encode_tokens,
        label=f"teacher {teacher.name}: {side} texts",
        rank=processes.rank,
        world=processes.world,
    )

    def gather(out: Path) -> None:
        read_vectors(store / recipe.name, filled.keys_N, teacher.encoder.dim, out, recipe.dtype)

    first_makes(context.folder / TEACHER / f"{side}.npy", processes, gather)


def is_normalised(vectors: Vectors) -> bool:
    """Whether every vector has length 1, to `UNIT`: then the student's are brought there too."""
    return all(all_blocks(matrix, has_unit_lengths) for matrix in vectors.values())


def all_blocks(matrix_NK: np.ndarray, holds: Callable[[np.ndarray], bool]) -> bool:
    """Whether something holds for all rows, which are read block by block."""
    return all(holds(matrix_NK[start : start + BLOCK]) for start in range(0, len(matrix_NK), BLOCK))


def has_unit_lengths(block_NK: np.ndarray) -> bool:
    """Whether each row has length 1, to `UNIT`."""
    lengths_N = np.linalg.norm(block_NK.astype(np.float64), axis=1)
    return bool((np.abs(lengths_N - 1) <= UNIT).all())
