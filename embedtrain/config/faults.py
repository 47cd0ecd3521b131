"""Pydantic's errors as sentences with a place: what was found and what was expected."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from embedtrain.config.errors import found, nearest, shorten
from embedtrain.config.types import PATTERNS

EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a section of keys",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "model_attributes_type": "a section of keys",
    "model_type": "a section of keys",
    "string_type": "text",
    "tuple_type": "a list",
}
TYPES = EXPECTED.keys() - {"finite_number", "int_from_float"} | {"literal_error"}
LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """One fault: where it is, as a path of keys and indices into the file, and what is wrong.

    `rests_on` is another value that it follows from: where that one is wrong itself, this is not told.
    """

    location: Location
    text: str
    rests_on: Location = ()

    def follows(self, told: Iterable[Location]) -> bool:
        """Whether it stands where a fault is told already, or rests on a value that is wrong."""
        depth = len(self.rests_on)
        return any(spot == self.location or (depth and spot[:depth] == self.rests_on) for spot in told)


def faults(error: ValidationError, data: object, schema: type[BaseModel]) -> list[Fault]:
    """Every fault that pydantic found in `data`."""
    told = []
    for each in error.errors(include_url=False):
        if each["type"] == "too_short" and len(each["input"]) >= each["ctx"]["min_length"]:
            continue  # pydantic counts the good items only; the bad ones are told by themselves
        told.append((fault(each, data, schema), each["type"]))
    merged: dict[Location, str] = {}
    for new in (fault for fault, kind in told if not beside(fault, kind, told)):
        start, _, expected = new.text.rpartition("expected ")
        before = merged.get(new.location, "")
        again = before and before.startswith(start)
        merged[new.location] = f"{before} or {expected}" if again else new.text
    return [Fault(location, text) for location, text in merged.items()]


def beside(new: Fault, kind: str, told: Sequence[tuple[Fault, str]]) -> bool:
    """Whether a fault says only that the value is not of one type, and it is of another that may stand there.

    `temperature: 0` is a number out of its limits, not a section that is none.
    """
    depth = len(new.location)
    return kind in TYPES and any(
        other.location[:depth] == new.location and (len(other.location) > depth or other_kind not in TYPES)
        for other, other_kind in told
    )


def fault(error: Mapping[str, Any], data: object, schema: type[BaseModel]) -> Fault:
    """One of pydantic's errors, its union tags taken out of the location."""
    location: list[str | int] = []
    kind: object = schema
    section: object = schema
    for part in error["loc"]:
        if part == "[key]":  # the key itself is wrong, not the value below it
            continue
        if is_tag(kind, data, part):
            kind = tagged(kind, part)
            continue
        location.append(part)
        section, kind, data = kind, inside(kind, part), child(data, part)
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        location.append("kind")
    known = keys(section) if error["type"] == "extra_forbidden" else choices(kind)
    return Fault(tuple(location), sentence(error, known, expectation(kind)))


def is_tag(kind: object, data: object, part: str | int) -> bool:
    """Whether a part of pydantic's location names a member of a union, not a key or an index."""
    if isinstance(data, Mapping):
        return part not in data and (part == data.get("kind") or part not in keys(kind))
    return isinstance(part, str)


def member_named(kind: object, part: str | int) -> type[BaseModel] | None:
    """The class that pydantic means by `Learned` or `function-after[check(), Learned]`."""
    words = re.findall(r"\w+", str(part))
    return next((section for section in sections(kind) if words and section.__name__ == words[-1]), None)


