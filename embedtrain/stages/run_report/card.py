"""The model card with what was measured: a copy of an export's README.md, with figures and cost. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from embedtrain.artifacts import is_done, write_atomic
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Run
from embedtrain.config.stages import AnyStage, Evaluate, Export
from embedtrain.evaluation.groups import METRIC_NAMES
from embedtrain.show.facts import FigureFacts, RunFacts
from embedtrain.show.progress import duration_text
from embedtrain.show.tables import markdown_table
from embedtrain.stages.run_report.facts import run_facts
from embedtrain.stages.run_report.sections import told, versions_text

CARD, BEFORE = Path("model") / "README.md", "\n## Limits\n"
NOTE = (
    "Points of 100, with 95 % bootstrap intervals; protocols are mteb's. Held-out: data that no training "
    "source was made of. In-domain: held-out rows of a training source. Figures on a subset "
    "(`7 of 474 queries`) do not compare with those on the whole set."
)


def write_measured_card(run: Run, folders: Mapping[str, Path], out: Path) -> None:
    """The card of the run's model with its figures. The export itself stays as it is: its hash names it.

    Raises UserError where there is no finished export, or nothing measured of it.
    """
    export = carded(run)
    folder = folders.get(export.name)
    if folder is None or not is_done(folder):
        raise UserError(f"--card: stage '{export.name}' (export) is not done, so there is no card yet")
    facts = run_facts(run, folders)
    figures = tuple(figure for figure in facts.figures if figure.model == export.name)
    if not figures:
        raise UserError(f"--card: no finished evaluate stage of the run measures '{export.name}'")
    own = replace(run_facts(run, folders, until=export.name), figures=figures)
    text = (folder / CARD).read_text(encoding="utf-8")
    write_atomic(out, measured_card(text, own, f"{run.name} {export.link or export.name}"))


def carded(run: Run) -> Export:
    """The export with a link; of several, or without any, the last that an evaluate stage measures."""
    measured = {name for stage in run.stages if isinstance(stage, Evaluate) for name in stage.models}
    exports = [stage for stage in run.stages if isinstance(stage, Export)]
    if not exports:
        raise UserError(f"--card: run '{run.name}' has no export stage")
    return max(exports, key=lambda stage: rank(stage, measured, run.stages))


def rank(stage: Export, measured: set[str], stages: Sequence[AnyStage]) -> tuple[bool, bool, int]:
    """Linked ones first, then measured ones, then later ones."""
    return stage.link is not None, stage.name in measured, stages.index(stage)


def measured_card(card: str, facts: RunFacts, name: str) -> str:
    """The card with `model-index` in its front matter, and figures and cost before its limits."""
    whole = ModelCard(card)
    assert isinstance(whole.data, ModelCardData)
    whole.data.model_name = name
    whole.data.eval_results = [eval_result(figure) for figure in facts.figures]
    head, mark, tail = whole.text.partition(BEFORE)
    added = f"\n## Figures\n\n{figure_table(facts.figures)}\n{NOTE}\n\n## Cost\n\n{cost_lines(facts)}\n"
    whole.text = f"{head}{added}{mark}{tail}"
    return str(whole)


def eval_result(figure: FigureFacts) -> EvalResult:
    """A figure as model hubs read it."""
    return EvalResult(
        task_type=figure.kind,
        dataset_type=figure.task,
        dataset_name=f"{figure.task} ({figure.sizes})",
        metric_type=figure.metric.replace("@", "_at_"),
        metric_name=METRIC_NAMES.get(figure.metric, figure.metric),
        metric_value=round(figure.value, 2),
    )


def figure_table(figures: Sequence[FigureFacts]) -> str:
    """A row a task."""
    rows = [
        (
            figure.task,
            "in-domain" if figure.in_domain else "held-out",
            METRIC_NAMES.get(figure.metric, figure.metric),
            f"{figure.value:.1f}",
            None if figure.low is None else f"{figure.low:.1f}–{figure.high:.1f}",
            figure.sizes,
        )
        for figure in figures
    ]
    return markdown_table(("task", "data", "metric", "value", "95 % interval", "measured on"), rows)


def cost_lines(facts: RunFacts) -> str:
    """Time and tokens of all stages that the model comes from, and what they ran on."""
    done = [stage for stage in facts.stages if stage.seconds is not None]
    lines = [f"{duration_text(facts.seconds)} for all stages that this model comes from"]
    lines += [f"{facts.tokens:,} tokens of training, every pass counted"] if facts.tokens else []
    lines += [f"machine: {text}" for text in told(done, lambda s: str(s.machine) if s.machine else "")]
    lines += [f"versions: {text}" for text in told(done, versions_text)]
    return "\n".join(f"- {line}" for line in lines)
