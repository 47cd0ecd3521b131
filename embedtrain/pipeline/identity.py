"""What a stage depends on: every value by name, and why a finished folder no longer serves."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from embedtrain.artifacts import (
    DONE,
    HashCache,
    is_done,
    read_json,
)
from embedtrain.config import check
from embedtrain.config.distilling import Distil, StoredTeacher
from embedtrain.config.load import resolved
from embedtrain.config.mining import Mine, Score
from embedtrain.config.references import inputs_of, is_path, teacher_of
from embedtrain.config.retrievers import Pinned, Retriever, Teacher
from embedtrain.config.schema import Run
from embedtrain.config.soups import Cocktail, Greedy, Soup
from embedtrain.config.stages import AnyStage, Evaluate, Export, Filter, Train

ABSENT = "absent"
FORMATS = {
    "filter": 1,
    "train": 2,
    "mine": 2,
    "score": 1,
    "select": 2,
    "distil": 1,
    "soup": 3,
    "export": 2,
    "evaluate": 2,
}
SECTIONS = {
    "filter": ("seed",),
    "train": ("base", "encoder", "text", "precision", "seed"),
    "mine": ("base", "encoder", "text", "precision", "seed"),
    "score": ("base", "encoder", "text", "precision", "seed"),
    "select": ("seed",),
    "distil": ("base", "encoder", "text", "precision", "seed"),
    "soup": ("base", "encoder", "text", "precision", "seed"),
    "export": ("base", "encoder", "text", "precision", "seed"),
}


def sources_of(run: Run, stage: AnyStage) -> list[str]:
    """Names of the sources whose files this stage reads; an export proves itself on texts of all of them."""
    if isinstance(stage, Export):
        return list(run.sources)
    return check.sources_of(run, stage) if isinstance(stage, Train | Mine | Filter | Distil) else []


def flatten(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Leaves of nested mappings by dotted name; lists stay whole."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(f"{prefix}.{key}", inner)
    else:
        yield prefix, value


def identify(
    run: Run, stage: AnyStage, identities: Mapping[str, str], hashes: HashCache
) -> dict[str, object]:
    """Every value that the stage's result depends on, by dotted name."""
    config = resolved(run)
    parts: dict[str, object] = {"format": FORMATS[stage.kind]}
    parts.update(flatten(f"stages.{stage.name}", stage.identity()))
    for section in SECTIONS.get(stage.kind, ()):
        parts.update(flatten(section, config[section]))
    for name in sources_of(run, stage):
        settings = dict(config["sources"][name])
        if not isinstance(stage, Train):
            del settings["weight"]
        parts.update(flatten(f"sources.{name}", settings))
        parts[f"contents of {run.sources[name].rows}"] = hashes.hash(run.sources[name].rows)
    for path in outside_paths(run, stage):
        parts[f"contents of {path}"] = hashes.hash(path)
    for name in inputs_of(run, stage):
        parts[f"stage {name}"] = identities[name]
    return parts


def outside_paths(run: Run, stage: AnyStage) -> list[str]:
    """Local files and folders beside the sources that a stage reads."""
    paths = [run.base.model] if "base" in SECTIONS.get(stage.kind, ()) else []
    if named := teacher_of(stage):
        paths.append(named[1].model)
    paths += stage.test_data if isinstance(stage, Filter) else []
    paths += stage.corpus if isinstance(stage, Mine) else []
    paths += stage.validation.data if isinstance(stage, Train) and stage.validation else []
    if isinstance(stage, Distil):
        paths += stage.texts
        paths += [stage.teacher.folder] if isinstance(stage.teacher, StoredTeacher) else []
    if isinstance(stage, Soup):
        paths += soup_paths(stage)
    paths += [judge.model for judge in judges_of(stage) if isinstance(judge, Pinned)]
    if isinstance(stage, Evaluate):
        paths += [*stage.models, *stage.intermediate, *stage.data, *stage.in_domain_data]
    names = {s.name for s in run.stages}
    return [p for p in paths if p not in names and Path(p).exists()]


def soup_paths(stage: Soup) -> list[str]:
    """Ingredients from outside the run, and what they are judged on."""
    paths = [name for name in stage.from_ if is_path(name)]
    paths += stage.method.data if isinstance(stage.method, Greedy) else []
    return [*paths, stage.method.rows] if isinstance(stage.method, Cocktail) else paths


def judges_of(stage: AnyStage) -> Sequence[Retriever | Teacher]:
    """What retrieves or scores in a stage."""
    if isinstance(stage, Mine):
        return stage.judges
    return stage.teachers if isinstance(stage, Score) else ()


def explain(folder: Path, stage: AnyStage, parts: Mapping[str, object]) -> str:
    """Why the newest finished folder of this stage does not serve, or `not made yet`."""
    finished = [p for p in folder.parent.glob(f"{stage.name}-*") if is_done(p) and p.suffix != ".partial"]
    if not finished:
        return "not made yet"
    before = read_json(max(finished, key=lambda p: (p / DONE).stat().st_mtime) / DONE)["parts"]
    changed = sorted(k for k in before.keys() | parts.keys() if before.get(k, ABSENT) != parts.get(k, ABSENT))
    shown = [
        f"{k} changed"
        if k.startswith(("contents", "stage "))
        else f"{k} {before.get(k, ABSENT)} → {parts.get(k, ABSENT)}"
        for k in changed[:2]
    ]
    return "; ".join(shown) + (f" and {len(changed) - 2} more" if len(changed) > 2 else "")
