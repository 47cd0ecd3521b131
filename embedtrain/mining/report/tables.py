"""The report as tables: the same for the terminal and the page."""

from collections.abc import Sequence

from embedtrain.mining.report.agreement import TOP
from embedtrain.mining.report.scores import ColumnScores, Spread
from embedtrain.mining.report.source import SourceReport

Cells = list[list[object]]


def count_table(reports: Sequence[SourceReport], part: str) -> tuple[list[str], Cells]:
    """What became of the candidates, or of the rows; what happened nowhere has no column."""
    known = dict.fromkeys(name for report in reports for name in report.counts[part])
    names = [name for name in known if any(report.counts[part].get(name) for report in reports)]
    cells: Cells = [
        [report.source, *(report.counts[part].get(name, 0) for name in names)] for report in reports
    ]
    return ["source", *(name.replace("_", " ") for name in names)], cells


def score_table(reports: Sequence[SourceReport]) -> tuple[list[str], Cells]:
    """Mean scores before and after, and how many candidates score at least as high as the positive."""
    columns = ["source", "column", "positives", "candidates", "negatives", "above before", "above after"]
    return columns, [
        [report.source, name, *score_cells(scores)]
        for report in reports
        for name, scores in report.scores.items()
    ]


def score_cells(scores: ColumnScores) -> list[object]:
    """The cells of one column."""
    return [
        scores.positives_before.mean,
        scores.candidates_before.mean,
        scores.negatives_after.mean,
        percent(scores.above_before, scores.candidates_before),
        percent(scores.above_after, scores.negatives_after),
    ]


def percent(num: int, of: Spread) -> str | None:
    """Share of the scores counted."""
    return f"{num / of.num:.1%}" if of.num else None


def agreement_table(reports: Sequence[SourceReport]) -> tuple[list[str], Cells]:
    """How far every two columns agree."""
    columns = ["source", "columns", f"Jaccard of the top {TOP}", "rows", "Kendall's tau", "rows"]
    return columns, [
        [
            report.source,
            f"{one.first} · {one.second}",
            one.jaccard,
            one.jaccard_rows,
            one.kendall,
            one.kendall_rows,
        ]
        for report in reports
        for one in report.agreement
    ]


def suspect_table(reports: Sequence[SourceReport]) -> tuple[list[str], Cells]:
    """How many kept negatives some column puts above the positive."""
    columns = ["source", "negatives", "above the positive by some column", "share"]
    cells: Cells = []
    for report in reports:
        kept = report.counts["candidates"].get("kept", 0)
        share = f"{report.kept_above / kept:.1%}" if kept else None
        cells.append([report.source, kept, report.kept_above, share])
    return columns, cells
