"""What a run tells of itself, read from its config and from what its stages left on disk. No torch."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from embedtrain import __version__
from embedtrain.artifacts import DONE as DONE_FILE
from embedtrain.artifacts import is_done, read_json
from embedtrain.config.check import sources_of
from embedtrain.config.describe import model_line, stage_line, teacher_line
from embedtrain.config.distilling import Distil
from embedtrain.config.errors import UserError
from embedtrain.config.formula import objective_formula
from embedtrain.config.mining import Mine
from embedtrain.config.references import inputs_of, references
from embedtrain.config.schema import Run, TextFormat
from embedtrain.config.stages import AnyStage, Evaluate, Filter, Train
from embedtrain.data.audit.licences import read_licence
from embedtrain.data.counts import count_rows
from embedtrain.evaluation.groups import size_text
from embedtrain.evaluation.results import Result
from embedtrain.evaluation.tasks import Task
from embedtrain.mixture import batch_sizes
from embedtrain.show.facts import (
    BASE,
    DONE,
    ROWS,
    RUNNING,
    TO_DO,
    FigureFacts,
    MachineFacts,
    RunFacts,
    ShareFacts,
    SourceFacts,
    StageFacts,
)
from embedtrain.stages.context import STAGE_FILE, beside
from embedtrain.stages.shares import stage_shares
from embedtrain.text import source_text

LIMITS = ("max_query_tokens", "max_document_tokens")
CURVE, RESULTS = "curve.jsonl", "report.json"
TYPES = {task.kind: task.mteb_type for task in get_args(Task)}
Step = dict[str, Any]


def run_facts(
    run: Run,
    folders: Mapping[str, Path],
    *,
    until: str | None = None,
    states: Mapping[str, tuple[str, str]] | None = None,
) -> RunFacts:
    """All that is known of the run; with `until` only of that stage and those it comes from.

    `folders` are those of stages that are done or begun, by name. `states` say why others are not.
    """
    stages = ancestors(run, until) if until else list(run.stages)
    read = {
        name
        for stage in stages
        if isinstance(stage, Train | Mine | Filter | Distil)
        for name in sources_of(run, stage)
    }
    return RunFacts(
        name=run.name,
        base=model_line(run),
        seed=run.seed,
        precision=run.precision,
        embedtrain_version=__version__,
        sources=tuple(source_facts(run, name) for name in run.sources if name in read),
        stages=tuple(stage_facts(run, stage, folders, states or {}) for stage in stages),
        figures=tuple(figure_facts(stages, folders)),
        languages=languages(stages),
        trained_tokens=trained_tokens(run, stages),
    )


def ancestors(run: Run, name: str) -> list[AnyStage]:
    """The stage and all that it reads, directly or not, in the order of the run."""
    named = {stage.name: stage for stage in run.stages}
    found, waiting = {name}, [name]
    while waiting:
        new = [n for n in inputs_of(run, named[waiting.pop()]) if n not in found]
        found |= set(new)
        waiting += new
    return [stage for stage in run.stages if stage.name in found]


def made_by(run: Run, root: Path, inputs: Mapping[str, Path]) -> dict[str, Path]:
    """Folders of all stages: those that `inputs` came from, by their own stage.json; the newest of others."""
    found, waiting = dict(inputs), list(inputs.values())
    while waiting:
        folder = waiting.pop()
        if (folder / STAGE_FILE).is_file():
            saved = read_json(folder / STAGE_FILE)["inputs"]
            new = {name: path for name, text in saved.items() if beside(folder, path := Path(text))}
            waiting += [path for name, path in new.items() if name not in found]
            found = new | found
    for stage in run.stages:
        others = [path for path in root.glob(f"{stage.name}-????????") if is_done(path)]
        if stage.name not in found and others:
            found[stage.name] = max(others, key=lambda path: (path / DONE_FILE).stat().st_mtime)
    return found


def source_facts(run: Run, name: str) -> SourceFacts:
    """Rows by their footer, the licence by the card beside them."""
    source = run.sources[name]
    path = Path(source.rows).expanduser()
    try:
        counted = count_rows(path)
    except UserError:
        return SourceFacts(name, None, source.weight, source.instruction)
    licence = read_licence(path)
    rows = min(counted, source.max_rows or counted)
    return SourceFacts(name, rows, source.weight, source.instruction, licence.stated, licence.mteb_overlap)


def stage_facts(
    run: Run, stage: AnyStage, folders: Mapping[str, Path], states: Mapping[str, tuple[str, str]]
) -> StageFacts:
    """What the config says of a stage, and what its folder adds."""
    folder = folders.get(stage.name)
    state, why = states.get(stage.name, (RUNNING if folder else TO_DO, ""))
    facts = StageFacts(
        stage.name,
        stage.kind,
        stage_line(stage),
        tuple(reads(run, stage)),
        DONE if folder and is_done(folder) else state,
        why,
        seed=getattr(stage, "seed", None),
        objective=objective_formula(stage.objective) + teacher_line(stage)
        if isinstance(stage, Train)
        else "",
        planned_steps=getattr(stage, "steps", None),
    )
    if folder is None:
        return facts
    if is_done(folder):
        facts = with_record(facts, read_json(folder / DONE_FILE), read_json(folder / STAGE_FILE))
    return replace(facts, shares=shares(run, stage, folders)) if isinstance(stage, Train) else facts


def reads(run: Run, stage: AnyStage) -> Iterator[str]:
    """The base, rows of sources, and stages."""
    if any(reference.name == "base" for reference in references(run, run.stages.index(stage))):
        yield BASE
    if isinstance(stage, Train | Mine | Filter | Distil) and getattr(stage, "rows", None) is None:
        yield from [ROWS] if sources_of(run, stage) else []
    yield from inputs_of(run, stage)


def with_record(facts: StageFacts, done: Mapping[str, Any], stage: Mapping[str, Any]) -> StageFacts:
    """A stage's own account of itself: time, steps, tokens, what became of candidates, where it ran."""
    told = done.get("facts") or {}
    sources = told.get("sources", {}) if facts.kind == "select" else {}
    here = done.get("machine", {})
    machine = MachineFacts(
        stage["machine"]["device"],
        stage["machine"]["num_processes"],
        here.get("processor", ""),
        here.get("cores"),
        tuple(here.get("gpus", ())),
    )
    return replace(
        facts,
        seconds=done.get("seconds"),
        steps=told.get("steps"),
        tokens=told.get("tokens"),
        tokens_per_second=told.get("tokens_per_second"),
        candidates={name: counts["candidates"] for name, counts in sources.items()},
        rows={name: counts["rows"] for name, counts in sources.items()},
        machine=machine,
        peak_bytes=here.get("peak_bytes"),
        peak_gpu_bytes=here.get("peak_gpu_bytes"),
        versions=done.get("versions", {}),
    )


