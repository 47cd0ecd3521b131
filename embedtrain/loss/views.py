"""Through which dims a term sees the vectors."""

from embedtrain.batch import Gathered
from embedtrain.config.errors import UserError
from embedtrain.config.terms import Matryoshka


def views(g: Gathered, matryoshka: Matryoshka | None, place: str) -> list[tuple[float, Gathered]]:
    """Weights and views: the raw vectors cut to each dim, or the full vectors alone.

    `place` says whose view it is. Raises UserError where a dim is above the model's.
    """
    if matryoshka is None:
        return [(1.0, g)]
    if matryoshka.dims[0] > g.dim:
        raise UserError(
            f"{place}.matryoshka.dims: {matryoshka.dims[0]} is more than the model's {g.dim} dims"
        )
    weights = matryoshka.weights or (1.0,) * len(matryoshka.dims)
    total = sum(weights) if matryoshka.normalize_weights else 1.0
    return [(weight / total, g.at_dim(dim)) for dim, weight in zip(matryoshka.dims, weights, strict=True)]
