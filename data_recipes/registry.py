"""Finds the recipes of local sets: each module beside this one that names what it makes in RECIPES."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import data_recipes
from embedtrain.config.errors import UserError
from embedtrain.data.counts import count_rows

ROOT = Path(__file__).parent.parent
PLACES = {"shipped": Path("rows"), "built": Path("build/rows")}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One set that a module makes; its rows lie in `rows/<name>` or, unshipped, in `build/rows/<name>`.

    `overlap` names the MTEB tasks whose texts the set may hold; `arguments` stand before the user's own.
    """

    name: str
    task: str
    licence: str
    overlap: str
    arguments: tuple[str, ...] = ()


class Local(NamedTuple):
    """A recipe and the function that builds it."""

    recipe: Recipe
    main: Callable[[Sequence[str]], None]


def local_recipes() -> dict[str, Local]:
    """Name → recipe of every set that is made from public packages, in order of names. Raises UserError."""
    found: dict[str, Local] = {}
    for info in pkgutil.iter_modules(data_recipes.__path__, "data_recipes."):
        if info.ispkg or info.name.endswith(".__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"recipes need {error.name}, which is not installed: pip install 'embedtrain[recipes]'"
            ) from None
        for recipe in vars(module).get("RECIPES", ()):
            found[recipe.name] = Local(recipe, module.main)
    return dict(sorted(found.items()))


def built(name: str, root: Path = ROOT) -> tuple[int | None, str]:
    """(training rows, or the queries of a test set; where they are: shipped, built or "not built")."""
    for place, folder in PLACES.items():
        for path in (root / folder / name / "train.parquet", root / folder / name / "rows.parquet"):
            if path.is_file():
                return count_rows(path if path.stem == "train" else path.parent), place
    if (path := root / "rows" / "tests" / name / "queries.jsonl").is_file():
        return len(path.read_text().splitlines()), "shipped"
    return None, "not built"


def card_files(name: str, root: Path = ROOT) -> list[Path]:
    """Where the card of a local set may be."""
    folders = [*(root / folder for folder in PLACES.values()), root / "rows" / "tests"]
    return [folder / name / "card.md" for folder in folders]
