"""What a user writes after --rule, --ranks and --teacher, as sections of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from embedtrain.config.errors import UserError, nearest
from embedtrain.config.faults import faults
from embedtrain.config.inputs import outside_fault
from embedtrain.config.reader import read_value
from embedtrain.config.rules import (
    AbsoluteScore,
    AdaptiveMargin,
    MarginToPositive,
    PercentOfPositive,
    Rule,
    SameLabel,
    Shift,
    TeacherCeiling,
)
from embedtrain.config.types import Strict

Section = dict[str, Any]

RULES: Mapping[str, tuple[type[Strict], str]] = {
    "perc_pos": (PercentOfPositive, "fraction"),
    "margin_pos": (MarginToPositive, "margin"),
    "adaptive": (AdaptiveMargin, "fraction"),
    "absolute": (AbsoluteScore, "ceiling"),
    "teacher_ceiling": (TeacherCeiling, "ceiling"),
    "shift": (Shift, "ranks"),
    "same_label": (SameLabel, ""),
}
"""By kind, the rule and the key that `kind=value` gives."""
DEFAULT, NOTHING = ("perc_pos",), ("none",)
TEACHERS: Mapping[str, bool] = {
    "cross_encoder": False,
    "model": False,
    "likelihood": True,
    "yes_no": True,
}
"""By kind, whether the model is a causal language model, which may be a single file."""
BM25 = "bm25"
EXAMPLE = "cross_encoder:BAAI/bge-reranker-v2-m3"


def rule_sections(texts: Sequence[str], judge: str) -> list[Section]:
    """The rules of `--rule`; without one perc_pos, and none at all where that is asked for."""
    if "none" in texts and len(texts) > 1:
        raise UserError("--rule none: keeps every candidate, so it stands alone; remove it or the others")
    return [] if tuple(texts) == NOTHING else [rule_section(text, judge) for text in texts or DEFAULT]


def rule_section(text: str, judge: str) -> Section:
    """`kind`, `kind=value` or `kind=value,key=value`. Raises UserError with all that is wrong with it."""
    first, *more = text.split(",")
    kind, equals, value = first.partition("=")
    if kind not in RULES:
        raise UserError(f"--rule {text}: no such rule; {nearest(kind, [*RULES, *NOTHING])}")
    schema, main = RULES[kind]
    if equals and not main:
        raise UserError(f"--rule {text}: {kind} takes no value")
    section = {"kind": kind} | ({main: read_number(value, text)} if equals else {})
    for part in more:
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"--rule {text}: found '{part}', expected key=value")
        section[key] = read_number(value, text)
    if kind == "teacher_ceiling":
        section.setdefault("judge", judge)
    return checked(section, schema, text)


def read_number(value: str, text: str) -> Any:
    """A value as YAML has it."""
    try:
        return read_value(value)
    except yaml.YAMLError:
        raise UserError(f"--rule {text}: cannot read '{value}'") from None


def checked(section: Section, schema: type[Strict], text: str) -> Section:
    """The section, where it is a rule."""
    try:
        schema.model_validate(section)
    except ValidationError as error:
        wrong = faults(error, section, schema)
        lines = [": ".join([f"--rule {text}", *map(str, one.location), one.text]) for one in wrong]
        raise UserError("\n".join(lines)) from None
    return section


def reads_scores(rules: Sequence[Section]) -> bool:
    """Whether a rule compares scores."""
    return any(issubclass(RULES[rule["kind"]][0], Rule) for rule in rules)


def rank_window(text: str | None, last: int) -> tuple[int, int]:
    """First and last rank of `--ranks 50-100`; 1 to `last` where it is absent."""
    if text is None:
        return 1, last
    first, _, end = text.partition("-")
    if not (first.isdecimal() and end.isdecimal()) or not 1 <= int(first) <= int(end):
        raise UserError(f"--ranks {text}: expected two ranks from 1 on, the better first, such as 50-100")
    return int(first), int(end)


def choice_section(sample_from: int | None) -> Section:
    """The best of those that stay, or a draw from so many of them."""
    return {"kind": "top"} if sample_from is None else {"kind": "sample", "from_top": sample_from}


def model_sections(models: Sequence[str], bm25: bool, max_tokens: int | None) -> list[Section]:
    """The retrievers of `--model` and `--bm25`; each model after the first has a number in its name."""
    sections = [
        {"kind": "model", "name": numbered("model", number), "model": given_model("--model", model)}
        | limit(max_tokens)
        for number, model in enumerate(models, 1)
    ]
    if not sections and not bm25:
        raise UserError("no retriever; give --model with a folder, hub id or pip: package, or --bm25")
    return sections + ([{"kind": BM25}] if bm25 else [])


def teacher_sections(texts: Sequence[str], max_tokens: int | None) -> list[Section]:
    """The teachers of `--teacher kind:model`."""
    if not texts:
        raise UserError(f"no teacher; give --teacher, such as {EXAMPLE}")
    sections = [teacher_section(text, max_tokens) for text in texts]
    kinds = [section["kind"] for section in sections]
    for number, section in enumerate(sections):
        section["name"] = numbered(section["kind"], kinds[: number + 1].count(section["kind"]))
    return sections


def teacher_section(text: str, max_tokens: int | None) -> Section:
    """One teacher."""
    kind, colon, model = text.partition(":")
    if kind == BM25 and not colon:
        return {"kind": BM25}
    if kind in TEACHERS and model:
        named = given_model(f"--teacher {kind}", model, causal=TEACHERS[kind])
        return {"kind": kind, "model": named} | limit(max_tokens)
    told = "needs a model" if kind in TEACHERS else f"no such kind; {nearest(kind, [*TEACHERS, BM25])}"
    raise UserError(f"--teacher {text}: {told}; expected kind:model, such as {EXAMPLE}, or {BM25}")


def given_model(option: str, model: str, causal: bool = False) -> str:
    """The model, where it is there or only the hub can tell."""
    model = str(Path(model).expanduser()) if model.startswith("~") else model
    if text := outside_fault(model, [], causal):
        raise UserError(f"{option}: {text}")
    return model


def numbered(name: str, number: int) -> str:
    """The name of a column; from the second on with its number."""
    return name if number == 1 else f"{name}_{number}"


def limit(max_tokens: int | None) -> Section:
    """The limit, where there is one."""
    return {} if max_tokens is None else {"max_tokens": max_tokens}
