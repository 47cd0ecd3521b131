"""What an evaluation leaves behind: report.json for programs, and a page that a person reads."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from embedtrain.config.errors import UserError
from embedtrain.evaluation.differences import difference_sections, differences_json
from embedtrain.evaluation.groups import METRIC_NAMES, Column, TaskGroup, group_tasks
from embedtrain.evaluation.kept_tables import kept_json, kept_sections
from embedtrain.evaluation.measure import BM25
from embedtrain.evaluation.neighbours import EmbeddingMap
from embedtrain.evaluation.results import Result
from embedtrain.show.page import (
    Block,
    Folded,
    Grid,
    Measured,
    Neighbours,
    Plot,
    Plots,
    Prose,
    Section,
    render_page,
)
from embedtrain.show.plots import scatter_plot

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
        "differences": differences_json(results, in_domain),
        "inherited": kept_json(results),
    }


def read_results(saved: Mapping[str, Any]) -> list[Result]:
    """The results of a saved report, those of full vectors."""
    if saved.get("format") != FORMAT:
        raise UserError(f"report.json: format {saved.get('format')}, expected {FORMAT}: measure again")
    return [Result.from_json(result) for result in saved["results"]]


def report_page(
    results: Sequence[Result],
    in_domain: Collection[str] = (),
    *,
    sections: Sequence[Section] = (),
    title: str = "Evaluation",
    lead: str = "",
) -> str:
    """One self-contained page of tables; `sections` stand after those of full vectors."""
    parts = [*table_sections(results, in_domain), *sections, *kept_sections(results)]
    return render_page(title, [*parts, protocol_section(results)], lead=lead)


def table_sections(results: Sequence[Result], in_domain: Collection[str] = ()) -> list[Section]:
    """Held-out tasks, those of the training sources, and how the models differ."""
    groups = group_tasks(results, in_domain)
    return [
        *(Section(group.title, table_blocks(group)) for group in groups),
        *difference_sections(results, in_domain),
    ]


def neighbour_section(examples: Sequence[Neighbours]) -> Section:
    """The examples, and how they were chosen."""
    words = Prose(f"{len(examples)} queries drawn at random, not picked.", quiet=True)
    return Section("Nearest neighbours", [words, *examples])


def map_section(maps: Sequence[EmbeddingMap]) -> Section:
    """Maps beside each other."""
    plots = [Plot(scatter_plot(part.points, part.labels, part.title), heading=part.title) for part in maps]
    texts = " and ".join(dict.fromkeys(f"{len(part.labels):,}" for part in maps))
    caption = f"{texts} texts on the two principal directions of their vectors, found for each model alone."
    return Section("Map of the embeddings", [Plots(plots, caption)])


def protocol_section(results: Sequence[Result]) -> Section:
    """How it was measured."""
    return Section("How it was measured", protocol_blocks(results))


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


def protocol_blocks(results: Sequence[Result]) -> list[Block]:
    """The protocol in words, and every metric of every result."""
    counted = any(result.model == BM25 for result in results)
    notes = [Prose(PROTOCOL), *([Prose(BM25_NOTE)] if counted else [])]
    rows = [
        [result.model, result.task, METRIC_NAMES.get(name, name), Measured(f.value, f.low, f.high)]
        for result in results
        if not result.form
        for name, f in result.metrics.items()
    ]
    grid = Grid(["model", "task", "metric", "value"], rows, caption="All metrics, in points of 100.")
    return [*notes, Folded("All metrics of all models", [grid])]
