"""Whether models can be averaged, and all that speaks against it at once."""

from collections.abc import Mapping, Sequence

from embedtrain.average import Tensors
from embedtrain.average.tensors import MAX_LISTED
from embedtrain.config.errors import UserError
from embedtrain.model.ingredients.opening import Ingredient

MAY_DIFFER = {"limits", "keep_first_layers", "base name"}
"""Facts that do not say what the weights are for: a model cut to k layers is one with k layers."""


def check_alike(ingredients: Sequence[Ingredient]) -> None:
    """Raise one UserError that names everything that differs, and who has what."""
    keys = dict.fromkeys(key for one in ingredients for key in one.facts if key not in MAY_DIFFER)
    lines = [line for key in keys if (line := difference(key, ingredients))]
    first = ingredients[0]
    for other in ingredients[1:]:
        lines += shape_lines(first.tensors, other.tensors)
    if lines:
        raise UserError(
            "these models cannot be averaged, they differ:\n  " + "\n  ".join(dict.fromkeys(lines))
        )


def difference(key: str, ingredients: Sequence[Ingredient]) -> str:
    """A line that says who has which value of a fact; empty where all that have it agree."""
    owners: dict[str, list[str]] = {}
    for one in ingredients:
        if key == "base" and key not in one.facts:
            continue  # only an adapter knows its base
        owners.setdefault(one.facts.get(key, "none"), []).append(named(key, one))
    if len(owners) < 2:
        return ""
    return f"{key}: " + "; ".join(f"{value} in {', '.join(names)}" for value, names in owners.items())


def named(key: str, ingredient: Ingredient) -> str:
    """The model as a message calls it; of a base its name is of use, too."""
    return f"{ingredient.origin} ({ingredient.facts['base name']})" if key == "base" else ingredient.origin


def shape_lines(one: Tensors, other: Tensors) -> list[str]:
    """The first few tensors that only one has, or whose shapes differ."""
    lines = only_in(one, other.info) + only_in(other, one.info)
    lines += [
        f"{name}: {shape(one, name)} in {one.origin}, {shape(other, name)} in {other.origin}"
        for name, info in one.info.items()
        if name in other.info and other.info[name].shape != info.shape
    ]
    more = (
        [f"and {len(lines) - MAX_LISTED} more tensors of {other.origin}"] if len(lines) > MAX_LISTED else []
    )
    return lines[:MAX_LISTED] + more


def only_in(one: Tensors, others: Mapping[str, object]) -> list[str]:
    """A line for each tensor that the others lack."""
    return [f"only in {one.origin}: {name}" for name in one.info if name not in others]


def shape(tensors: Tensors, name: str) -> str:
    """`4x8`, for people."""
    return "x".join(map(str, tensors.info[name].shape)) or "scalar"
