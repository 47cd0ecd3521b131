"""Which row it is that no batch can be made of: the threads that make batches say it, with the step."""

from collections.abc import Mapping, Sequence

from embedtrain.batch import ContrastiveBatch
from embedtrain.collate import Collation, collate, collate_parts
from embedtrain.config.errors import UserError
from embedtrain.mixture import Part


def collate_or_blame(
    stage: str, parts: Sequence[Part], step: int, collations: Mapping[str, Collation]
) -> ContrastiveBatch:
    """The batch of these parts; raises UserError naming step, source and row where one cannot be collated."""
    try:
        return collate_parts(parts, step, collations)
    except Exception as error:
        where = f"stage '{stage}', step {step + 1}"
        for part in parts:
            for row_id in part.rows.tolist():
                if fault := fault_of(collations[part.source], row_id, step):
                    raise UserError(f"{where}, source '{part.source}', row {row_id}: {fault}") from error
        raise UserError(f"{where}: the batch cannot be made: {describe(error)}") from error


def fault_of(how: Collation, row_id: int, step: int) -> str | None:
    """Why a row cannot be collated by itself, if it cannot."""
    try:
        collate([how.rows[row_id]], [0], [row_id], step, how)
    except Exception as error:
        return describe(error)
    return None


def describe(error: Exception) -> str:
    """A fault that was foreseen in its own words, another one with its kind."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
