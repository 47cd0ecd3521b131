"""What short names of changes write: overrides of the run at hand, one function a name.

They raise ValueError for a value that they do not know, and give nothing where there is nothing to change.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from embedtrain.config.load import resolved
from embedtrain.config.mining import Select
from embedtrain.config.needs import uses_vectors
from embedtrain.config.schema import Run
from embedtrain.config.soups import Soup
from embedtrain.config.stages import Export, Train
from embedtrain.config.terms import InfoNCE, Sigmoid, SoftLabels, Term

OFF = "off"
INSTRUCTION = re.compile(r"[^\n{}]*\{instruction\}[ \t]*[|:;,.-]*[ \t]*\n?[ \t]*")
MARGINS: dict[str, dict[str, Any]] = {
    "perc_pos": {"kind": "perc_pos", "fraction": 0.95},
    "margin_pos": {"kind": "margin_pos", "margin": 0.05},
    "adaptive": {"kind": "adaptive", "fraction": 0.95, "ceiling_quantile": 0.5},
    "absolute": {"kind": "absolute", "ceiling": 0.7},
    "shift": {"kind": "shift", "ranks": 10},
}
"""Published constants (NV-Retriever); adaptive adds that no threshold passes the median positive's score."""
MIXINGS = {"pair": ["pair"], "list": ["list"], "both": ["pair", "list"]}
MASKS = {"same_text": ["same_text"]} | {
    name: ["same_text", name] for name in ("same_label", "above_margin", "above_fraction")
}
Overrides = Iterator[str]


# --- where things stand in a run ----------------------------------------------------------------------------


def terms_of(run: Run) -> Iterator[tuple[str, Train, Term]]:
    """Every term, the path it stands at and its stage."""
    for stage in run.stages:
        if isinstance(stage, Train):
            for number, term in enumerate(stage.objective.terms):
                yield f"stages.{stage.name}.objective.terms[{number}]", stage, term


def written(path: str, value: object) -> str:
    """An override; JSON is YAML."""
    return f"{path}={json.dumps(value, ensure_ascii=False)}"


def refuse(value: str, *known: str) -> None:
    """Raise ValueError where the value is none of those known."""
    if value not in known:
        raise ValueError(value)


def number(value: str) -> float:
    """The value as a number above 0."""
    found = float(value)
    if not 0 < found < float("inf"):
        raise ValueError(value)
    return found


# --- the shorthands -----------------------------------------------------------------------------------------


def focal(run: Run, value: str) -> Overrides:
    """The focal weight of every InfoNCE term."""
    section = None if value == OFF else {"gamma": number(value)}
    for path, _, term in terms_of(run):
        if isinstance(term, InfoNCE) and (section or term.focal):
            yield written(f"{path}.focal", section)


def mixing(run: Run, value: str) -> Overrides:
    """The mixed negatives of every InfoNCE term; put in where rows have two negatives or more."""
    refuse(value, OFF, *MIXINGS)
    kinds = [{"kind": kind} for kind in MIXINGS.get(value, [])]
    for path, stage, term in terms_of(run):
        if isinstance(term, InfoNCE) and (term.mixing if value == OFF else stage.num_negatives > 1):
            yield written(f"{path}.mixing", kinds)


def masks(run: Run, value: str) -> Overrides:
    """What every contrastive term hides."""
    refuse(value, OFF, *MASKS)
    kinds = [{"kind": kind} for kind in MASKS.get(value, [])]
    for path, _, term in terms_of(run):
        if isinstance(term, InfoNCE | Sigmoid) and (kinds or term.masks):
            yield written(f"{path}.masks", kinds)


def temperature(run: Run, value: str) -> Overrides:
    """The temperature of every contrastive term, in every stage."""
    fixed = number(value)
    for path, _, term in terms_of(run):
        if isinstance(term, InfoNCE | Sigmoid):
            yield written(f"{path}.temperature", fixed)


def matryoshka(run: Run, value: str) -> Overrides:
    """No view of fewer dims."""
    refuse(value, OFF)
    for stage in run.stages:
        if isinstance(stage, Train) and stage.objective.matryoshka:
            yield f"stages.{stage.name}.objective.matryoshka=null"
    for path, _, term in terms_of(run):
        if term.matryoshka:
            yield f"{path}.matryoshka=null"


def distill_kl(run: Run, value: str) -> Overrides:
    """The terms of kind distill_kl, gone or with another weight."""
    if value == OFF:
        yield from without_terms(run, lambda term: term.kind == "distill_kl")
        return
    weight = number(value)
    for path, _, term in terms_of(run):
        if term.kind == "distill_kl":
            yield written(f"{path}.weight", weight)


