"""Turns mined candidates into rows with hard negatives, and says why the others were refused."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from embedtrain.config.errors import UserError, nearest
from embedtrain.config.load import find_stage
from embedtrain.config.mining import Mine, Select
from embedtrain.config.retrievers import Concatenate
from embedtrain.config.rules import Rule
from embedtrain.data.rows import Row
from embedtrain.data.store import write_store
from embedtrain.mining.judged import Counts, Judged, count, gather, judge
from embedtrain.mining.report import SourceReport, examine, print_report, write_report
from embedtrain.mining.tables import Column, list_sources, read_columns, read_corpus, read_mined
from embedtrain.show.progress import progress
from embedtrain.stages.context import ROWS, StageContext
from embedtrain.stages.opening import open_one, rows_path

UNTOLD = ("row_dropped", "not_needed", "promoted", "kept")
RULE_ADVICE = (
    "An untrained model scores all texts alike: mine with a trained stage, raise top_k, or loosen the rule"
)
ADVICE = {
    "not_scored": "The column that rules read lacks them: name another judge, or score more candidates",
    "same_as_positive": "The corpus holds little else: search a larger one with `corpus`",
    "same_as_query": "The corpus holds little else: search a larger one with `corpus`",
    "same_text": "The corpus holds little else: search a larger one with `corpus`",
    "before_first_rank": "The corpus holds few documents: lower first_rank, or search a larger corpus",
    "after_last_rank": "Raise last_rank",
}


def run_stage(context: StageContext) -> dict[str, object]:
    """Write rows/<source>/, reasons.json and mining.html; the facts are the counts, by source."""
    stage = context.stage
    assert isinstance(stage, Select)
    check_ranks(context, stage)
    shutil.rmtree(context.folder / ROWS, ignore_errors=True)  # of an attempt that was stopped
    reports: list[SourceReport] = []
    for name in list_sources(context.inputs[stage.candidates]):
        judged = judge_source(context, stage, name)
        counts = count(judged, stage)
        write_store(context.folder / ROWS / name, selected_rows(judged, stage), facts={"selected": counts})
        reports.append(examine(judged, counts))
    write_report(context.folder, stage, reports)
    print_report(reports)
    for report in reports:
        if advice := poor_yield(report.source, report.counts):
            print(advice)
    return {"sources": {report.source: report.counts for report in reports}}


def check_ranks(context: StageContext, stage: Select) -> None:
    """Refuse ranks that the mine stage cannot have kept."""
    mine = find_stage(context.run, stage.candidates)
    assert isinstance(mine, Mine)
    lists = 1 if isinstance(mine.fusion, Concatenate) else len(mine.judges)
    asked = {"first_rank": stage.first_rank, "require_positive_in_top": stage.require_positive_in_top}
    for key, value in asked.items():
        if value is not None and value > mine.top_k * lists:
            raise UserError(
                f"stage '{stage.name}' > {key}: {value}, but stage '{mine.name}' keeps {mine.top_k * lists} "
                "candidates a row; lower it, or raise top_k there"
            )


def judge_source(context: StageContext, stage: Select, name: str) -> Judged:
    """Read what was mined and scored for one source and apply the rules."""
    mine, folder = find_stage(context.run, stage.candidates), context.inputs[stage.candidates]
    assert isinstance(mine, Mine)
    rows, mined = open_one(context, mine, name), read_mined(folder, name)
    last = int(mined.query_row_Q.max(initial=-1))
    if last >= len(rows):
        raise UserError(
            f"{rows_path(context, mine, name)}: {len(rows)} rows, but stage "
            f"'{stage.candidates}' mined row number {last}; the file has changed since"
        )
    keys_N, texts = read_corpus(folder, name)
    columns = dict(mined.columns)
    if stage.scores is not None:
        columns |= read_columns(context.inputs[stage.scores], name, mined)
    first = stage.judge or mine.judges[0].column
    check_columns(stage, first, columns)
    symmetric = context.run.sources[name].symmetric
    candidates = gather(name, rows, mined, keys_N, columns, stage, first, symmetric=symmetric)
    chosen = rows.take(mined.query_row_Q)
    return judge(candidates, stage, context.seed, rows=chosen, mined=mined, texts=texts)


def check_columns(stage: Select, first: str, columns: Mapping[str, Column]) -> None:
    """Refuse columns that neither the mine nor the score stage wrote."""
    named = [first, stage.soft_labels, *(rule.judge for rule in stage.rules if isinstance(rule, Rule))]
    for name in named:
        if name is not None and name not in columns:
            raise UserError(f"stage '{stage.name}': no column '{name}'; {nearest(name, list(columns))}")


def selected_rows(judged: Judged, stage: Select) -> Iterator[Row]:
    """The rows that stay, with their kept candidates as negatives, best rank first, and their soft labels."""
    numbers = np.flatnonzero(judged.row_stays_Q).tolist()
    if not numbers:
        raise UserError(
            f"stage '{stage.name}' > require_positive_in_top: {stage.require_positive_in_top} drops all "
            f"{len(judged.rows)} rows of source '{judged.source}'; raise it, or mine with a better model"
        )
    with progress(f"{judged.source}: rows", total=len(numbers), unit="row") as bar:
        for number in numbers:
            yield selected_row(judged, number)
            bar.advance(1)


def selected_row(judged: Judged, number: int) -> Row:
    """One row; without scores where one of its documents has none."""
    row, ids_K = judged.rows[number], judged.mined.ids_QK[number]
    promoted, kept = judged.promoted(number), judged.kept(number)
    filled = judged.filled(number)
    label = judged.columns[judged.label]
    positive_scores = [*label.positive_scores[number].tolist(), *label.score_QK[number, promoted].tolist()]
    negative_scores = label.score_QK[number, kept].tolist()
    scored = not len(filled) and bool(np.isfinite([*positive_scores, *negative_scores]).all())
    return replace(
        row,
        positives=(*row.positives, *(judged.texts[id] for id in ids_K[promoted])),
        positive_scores=tuple(positive_scores) if scored else None,
        negatives=tuple(judged.texts[id] for id in (*ids_K[kept], *filled)),
        negative_scores=tuple(negative_scores) if scored else None,
    )


def poor_yield(name: str, counts: Counts) -> str | None:
    """What to do where most rows of a source got no negative; None where they did."""
    rows, candidates = counts["rows"], counts["candidates"]
    without = rows["without_negatives"]
    stay = without + rows["with_fewer_negatives"] + rows["with_all_negatives"]
    if without * 2 <= stay:
        return None
    judged = sum(candidates.values()) - candidates["row_dropped"]
    refused = {reason: number for reason, number in candidates.items() if reason not in UNTOLD}
    worst = max(refused, key=lambda reason: refused[reason])
    return (
        f"source '{name}': {without:,} of {stay:,} rows got no negative; {worst} refused "
        f"{refused[worst] / max(judged, 1):.0%} of their candidates. {ADVICE.get(worst, RULE_ADVICE)}"
    )
