"""Reads YAML as it looks: `2e-4` is a number, `no` is text, keys stand once, values have places."""

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from embedtrain.config.errors import ConfigError, found, near_file, shorten

Place = tuple[int, int]
CORE_SCHEMA = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}
TAG = "tag:yaml.org,2002:"


def plain_values() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """YAML 1.2's reading of plain words, as PyYAML wants it: by their first character."""
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, (pattern, starts) in CORE_SCHEMA.items():
        for start in starts:
            resolvers.setdefault(start, []).append((TAG + name, re.compile(f"(?:{pattern})$")))
    return resolvers


def read_decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """A whole number in base ten: `010` is ten."""
    return int(loader.construct_scalar(node))


class Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 reads them; anchors, aliases and merge keys are refused."""

    yaml_implicit_resolvers = plain_values()
    yaml_constructors: ClassVar = {**yaml.SafeLoader.yaml_constructors, TAG + "int": read_decimal}

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """The next node, which must stand written out."""
        event = self.peek_event()
        if getattr(event, "anchor", None):
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise refused(event.start_mark, f"'{sign}{event.anchor}' is not read; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are text and stand once."""
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise refused(key_node.start_mark, f"the key is {found(key)}; put it in quotes")
            if key in seen:
                raise refused(key_node.start_mark, f"key '{key}' is there twice, first on line {seen[key]}")
            seen[key] = key_node.start_mark.line + 1
        return {self.construct_object(k): self.construct_object(v, deep=deep) for k, v in node.value}


def refused(mark: yaml.Mark, text: str) -> yaml.MarkedYAMLError:
    """A fault of the file at a place in it."""
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


def read_mapping(path: Path | str) -> tuple[dict[str, Any], dict[tuple[str | int, ...], Place]]:
    """The content of a YAML file, and the line and column of every value in it.

    Raises ConfigError where the file is missing, empty, not YAML or not a mapping.
    """
    loader = open_yaml(read_text(Path(path)), path)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([syntax_message(path, error)]) from None
    if node is None or value is None:
        raise ConfigError([f"{path}: the file is empty; `embedtrain init FILE` writes one to start from"])
    if not isinstance(value, dict):
        raise ConfigError([f"{path}: found {found(value)}, expected a section of keys at the top"])
    return value, dict(places(node, ()))


def read_value(text: str) -> Any:
    """A value written on the command line, read as in a file. Raises yaml.YAMLError."""
    return yaml.load(text, Loader)


def read_text(path: Path) -> str:
    """The text of a file; raises ConfigError where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file{near_file(path)}"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: this is a folder, expected a YAML file"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: byte {error.start} is not UTF-8 text; is this a YAML file?"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None


def open_yaml(text: str, path: Path | str) -> Loader:
    """A loader over the text; raises ConfigError where it holds characters that no text file has."""
    try:
        return Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise ConfigError([f"{path}: line {line}: character {code:#x} cannot stand in a YAML file"]) from None


def syntax_message(path: Path | str, error: yaml.MarkedYAMLError) -> str:
    """Where the file is not YAML, and why."""
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = str(error.problem or error.context)
    if "'\\t'" in problem:
        problem = "a tab; indent with spaces"
    elif problem.startswith("mapping values"):
        problem = "a key cannot start here; check the indent, and quote text that holds ': '"
    elif problem.startswith("could not determine a constructor"):
        problem = f"tags such as {shorten(problem.split()[-1].strip(chr(39)))} are not read"
    return f"{path}: {where}{problem}"


def places(node: yaml.Node, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Place]]:
    """Line and column of a node and of everything in it, counted from 0; a key's own place for its value."""
    yield path, (node.start_mark.line, node.start_mark.column)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from places(item, (*path, index))
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            inner = (*path, key.value)
            yield from places(item, inner)
            yield inner, (key.start_mark.line, key.start_mark.column)