def soft_labels(run: Run, value: str) -> Overrides:
    """No term learns the scores in the rows."""
    refuse(value, OFF)
    yield from without_terms(run, lambda term: isinstance(term, SoftLabels) and term.teacher != "vectors")


def without_terms(run: Run, is_out: Callable[[Term], bool]) -> Overrides:
    """The objectives that hold such terms without them, and without a teacher that nothing asks then."""
    entries = {stage["name"]: stage for stage in resolved(run)["stages"]}
    for stage in run.stages:
        if not isinstance(stage, Train) or not any(map(is_out, stage.objective.terms)):
            continue
        dumped = entries[stage.name]["objective"]["terms"]
        kept = [one for one, term in zip(dumped, stage.objective.terms, strict=True) if not is_out(term)]
        yield written(f"stages.{stage.name}.objective.terms", kept)
        left = [term for term in stage.objective.terms if not is_out(term)]
        if stage.teacher is not None and not any(map(uses_vectors, left)):
            yield f"stages.{stage.name}.teacher=null"


def attention(run: Run, value: str) -> Overrides:
    """Whether a token sees those after it, in every stage."""
    yield from of_encoder("attention", value, ("bidirectional", "causal"))


def pooling(run: Run, value: str) -> Overrides:
    """Which token states become the vector, in every stage."""
    yield from of_encoder("pooling", value, ("mean", "weighted_mean", "last_token", "cls"))


def of_encoder(name: str, value: str, known: tuple[str, ...]) -> Overrides:
    """One setting of the encoder."""
    refuse(value, *known)
    yield f"encoder.{name}={value}"


def margin(run: Run, value: str) -> Overrides:
    """The rule on scores of every select stage; rules on labels and teachers stay."""
    refuse(value, "none", *MARGINS)
    entries = {stage["name"]: stage for stage in resolved(run)["stages"]}
    for stage in run.stages:
        if isinstance(stage, Select):
            others = [rule for rule in entries[stage.name]["rules"] if rule["kind"] not in MARGINS]
            chosen = [MARGINS[value]] if value in MARGINS else []
            yield written(f"stages.{stage.name}.rules", [*chosen, *others])


def soup(run: Run, value: str) -> Overrides:
    """Whatever reads a soup reads its first ingredient instead."""
    refuse(value, OFF)
    first = {stage.name: stage.from_[0] for stage in run.stages if isinstance(stage, Soup)}
    for stage in run.stages:
        name = getattr(stage, "from_", None)
        if isinstance(name, str) and name in first:
            while name in first:
                name = first[name]
            yield f"stages.{stage.name}.from={name}"


def instructions(run: Run, value: str) -> Overrides:
    """Templates without the line, or the beginning of a line, that holds the instruction."""
    refuse(value, OFF)
    found = {f"text.{side}": getattr(run.text, side) for side in ("query", "document")}
    for name, source in run.sources.items():
        here = f"sources.{name}"
        found |= {f"{here}.{side}": getattr(source, side) for side in ("query", "document")}
        if source.few_shot:
            found[f"{here}.few_shot.example"] = source.few_shot.example
    held = {path: text for path, text in found.items() if text and "{instruction}" in text}
    for path, text in held.items():
        yield written(path, INSTRUCTION.sub("", text))
    for name, source in run.sources.items():
        if held and source.instruction:
            yield written(f"sources.{name}.instruction", "")


def few_shot(run: Run, value: str) -> Overrides:
    """In-context examples: none at all, none in the exported prompts, or so many in them."""
    shown = [name for name, source in run.sources.items() if source.few_shot]
    if value == OFF:
        yield from without_examples(run, shown)
        return
    if not value.isdecimal():
        raise ValueError(value)
    for stage in run.stages:
        if not isinstance(stage, Export) or not shown:
            continue
        if int(value):
            yield written(f"stages.{stage.name}.few_shot_examples", dict.fromkeys(shown, int(value)))
            yield f"stages.{stage.name}.few_shot_by_default=true"
        elif stage.few_shot_by_default:
            yield f"stages.{stage.name}.few_shot_by_default=false"


def without_examples(run: Run, shown: list[str]) -> Overrides:
    """No source has examples, no template holds them, no export shows any."""
    for name in shown:
        yield f"sources.{name}.few_shot=null"
        if query := run.sources[name].query:
            yield written(f"sources.{name}.query", query.replace("{examples}", ""))
    if "{examples}" in run.text.query:
        yield written("text.query", run.text.query.replace("{examples}", ""))
    for stage in run.stages:
        if isinstance(stage, Export) and stage.few_shot_examples:
            yield f"stages.{stage.name}.few_shot_examples={{}}"
            yield f"stages.{stage.name}.few_shot_by_default=false"