def members(kind: object) -> Iterator[object]:
    """The plain types in an annotation: without Annotated, None, and nested unions."""
    if get_origin(kind) is Annotated:
        yield from members(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from members(member)
    elif kind is not type(None):
        yield kind


def sections(kind: object) -> list[type[BaseModel]]:
    """The config classes in an annotation."""
    return [m for m in members(kind) if isinstance(m, type) and issubclass(m, BaseModel)]


def tags(section: type[BaseModel]) -> tuple[str, ...]:
    """The values of `kind` that choose this class."""
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def tagged(kind: object, tag: str | int) -> object:
    """The member of a union that a tag chooses."""
    chosen = (section for section in sections(kind) if tag in tags(section))
    return next(chosen, None) or member_named(kind, tag) or kind


def keys(kind: object) -> list[str]:
    """Keys of a section, as they are written in a file."""
    return [field.alias or name for s in sections(kind) for name, field in s.model_fields.items()]


def inside(kind: object, part: str | int) -> object:
    """The type of `value[part]` for a value of type `kind`; None where it is not known."""
    for member in members(kind):
        if get_origin(member) is dict:
            return get_args(member)[1]
        if get_origin(member) is tuple and isinstance(part, int):
            return get_args(member)[0]
    for section in sections(kind):
        for name, field in section.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
    return None


def choices(kind: object) -> list[str]:
    """The words that a value of this type may be, or the kinds that a section may have."""
    words = [w for m in members(kind) if get_origin(m) is Literal for w in get_args(m)]
    return words or [tag for section in sections(kind) for tag in tags(section)]


def expectation(kind: object) -> str:
    """A type in plain words, for a key that is missing."""
    if words := choices(kind):
        return choice(words)
    if sections(kind):
        return "a section of keys"
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return next((plain.get(m, "a list") for m in members(kind)), "")  # type: ignore[call-overload]


def place(location: Sequence[str | int], data: object) -> str:
    """Where a fault is, stages and sources by name, tagged items with their kind.

    `("stages", 2, "objective", "terms", 0, "lr")` is `stages 'finetune' > objective.terms[0] (infonce) > lr`.
    """
    text = ""
    for depth, part in enumerate(location):
        data = child(data, part)
        name, kind = (data.get("name"), data.get("kind")) if isinstance(data, Mapping) else (None, None)
        if depth == 1 and location[0] == "stages" and isinstance(name, str):
            text += f" {name!r} > "
        elif depth == 1 and location[0] == "sources":
            text += f" {part!r} > "
        elif isinstance(part, int):
            text += f"[{part}] ({kind}) > " if depth > 1 and isinstance(kind, str) else f"[{part}]"
        else:
            text += part if not text or text.endswith("> ") else f".{part}"
    return text.removesuffix(" > ")


def child(data: object, part: str | int) -> object:
    """`data[part]`, or None where it is not there."""
    if isinstance(data, Mapping):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


def sentence(error: Mapping[str, Any], known: Sequence[str], expected: str) -> str:
    """What is wrong, in plain words, for one pydantic error.

    `known` are the keys or words that may stand there, `expected` says what the value should be.
    """
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return f"unknown key; {nearest(str(error['loc'][-1]), known)}"
        case "missing":
            return f"missing; expected {expected}"
        case "union_tag_not_found":
            return f"missing; expected {choice(known)}"
        case "model_attributes_type" if value in known:
            return f"found {found(value)}, expected a section of keys; write {{kind: {value}}}"
        case "literal_error" | "union_tag_invalid":
            return wrong_choice(value["kind"] if kind == "union_tag_invalid" else value, known)
        case "too_short" | "string_too_short":
            return f"found {plural(value)}, expected at least {context['min_length']}"
        case "too_long":
            return f"found {plural(value)}, expected at most {context['max_length']}"
        case "string_pattern_mismatch":
            return f"found {shorten(value)}, expected {PATTERNS[context['pattern']]}"
        case "value_error":
            return str(context["error"])
    if kind in LIMITS:
        words, key = LIMITS[kind]
        return f"found {value}, expected {words} {context[key]:g}"
    if kind in EXPECTED:
        return f"found {found(value)}, expected {EXPECTED[kind]}"
    return f"found {found(value)}: {error['msg']}"


def wrong_choice(value: object, known: Sequence[str]) -> str:
    """A value that is not one of those allowed."""
    near = get_close_matches(str(value), known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"found {found(value)}, expected {choice(known)}{hint}"


def choice(names: Sequence[str]) -> str:
    """`'a', 'b' or 'c'`."""
    quoted = [repr(name) for name in names]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def plural(value: object) -> str:
    """How many things a list or text holds."""
    if isinstance(value, str):
        return "empty text"
    count = len(value)  # type: ignore[arg-type]
    return f"{count} value" + ("" if count == 1 else "s")
