"""What an evaluation leaves behind: report.json for programs, and a page that a person reads."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtrain.config.errors import UserError
from embedtrain.evaluation.groups import METRIC_NAMES, Column, TaskGroup, group_tasks
from embedtrain.evaluation.kept_tables import kept_json, kept_sections
from embedtrain.evaluation.neighbours import EmbeddingMap
from embedtrain.evaluation.results import Result
from embedtrain.show.page import Block, Grid, Measured, Neighbours, Plot, Prose, Section, render_page
from embedtrain.show.plots import Points, line_plot, scatter_plot

FORMAT = 2
PROTOCOL = (
    "Protocols are mteb's: retrieval as trec_eval ranks it; classification by logistic regression on 8 texts "
    "a label, 10 times; clustering by k-means on 10 samples. The small figures are 95 % bootstrap intervals "
    "over queries, pairs or test texts (for classification also over the 10 repeats, for clustering over the "
    "10 samples)."
)
BM25_NOTE = (
    "BM25 counts shared words (English stop words removed, no stemming, k1 1.5, b 0.75). Its row stays where "
    "it wins: queries that repeat the words of their documents are hard to beat with a small model."
)


def report_json(results: Sequence[Result], in_domain: Collection[str] = (), **facts: Any) -> dict[str, Any]:
    """All figures and intervals, with `facts` beside them; `read_results` reads `results` back."""
    return {
        "format": FORMAT,
        **facts,
        "in_domain": sorted({result.task for result in results} & set(in_domain)),
        "results": [result.to_json() for result in results if not result.form],
        "inherited": kept_json(results),
    }


def read_results(saved: Mapping[str, Any]) -> list[Result]:
    """The results of a saved report, those of full vectors."""
    if saved.get("format") != FORMAT:
        raise UserError(f"report.json: format {saved.get('format')}, expected {FORMAT}: measure again")
    return [Result.from_json(result) for result in saved["results"]]


def read_curve(path: Path, value: str = "loss") -> Points:
    """Steps and values of a curve.jsonl."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [row for row in rows if row.get(value) is not None]
    return [row["step"] for row in rows], [row[value] for row in rows]


def report_page(
    results: Sequence[Result],
    in_domain: Collection[str] = (),
    *,
    curves: Mapping[str, Points] | None = None,
    diagnosed: Mapping[str, Points] | None = None,
    examples: Sequence[Neighbours] = (),
    maps: Sequence[EmbeddingMap] = (),
    sections: Sequence[Section] = (),
    title: str = "Evaluation",
    lead: str = "",
    facts: Sequence[tuple[str, object]] = (),
) -> str:
    """One self-contained page; `sections` stand after its tables.

    Curves, examples and maps are left out where none are given.
    """
    groups = group_tasks(results, in_domain)
    tables = [Section(group.title, table_blocks(group)) for group in groups]
    sections = [*tables, *sections, *kept_sections(results)]
    if curves:
        seen = [diagnostics_plot(diagnosed)] if diagnosed else []
        sections.append(Section("Training", [curve_plot(curves), *seen]))
    if examples:
        sections.append(Section("Nearest neighbours", neighbour_blocks(examples)))
    if maps:
        sections.append(Section("Map of the embeddings", [map_plot(part) for part in maps]))
    sections.append(Section("How it was measured", protocol_blocks(results)))
    return render_page(title, sections, lead=lead, facts=facts)


def table_blocks(group: TaskGroup) -> list[Block]:
    """The primary figures of all models, and what the tasks hold."""
    rows = [[model, *(measured(column, model) for column in group.columns)] for model in group.models]
    headings = ["model", *(column.heading for column in group.columns)]
    sizes = "; ".join(f"{column.task}: {column.sizes}" for column in group.columns)
    return [Grid(headings, rows, caption=f"Bold: the best of a column. {sizes}.")]


def measured(column: Column, model: str) -> Measured | None:
    """A cell, empty where the model was not measured on the task."""
    figure = column.figures.get(model)
    if figure is None:
        return None
    return Measured(figure.value, figure.low, figure.high, best=column.is_best(model))


def curve_plot(curves: Mapping[str, Points]) -> Plot:
    """Loss of every train stage over its steps."""
    longest = max(len(steps) for steps, _ in curves.values())
    mean_over = max(1, longest // 20)
    svg = line_plot(curves, "Training loss by step", "step", "loss", mean_over=mean_over)
    strong = f"; the strong line is the mean of {mean_over} steps" if mean_over > 1 else ""
    return Plot(svg, f"Training loss{strong}.")


def diagnostics_plot(diagnosed: Mapping[str, Points]) -> Plot:
    """Shares and cosines of the training batches, every few steps."""
    svg = line_plot(diagnosed, "Training batches by step", "step", "share or cosine")
    caption = "Training batches: accuracy@1 among what the loss sees, and cosine of the hardest negative."
    return Plot(svg, caption)


def neighbour_blocks(examples: Sequence[Neighbours]) -> list[Block]:
    """The examples, and how they were chosen."""
    return [Prose(f"{len(examples)} queries drawn at random, not picked.", quiet=True), *examples]


def map_plot(part: EmbeddingMap) -> Plot:
    """One map."""
    caption = f"{part.title}: {len(part.labels):,} texts on the two principal directions of their vectors."
    return Plot(scatter_plot(part.points, part.labels, part.title), caption)


def protocol_blocks(results: Sequence[Result]) -> list[Block]:
    """The protocol in words, and every metric of every result."""
    notes = [Prose(PROTOCOL), Prose(BM25_NOTE)]
    rows = [
        [result.model, result.task, METRIC_NAMES.get(name, name), Measured(f.value, f.low, f.high)]
        for result in results
        if not result.form
        for name, f in result.metrics.items()
    ]
    return [
        *notes,
        Grid(["model", "task", "metric", "value"], rows, caption="All metrics, in points of 100."),
    ]
