"""The report as a self-contained page: what was asked, what became of it, and texts to read."""

from collections import Counter
from collections.abc import Sequence

import yaml

from embedtrain.config.mining import Select
from embedtrain.mining.negatives import Reason
from embedtrain.mining.report.examples import Example, Shown
from embedtrain.mining.report.found import Found
from embedtrain.mining.report.scores import ColumnScores
from embedtrain.mining.report.source import AGREEMENT_ROWS, SourceReport
from embedtrain.mining.report.tables import agreement_table, count_table, score_table, suspect_table
from embedtrain.show.page import (
    Block,
    Code,
    Grid,
    Neighbour,
    Neighbours,
    Plot,
    Prose,
    Section,
    render_page,
)
from embedtrain.show.plots import histogram_plot, share_plot

SHOWN_SUSPECTS = 5
LEAD = "Which candidates became negatives, why the others did not, and which of both to doubt."
UNUSED = "not used"
BECAME = {"kept": "kept as negative", "promoted": "made a positive"}
GROUPS = {
    Reason.SAME_AS_QUERY: "known",
    Reason.SAME_AS_POSITIVE: "known",
    Reason.BEFORE_FIRST_RANK: UNUSED,
    Reason.AFTER_LAST_RANK: UNUSED,
    Reason.SAME_TEXT: UNUSED,
    Reason.NOT_NEEDED: UNUSED,
}
CANDIDATES = (
    "Every candidate counts under the first reason that applies. Known: it is the query or one of its "
    "positives. Not used: its rank is outside the window, its text is there already, or the row has enough."
)
SCORES = (
    "Positives and candidates before, negatives after the rules; candidates known to be positives are left "
    "out. Above: the share that scores no lower than the row's lowest-scored positive."
)
SUSPECTS = (
    "A kept negative that a column puts above the row's positive may be an answer that nobody labelled. If "
    "many of the worst below are, raise the bar: a stricter rule, or a teacher's ceiling."
)
AGREEMENT = (
    f"Means over at most {AGREEMENT_ROWS:,} rows a source. Columns that agree in everything say the same "
    "twice; one that agrees with none is broken, or sees what the others miss."
)
KEPT = "Kept, and nearest above the positive by any column, worst first; at most one of a row."
EXAMPLES = "Rows drawn at random, with what became of their candidates, best rank first."
REFUSED = (
    "Refused by a rule, or promoted, and farthest above the positive by the teachers. If many are no "
    "answers, the rule costs hard negatives."
)


def report_page(stage: Select, reports: Sequence[SourceReport]) -> str:
    """The page."""
    sections = [
        Section("Candidates", candidate_blocks(reports)),
        Section("Rows", [Grid(*count_table(reports, "rows"))]),
        Section("Scores", [Grid(*score_table(reports), caption=SCORES)]),
        Section("Suspected false negatives", [Grid(*suspect_table(reports), caption=SUSPECTS)]),
        *agreement_section(reports),
        *(Section(report.source, source_blocks(report)) for report in reports),
        Section("What was asked", [Code(stage_text(stage))]),
    ]
    return render_page(f"Negatives of the stage {stage.name}", sections, lead=LEAD, facts=facts(reports))


def facts(reports: Sequence[SourceReport]) -> list[tuple[str, object]]:
    """The large figures, over all sources."""
    return [
        ("rows", sum(report.num_rows for report in reports)),
        ("dropped", sum(report.counts["rows"]["dropped"] for report in reports)),
        ("without negatives", sum(report.counts["rows"]["without_negatives"] for report in reports)),
        ("negatives kept", sum(report.counts["candidates"]["kept"] for report in reports)),
        ("of these suspect", sum(report.kept_above for report in reports)),
    ]


def candidate_blocks(reports: Sequence[SourceReport]) -> list[Block]:
    """What became of the candidates: a bar a source, and the figures."""
    rows = [(report.source, reason_shares(report)) for report in reports]
    plot = (
        [Plot(share_plot(rows, "Candidates", faint=[UNUSED]), CANDIDATES)] if any(r for _, r in rows) else []
    )
    return [*plot, Grid(*count_table(reports, "candidates"))]


def reason_shares(report: SourceReport) -> dict[str, float]:
    """Shares of what became of the candidates: the kept ones first, those that nobody needed last."""
    counts = report.counts["candidates"]
    groups = {reason.name.lower(): group for reason, group in GROUPS.items()}
    shown = Counter({"kept": 0})
    for name, count in counts.items():
        shown[groups.get(name, name.replace("_", " "))] += count
    shown[UNUSED] = shown.pop(UNUSED, 0)  # to the end
    return {name: count / shown.total() for name, count in shown.items() if count}


def agreement_section(reports: Sequence[SourceReport]) -> list[Section]:
    """Where there are two columns at least."""
    columns, cells = agreement_table(reports)
    return [Section("Agreement", [Grid(columns, cells, caption=AGREEMENT)])] if cells else []


def source_blocks(report: SourceReport) -> list[Block]:
    """The scores, the suspects and the examples of one source."""
    blocks: list[Block] = [score_plot(report, name, scores) for name, scores in report.scores.items()]
    for title, suspects in ((KEPT, report.kept), (REFUSED, report.refused)):
        if suspects:
            blocks += [Prose(title), *(suspect_block(found) for found in suspects[:SHOWN_SUSPECTS])]
    if report.examples:
        blocks += [Prose(EXAMPLES), *(example_block(example, report.judge) for example in report.examples)]
    return blocks


def score_plot(report: SourceReport, name: str, scores: ColumnScores) -> Plot:
    """How one column's scores lie before and after."""
    positives = {"positives": scores.positives_before.counts}
    if scores.positives_after != scores.positives_before:
        positives["positives of rows that stay"] = scores.positives_after.counts
    negatives = {
        "candidates": scores.candidates_before.counts,
        "kept as negatives": scores.negatives_after.counts,
    }
    title = f"{report.source}: scores by {name}"
    svg = histogram_plot(scores.edges, [negatives, positives], title, f"score by {name}")
    return Plot(svg, f"Scores by {name}, each group by its own sum: pale before, strong after the rules.")


def suspect_block(found: Found) -> Neighbours:
    """The query, its positive and the suspect, side by side."""
    name, side = found.column, "above" if found.excess >= 0 else "below"
    became = BECAME.get(found.reason, f"refused by {found.reason}")
    scores = [
        f"{column} {score:.2f} against {found.positive_scores[column]:.2f}"
        for column, score in found.scores.items()
    ]
    return Neighbours(
        found.query,
        [
            ("positive", [Neighbour(found.positive, found.positive_scores[name], True, name)]),
            (became, [Neighbour(found.candidate, found.scores[name], None, f"{name}, rank {found.rank}")]),
        ],
        f"Row {found.row}, {abs(found.excess):.1f} deviations {side}: {', '.join(scores)}",
    )


def example_block(example: Example, judge: str) -> Neighbours:
    """One row as it was judged."""
    lists = (
        ("positives", example.positives, True),
        ("kept", example.kept, None),
        ("refused", example.refused, None),
    )
    bound = "" if example.bound is None else f"; negatives stay below {example.bound:.4f}"
    return Neighbours(
        example.query,
        [(name, [show(one, right) for one in texts]) for name, texts, right in lists],
        f"Row {example.row}, scores by {judge}{bound}",
    )


def show(one: Shown, right: bool | None) -> Neighbour:
    """A text of an example."""
    return Neighbour(one.text, one.score, right, one.note)


def stage_text(stage: Select) -> str:
    """The stage as it would stand in a run file, with its defaults."""
    values = stage.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
