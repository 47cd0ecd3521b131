"""The training section of a run's page: objective and curves of each stage that has a curve. No torch."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np

from embedtrain.show.facts import DONE, RunFacts, StageFacts
from embedtrain.show.page import Block, Code, Folded, Plot, Plots, Section
from embedtrain.show.plots import Points, line_plot
from embedtrain.stages.run_report.facts import CURVE, Step, read_steps

MOST_POINTS = 400
COUNTED = (
    "step",
    "source",
    "swapped",
    "skipped",
    "loss",
    "lr",
    "gradient_norm",
    "tokens",
    "kept_tokens",
    "cycle",
    "epoch",
)
TIMED = ("seconds", "feed_seconds", "warm_up_seconds", "tokens_per_second")
DIAGNOSTICS = {
    "Cosine of the positive, and of the hardest negative": {
        "positive": "diagnostics/positive_cosine",
        "hardest negative": "diagnostics/hardest_negative_cosine",
    },
    "Shares: queries answered first, negatives above the positive": {
        "accuracy@1": "diagnostics/accuracy_at_1",
        "suspected false negatives": "diagnostics/suspected_false_negatives",
    },
    "Uniformity (lower: spread wider)": {
        "queries": "diagnostics/uniformity_queries",
        "documents": "diagnostics/uniformity_documents",
    },
    "Effective rank of the documents": {"effective rank": "diagnostics/effective_rank"},
}


def training_section(facts: RunFacts, folders: Mapping[str, Path]) -> list[Section]:
    """A part for each stage that has a curve; the first is open."""
    blocks: list[Block] = []
    for stage in facts.stages:
        steps = read_steps(folders[stage.name] / CURVE) if stage.name in folders else []
        if steps:
            blocks.append(Folded(summary_of(stage, steps), curve_blocks(stage, steps), not blocks))
    return [Section("Training", blocks)] if blocks else []


def summary_of(stage: StageFacts, steps: Sequence[Step]) -> str:
    """`pretrain: 220 steps, loss 2.72 → 0.80`: means of the first and the last tenth."""
    losses = [step["loss"] for step in steps if "loss" in step]  # a skipped step has none
    tenth = max(1, len(losses) // 10)
    first, last = (float(np.mean(part)) if part else np.nan for part in (losses[:tenth], losses[-tenth:]))
    unfinished = "" if stage.state == DONE else ", unfinished"
    return f"{stage.name}: {len(steps):,} steps, loss {first:.2f} → {last:.2f}{unfinished}"


def curve_blocks(stage: StageFacts, steps: Sequence[Step]) -> list[Block]:
    """The objective, then a plot for each group of figures."""
    found = [
        curve_plot(steps, "Loss", loss_figures(steps), smooth=True),
        *(curve_plot(steps, title, figures) for title, figures in DIAGNOSTICS.items()),
        curve_plot(steps, "Validation", {name: f"validation/{name}" for name in validated(steps)}),
        curve_plot(steps, "Learning rate", {"learning rate": "lr"}),
        curve_plot(steps, "Gradient norm", {"gradient norm": "gradient_norm"}, smooth=True),
    ]
    formula: list[Block] = [Code(stage.objective)] if stage.objective else []
    return [*formula, Plots([plot for plot in found if plot is not None], caption_of(len(steps)))]


def caption_of(num_steps: int) -> str:
    """How to read the lines."""
    over, every = mean_over(num_steps), points_every(num_steps)
    parts = ["All by step."]
    parts += [f"Loss and gradient norm: the strong line is the mean of {over} steps."] if over > 1 else []
    parts += [f"Each of their points is the mean of {every} steps."] if every > 1 else []
    return " ".join(parts)


def mean_over(num_steps: int) -> int:
    """Steps that a strong line is the mean of."""
    return max(1, num_steps // 20)


def points_every(num_steps: int) -> int:
    """Steps that become one point, so that a long curve makes no large page."""
    return ceil(num_steps / MOST_POINTS)


def loss_figures(steps: Sequence[Step]) -> dict[str, str]:
    """The loss, and its terms where there are several."""
    keys = dict.fromkeys(key for step in steps for key in step if "/" not in key)
    terms = [key for key in keys if key not in (*COUNTED, *TIMED)]
    return {"loss": "loss"} | ({name: name for name in terms} if len(terms) > 1 else {})


def validated(steps: Sequence[Step]) -> list[str]:
    """Names of the figures of validation."""
    keys = dict.fromkeys(key for step in steps for key in step)
    return [key.removeprefix("validation/") for key in keys if key.startswith("validation/")]


def curve_plot(
    steps: Sequence[Step], title: str, figures: Mapping[str, str], *, smooth: bool = False
) -> Plot | None:
    """The figures over the steps; None where no step has any."""
    series = {name: points_of(steps, key) for name, key in figures.items()}
    series = {name: points for name, points in series.items() if len(points[0])}
    if not series:
        return None
    over = max(1, mean_over(len(steps)) // points_every(len(steps))) if smooth else 1
    return Plot(line_plot(series, title, "step", mean_over=over, size=(4.6, 2.5)), heading=title)


def points_of(steps: Sequence[Step], key: str) -> Points:
    """Steps and values of a figure; means of several where there are too many."""
    known = [(step["step"], step[key]) for step in steps if step.get(key) is not None]
    every = points_every(len(known))
    parts = [known[start : start + every] for start in range(0, len(known), max(1, every))]
    means = [np.mean(part, axis=0).tolist() for part in parts]
    return [x for x, _ in means], [y for _, y in means]
