"""The command `embedtrain soup`: models on disk as one, without a run file."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, Machine
from embedtrain.config.soups import Difference, SoupMethod
from embedtrain.stages.soup_making import Order, make_soup, show_soup
from embedtrain.stages.soup_places import find_model

OPTIONS = {
    "weights": "--weights",
    "data": "--validate",
    "max_tokens": "--max-tokens",
    "rows": "--examples",
    "num_rows": "--num-examples",
    "temperature": "--temperature",
    "density": "--density",
    "scale": "--scale",
}
"""Key of a method → the option that gives it."""
METHODS: TypeAdapter[SoupMethod] = TypeAdapter(SoupMethod)


def soup_models(
    models: Sequence[str],
    out: Path,
    method: str,
    settings: Mapping[str, Any],
    base: str | None,
    adapter_rank: int | None,
    seed: int,
    machine: Machine,
) -> None:
    """Write the soup of the models to `out`, print what is in it. `settings` are None where not given.

    What was evaluated is kept beside `out` until the soup is there, so that a killed command goes on.
    """
    if len(models) < 2:
        raise UserError(f"a soup needs at least two models; found {', '.join(models)}")
    if out.exists():
        raise UserError(f"--out {out}: it is there already; a soup never overwrites a model")
    settled = read_method(method, settings, len(models))
    if base and not (adapter_rank or isinstance(settled, Difference)):
        raise UserError(f"--base is for --adapter-rank and methods on differences; {method} does not read it")
    work = out.with_name(f".{out.name}.soup")
    order = Order(
        folders=named_folders(models),
        method=settled,
        machine=machine,
        work=work,
        seed=seed,
        base=Base(model=base) if base else None,
        adapter_rank=adapter_rank,
    )
    made = make_soup(order, out)
    shutil.rmtree(work, ignore_errors=True)
    show_soup(made)
    print(f"{out}: see soup.json there for all that led to it")


def named_folders(models: Sequence[str]) -> dict[str, Path]:
    """Where each model is; raises UserError where one is named twice."""
    for number, name in enumerate(models):
        if name in models[:number]:
            raise UserError(f"{name}: named twice; a model counts more through --weights")
    return {name: find_model(name) for name in models}


def read_method(kind: str, settings: Mapping[str, Any], num_models: int) -> SoupMethod:
    """The method with what was given of it. Raises UserError for options of other methods and bad values."""
    given = {key: value for key, value in settings.items() if value is not None}
    if "weights" in given:
        given["weights"] = read_weights(given["weights"], num_models)
    try:
        return METHODS.validate_python({"kind": kind, **given}, strict=True)
    except ValidationError as error:
        raise UserError("\n".join(dict.fromkeys(explain(kind, one) for one in error.errors()))) from None


def read_weights(text: str, num_models: int) -> tuple[float, ...]:
    """`1,2,1` as numbers, one a model."""
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--weights {text}: expected numbers with commas between them, as 1,2,1") from None
    if len(weights) != num_models:
        raise UserError(
            f"--weights {text}: {len(weights)} weights for {num_models} models; expected one each"
        )
    return weights


def explain(kind: str, error: Mapping[str, Any]) -> str:
    """One message about one option."""
    option = OPTIONS[str(error["loc"][1])]
    match error["type"]:
        case "extra_forbidden":
            return f"{option} is not for --method {kind}"
        case "missing":
            return f"--method {kind} needs {option}"
    return f"{option}: found {error['input']}; {error['msg'][:1].lower()}{error['msg'][1:]}"
