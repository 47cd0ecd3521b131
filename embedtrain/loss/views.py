"""Through which dims a term sees the vectors."""

from embedtrain.batch import Gathered
from embedtrain.config.errors import UserError
from embedtrain.config.objective import Matryoshka


def views(g: Gathered, matryoshka: Matryoshka | None) -> list[tuple[float, Gathered]]:
    """Weights and views: the raw vectors cut to each dim, or the full vectors alone."""
    if matryoshka is None:
        return [(1.0, g)]
    too_large = [dim for dim in matryoshka.dims if dim > g.dim]
    if too_large:
        raise UserError(f"objective.matryoshka.dims: {too_large[0]} is more than the model's {g.dim} dims")
    weights = matryoshka.weights or (1.0,) * len(matryoshka.dims)
    total = sum(weights) if matryoshka.normalize_weights else 1.0
    return [(weight / total, g.at_dim(dim)) for dim, weight in zip(matryoshka.dims, weights, strict=True)]
