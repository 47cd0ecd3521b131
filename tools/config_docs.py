"""Write docs/config.md from the config classes: `python tools/config_docs.py`; `--check` only compares."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from embedtrain.config.faults import choice, members, sections, tags
from embedtrain.config.schema import Machine, Run
from embedtrain.config.types import PATTERNS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"
INTRO = """\
# Config

Written by `python tools/config_docs.py` from the classes in `embedtrain/config/`; `make check` compares.

A **run file** says what is done: model, rows, stages, losses. A **machine file** says how: device, processes,
chunk sizes. Nothing in a machine file may change a result, so one run file serves a laptop and a server.

```bash
embedtrain init my.yaml --rows my_pairs.jsonl     # a commented file to start from
embedtrain check my.yaml                          # all that is wrong with it, in under a second
embedtrain show my.yaml                           # what it means: stages, shares, losses as formulas
embedtrain plan my.yaml                           # what is done, what is left, and why
embedtrain run my.yaml --machine configs/machines/gpu.yaml
```

## How files are read

- One file, read as it stands: no inheritance, no variables, no anchors. A key stands once; an unknown key is
  an error that names the nearest known one.
- YAML 1.2: `2e-4` is a number, `no` is text, `true` and `false` are the only truth values.
- Paths are relative to the folder that the command is run in.
- `--set stages.finetune.lr=1e-5` replaces one value, through the same checks. Stages and sources go by name,
  other lists by index: `--set stages.finetune.objective.terms[0].temperature=0.02`. Values are read as YAML.
- A stage refers by name to stages above it: `from: pretrain`. `base` is the run's base model.
- All faults are shown at once, each with its place, and the exit code is 2:

```text
a.yaml: stages 'final' > objective.terms[0] (infonce) > temprature: unknown key; did you mean 'temperature'?
a.yaml: stages 'final' > lr: found 'fast' (text), expected a number
```
"""


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` compare it; 1 where it is not current."""
    page = render()
    if "--check" not in arguments:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
        print(f"{PAGE.name} written")
        return 0
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page
    if not current:
        print("docs/config.md is not what the config classes say: run python tools/config_docs.py")
    return 0 if current else 1


def render() -> str:
    """The whole page."""
    run, machine = list(walk(Run)), list(walk(Machine))
    parts = [INTRO, "## Run file", *map(section, run), "## Machine file", *map(section, machine)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def walk(start: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The class and all that its fields hold, each once, outer ones first."""
    waiting, seen = [start], set()
    while waiting:
        model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        yield model
        inner = [held for field in model.model_fields.values() for held in classes(field.annotation)]
        waiting = inner + waiting


def classes(kind: object) -> list[type[BaseModel]]:
    """The config classes in a type, those in lists and mappings too."""
    deeper = [c for m in members(kind) for argument in get_args(m) for c in classes(argument)]
    return sections(kind) + [c for c in deeper if c not in sections(kind)]


def title(model: type[BaseModel]) -> str:
    """The heading of a class: its name, and the kind that chooses it where there is one."""
    kinds = tags(model)
    return f"{model.__name__} (`kind: {kinds[0]}`)" if len(kinds) == 1 else model.__name__


def anchor(model: type[BaseModel]) -> str:
    """The link to a heading."""
    kept = (c for c in title(model).lower().replace(" ", "-") if c.isalnum() or c in "-_")
    return f"[{model.__name__}](#{''.join(kept)})"


def section(model: type[BaseModel]) -> str:
    """One class: what it is, and a table of its keys."""
    lines = [f"### {title(model)}", "", (model.__doc__ or "").strip()]
    kinds = tags(model)
    fields = [(n, f) for n, f in model.model_fields.items() if n != "kind" or len(kinds) > 1]
    if fields:
        lines += ["", "| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in fields:
        cells = (f"`{field.alias or name}`", value(field), default(field), field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def value(field: FieldInfo) -> str:
    """What may stand there, in words, with its limits."""
    text = words(field.annotation)
    limits = [
        f"{sign} {getattr(rule, name):g}"
        for rule in flat(field)
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(rule, name, None) is not None
    ]
    patterns = [PATTERNS[p] for rule in flat(field) if (p := getattr(rule, "pattern", None))]
    return " ".join([text + (f" ({patterns[0]})" if patterns else ""), *limits])


def flat(field: FieldInfo) -> list[object]:
    """The rules on a field's value, from the field and from every Annotated around its type."""
    rules = list(field.metadata)
    waiting: list[Any] = [field.annotation]
    while waiting:
        kind = waiting.pop()
        if hasattr(kind, "__metadata__"):
            rules += [m for outer in kind.__metadata__ for m in getattr(outer, "metadata", [outer])]
            waiting.append(kind.__origin__)
        elif get_origin(kind) not in (tuple, dict):
            waiting += [a for a in get_args(kind) if a is not type(None)]
    return [rule for rule in rules if not isinstance(rule, str)]


def words(kind: object) -> str:
    """A type in plain words."""
    plain: dict[object, str] = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return " or ".join(dict.fromkeys(word(member, plain) for member in members(kind)))


def word(member: object, plain: dict[object, str]) -> str:
    """One member of a type in plain words."""
    if member in plain:
        return plain[member]
    if get_origin(member) is Literal:
        return choice(get_args(member)).replace("'", "`")
    if get_origin(member) is tuple:
        several = "two of " if get_args(member)[-1] is not ... else "list of "
        return several + words(get_args(member)[0])
    if get_origin(member) is dict:
        return f"name to {words(get_args(member)[1])}"
    return anchor(member)  # type: ignore[arg-type]


def default(field: FieldInfo) -> str:
    """The default as it is written in a file; `required` where there is none."""
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "its defaults" if sections(field.annotation) else "none"
    if field.default is None or field.default == ():
        return "none"
    return f"`{written(field.default)}`"


def written(value: object) -> str:
    """A value as YAML has it, in one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case tuple():
            return f"[{', '.join(map(written, value))}]"
        case BaseModel():
            return f"{{{', '.join(f'{key}: {written(inner)}' for key, inner in value)}}}"
    return str(value) or '""'


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
