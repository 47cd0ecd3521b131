"""One record of a foreign file: where it stands, its values, and getters that say what is wrong."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedtrain.config.errors import found
from embedtrain.data.rows import is_text

TITLE_AND_TEXT = "a text, or {'title': a text, 'text': a text}"


class Fault(Exception):
    """What is wrong with one record; its place is known to whoever reads it."""


def wrong(key: str, value: object, expected: str) -> Fault:
    """The fault of a value of another kind."""
    return Fault(f"'{key}': found {found(value)}, expected {expected}")


@dataclass(frozen=True, slots=True)
class Record:
    """Values by key or column; `place` is `file:line`, or `file: row n`. A null stands for an absent key."""

    place: str
    values: Mapping[str, Any]
    only_text: bool = False  # csv and tsv: numbers and lists stand in text cells

    def has(self, *keys: str) -> bool:
        """Whether all keys have a value; an empty cell of a table is none."""
        return all(self.value(key) is not None for key in keys)

    def value(self, key: str) -> Any:
        """The value, or None."""
        value = self.values.get(key)
        return None if self.only_text and value == "" else value

    def require(self, key: str, expected: str) -> Any:
        """The value. Raises Fault where there is none."""
        value = self.value(key)
        if value is None:
            keys = ", ".join(f"'{name}'" for name in self.values)
            raise Fault(f"'{key}' is missing; found {keys or 'no keys'}; expected {expected}")
        return value

    def text(self, key: str) -> str:
        """A text."""
        return check_text(key, self.require(key, "a text"))

    def texts(self, key: str) -> list[str]:
        """A list of texts; one text alone is a list of one."""
        return [check_text(f"{key}[{n}]", item) for n, item in enumerate(self.items(key, "a list of texts"))]

    def items(self, key: str, expected: str) -> list[Any]:
        """A list of anything; a text or an object alone is a list of one."""
        value = self.require(key, expected)
        if self.only_text and isinstance(value, str) and value.startswith("["):
            value = parse_list(value)
        return value if isinstance(value, list) else [value]

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.require(key, "a finite number")
        return check_number(key, parse_number(value) if self.only_text else value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        items = self.items(key, "a list of finite numbers")
        return tuple(check_number(f"{key}[{n}]", item) for n, item in enumerate(items))

    def scores(self, key: str) -> tuple[float, ...] | None:
        """A list of finite numbers, or None where the key is absent or the list is empty."""
        return (self.numbers(key) or None) if self.has(key) else None

    def name(self, key: str) -> str:
        """An id: a text or a whole number, as text."""
        return check_name(key, self.require(key, "an id"))

    def names(self, key: str) -> list[str]:
        """A list of ids."""
        return [check_name(f"{key}[{n}]", item) for n, item in enumerate(self.items(key, "a list of ids"))]


def check_text(key: str, value: object) -> str:
    """The value, where it is text that UTF-8 can hold."""
    if not isinstance(value, str) or not is_text(value):
        raise wrong(key, value, "a text")
    return value


def check_number(key: str, value: object) -> float:
    """The value as float, where it is a finite number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(key, value, "a finite number")
    return float(value)


def check_name(key: str, value: object) -> str:
    """The value as text, where it can be an id."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise wrong(key, value, "an id (a text or a whole number)")
    return str(value)


def parse_number(value: Any) -> Any:
    """The number that a cell holds, or the cell as it is."""
    try:
        return float(value)
    except ValueError:
        return value


def parse_list(cell: str) -> Any:
    """The JSON list that a cell holds, or the cell as it is."""
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return cell


def passage_text(key: str, value: object) -> str:
    """A document given as a text, or as an object with `text` and perhaps `title`: title, a space, text."""
    if not isinstance(value, Mapping):
        return check_text(key, value)
    if value.get("text") is None:
        raise wrong(key, value, TITLE_AND_TEXT)
    text = check_text(f"{key}.text", value["text"])
    title = check_text(f"{key}.title", value["title"]) if value.get("title") else ""
    return f"{title} {text}".strip() if title else text
