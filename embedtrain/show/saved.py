"""Sections of a page as plain values, so that a page can be put together again later."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from embedtrain.show.diagram import Box, Diagram
from embedtrain.show.page import (
    Code,
    Folded,
    Grid,
    Measured,
    Neighbour,
    Neighbours,
    Plot,
    Plots,
    Prose,
    Section,
)

FORMAT = 1
KIND = "is"
CLASSES: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        Box, Code, Diagram, Folded, Grid, Measured, Neighbour, Neighbours, Plot, Plots, Prose, Section
    )
}  # fmt: skip


def save_sections(sections: Sequence[Section]) -> dict[str, Any]:
    """Values for a JSON file, which `load_sections` reads back."""
    return {"format": FORMAT, "sections": plain(list(sections))}


def load_sections(saved: Mapping[str, Any]) -> list[Section] | None:
    """The sections; None where another version of embedtrain saved them."""
    if saved.get("format") != FORMAT:
        return None
    sections: list[Section] = built(saved["sections"])
    return sections


def plain(value: Any) -> Any:
    """Dataclasses as mappings that name their class, sets and tuples as lists."""
    if is_dataclass(value):
        parts = {part.name: plain(getattr(value, part.name)) for part in fields(value)}
        return {KIND: type(value).__name__, **parts}
    if isinstance(value, frozenset):
        return {KIND: "frozenset", "of": sorted(value)}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value


def built(value: Any) -> Any:
    """The inverse of `plain`, but that tuples are lists."""
    if isinstance(value, list):
        return [built(part) for part in value]
    if not isinstance(value, dict):
        return value
    parts = {name: built(part) for name, part in value.items() if name != KIND}
    return frozenset(parts["of"]) if value[KIND] == "frozenset" else CLASSES[value[KIND]](**parts)