def shares(run: Run, stage: Train, folders: Mapping[str, Path]) -> tuple[ShareFacts, ...]:
    """The plan of each source beside what the curve says was drawn; empty where rows are gone."""
    finished = {name: folder for name, folder in folders.items() if is_done(folder)}
    try:
        planned = stage_shares(run, stage, finished)
    except UserError:
        return ()
    drawn = drawn_rows(run, stage, read_steps(folders[stage.name] / CURVE))
    total = drawn.total()
    return tuple(
        ShareFacts(
            name,
            share.size,
            share.drawn,
            share.fraction,
            drawn[name] if total else None,
            drawn[name] / total if total else None,
        )
        for name, share in planned.items()
    )


def drawn_rows(run: Run, stage: Train, steps: Sequence[Step]) -> Counter[str]:
    """Rows of each source in the batches of a curve."""
    sizes = batch_sizes(stage, {name: run.sources[name] for name in sources_of(run, stage)})
    drawn: Counter[str] = Counter()
    for step in steps:
        if step["source"] in sizes:
            drawn[step["source"]] += sizes[step["source"]]
        else:
            drawn.update({name: step[key] for name in sizes if (key := f"rows/{name}") in step})
    return drawn


def read_steps(path: Path) -> list[Step]:
    """The lines of a curve, if there is one; a last line cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def figure_facts(stages: Sequence[AnyStage], folders: Mapping[str, Path]) -> list[FigureFacts]:
    """The primary figures of the last finished evaluation among the stages."""
    done = [folders[s.name] for s in stages if isinstance(s, Evaluate) and s.name in folders]
    files = [folder / RESULTS for folder in done if (folder / RESULTS).is_file()]
    if not files:
        return []
    saved = read_json(files[-1])
    results = [Result.from_json(result) for result in saved["results"]]
    return [
        FigureFacts(
            r.model,
            r.task,
            TYPES.get(r.kind, r.kind),
            r.primary,
            r.figure.value,
            r.figure.low,
            r.figure.high,
            size_text(r),
            r.task in saved["in_domain"],
        )
        for r in results
    ]


def languages(stages: Sequence[AnyStage]) -> tuple[str, ...] | None:
    """Those that filter stages let through; None where no stage looked."""
    looked = [stage.languages for stage in stages if isinstance(stage, Filter) and stage.languages]
    return tuple(sorted(set().union(*looked))) if looked else None


def trained_tokens(run: Run, stages: Sequence[AnyStage]) -> tuple[int, int] | None:
    """The longest query and document of any training stage; None where none trains."""
    limits = [
        (how.max_query_tokens, how.max_document_tokens)
        for stage in stages
        if isinstance(stage, Train | Distil)
        for name in sources_of(run, stage)
        for how in [source_text(stage_text(run, stage), run.sources[name], run.seed)]
    ]
    return (max(query for query, _ in limits), max(document for _, document in limits)) if limits else None


def stage_text(run: Run, stage: Train | Distil) -> TextFormat:
    """The run's text section with the stage's own limits."""
    own = {name: value for name in LIMITS if (value := getattr(stage, name))}
    return run.text.model_copy(update=own)
