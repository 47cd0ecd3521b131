"""`--set stages.finetune.lr=1e-5`: one value of a run file, by its dotted path."""

import re
from typing import Any

import yaml

from embedtrain.config.errors import UserError, found, nearest
from embedtrain.config.faults import Location
from embedtrain.config.reader import read_value

PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
PATH = re.compile(r"^[^.\[\]]+(?:\[\d+\]|\.[^.\[\]]+)*$")


def apply_override(data: dict[str, Any], override: str) -> Location:
    """Put the value of `path=value` into `data`; returns where it went.

    Raises UserError where the path leads nowhere. Whether the key and the value fit is for the schema to say.
    """
    parts, value = split_override(override)
    spot: list[str | int] = []
    here: Any = data
    for part in parts[:-1]:
        spot.append(index_of(here, part, override))
        here = enter(here, spot[-1])
    last = index_of(here, parts[-1], override)
    here[last] = value
    return (*spot, last)


def split_override(override: str) -> tuple[list[str | int], Any]:
    """The parts of the path and the value. Raises UserError where the text is not `path=value`."""
    path, equals, text = override.partition("=")
    if not equals or not PATH.match(path):
        raise UserError(f"--set {override}: expected path=value, for example stages.finetune.lr=1e-5")
    try:
        value = read_value(text)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: '{text}' is not a YAML value") from None
    return [int(number) if number else word for word, number in PART.findall(path)], value


def index_of(here: Any, part: str | int, override: str) -> str | int:
    """The key or index in `here` that a part of a path means: in a list of named things, by name."""
    if isinstance(here, dict) and isinstance(part, str):
        return part
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return part
    if isinstance(here, list):
        return named(here, part, override)
    raise UserError(f"--set {override}: {part!r} would stand below a single value, {found(here)}")


def named(items: list[Any], part: str | int, override: str) -> int:
    """Index of the list's item of that name."""
    if isinstance(part, int):
        raise UserError(
            f"--set {override}: there is no item {part}; the list has {len(items)}, counted from 0"
        )
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    if not any(names):
        raise UserError(f"--set {override}: '{part}' is in a list; give its index, as in terms[0]")
    raise UserError(f"--set {override}: nothing is named '{part}'; {nearest(part, [n for n in names if n])}")


def enter(here: Any, part: str | int) -> Any:
    """The value below, made an empty section where the file has none."""
    if isinstance(here, dict) and here.get(part) is None:
        here[part] = {}
    return here[part]
