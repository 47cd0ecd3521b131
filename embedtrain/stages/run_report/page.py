"""Puts the page of a run together, in an evaluate stage or later from what lies on disk. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from embedtrain.artifacts import is_done, read_json, write_atomic
from embedtrain.config.schema import Run
from embedtrain.config.stages import Evaluate
from embedtrain.show.facts import RunFacts
from embedtrain.show.page import Section, render_page
from embedtrain.show.progress import duration_text
from embedtrain.show.saved import load_sections
from embedtrain.stages.run_report.curves import training_section
from embedtrain.stages.run_report.facts import run_facts
from embedtrain.stages.run_report.sections import cost_section, data_section, diagram_section

EVALUATED, PAGE = "page.json", "report.html"
NO_EVALUATION = "no evaluation is finished, so there are no tables, scores, neighbours or maps"
OTHER_VERSION = "the evaluation was written by another version of embedtrain, and is left out; evaluate again"


def whole_page(facts: RunFacts, folders: Mapping[str, Path], evaluated: Sequence[Section]) -> str:
    """Diagram, evaluation, data, training and cost; how it was measured stands last."""
    sections = [
        diagram_section(facts),
        *evaluated[:-1],
        *data_section(facts),
        *training_section(facts, folders),
        *cost_section(facts),
        *evaluated[-1:],
    ]
    return render_page(
        f"Run {facts.name}",
        sections,
        lead=f"From {facts.base} to an embedding model.",
        facts=large_facts(facts),
        contents=True,
    )


def large_facts(facts: RunFacts) -> list[tuple[str, object]]:
    """What stands at the top."""
    done = len(facts.stages) - len(facts.missing)
    stages = len(facts.stages) if done == len(facts.stages) else f"{done} of {len(facts.stages)}"
    figures: list[tuple[str, object]] = [("stages done", stages)]
    figures += [("tokens trained on", facts.tokens)] if facts.tokens else []
    figures += [("time", duration_text(facts.seconds))] if facts.seconds else []
    return [*figures, ("seed", str(facts.seed)), ("precision", facts.precision)]


def rebuild_page(
    run: Run, folders: Mapping[str, Path], states: Mapping[str, tuple[str, str]], out: Path
) -> list[str]:
    """Write the page of a run as its folders are now; what it lacks, in words."""
    facts = run_facts(run, folders, states=states)
    sections, lacks = saved_sections(run, folders)
    if facts.missing:
        lacks.append(f"not done: {', '.join(facts.missing)}")
    write_atomic(out, whole_page(facts, folders, sections))
    return lacks


def saved_sections(run: Run, folders: Mapping[str, Path]) -> tuple[list[Section], list[str]]:
    """What the last finished evaluate stage kept of its page, and what is missing."""
    stages = [stage.name for stage in run.stages if isinstance(stage, Evaluate) and stage.name in folders]
    done = [folders[name] / EVALUATED for name in stages if is_done(folders[name])]
    files = [path for path in done if path.is_file()]
    if not files:
        return [], [NO_EVALUATION if not done else OTHER_VERSION]
    sections = load_sections(read_json(files[-1]))
    return ([], [OTHER_VERSION]) if sections is None else (sections, [])
