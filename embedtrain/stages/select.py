"""Turns mined candidates into rows with hard negatives, and says why the others were refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedtrain.artifacts import write_atomic, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.mining import Mine, Select
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import RowStore
from embedtrain.mining.corpus import known_positives
from embedtrain.mining.examples import examples_text
from embedtrain.mining.negatives import (
    Candidates,
    Reason,
    consistent,
    count_reasons,
    count_rows,
    judge,
    pad,
    reason_name,
)
from embedtrain.mining.tables import Mined, list_sources, read_corpus, read_mined
from embedtrain.show.tables import print_table
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_one, rows_path


@dataclass(frozen=True, slots=True)
class Judged:
    """A source after the rules: its mined rows, their candidates and the reason of each."""

    rows: RowStore
    mined: Mined
    texts: list[str]
    candidates: Candidates
    reason_QK: np.ndarray


def run_stage(context: StageContext) -> dict[str, object]:
    """Write rows/<source>.parquet, reasons.json and examples.md; the facts are the counts, by source."""
    stage = context.stage
    assert isinstance(stage, Select)
    check_ranks(context, stage)
    folder = context.inputs[stage.candidates]
    reasons, examples = {}, []
    for name in list_sources(folder):
        judged = judge_source(context, stage, folder, name)
        path = context.folder / "rows" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, selected_rows(name, judged, stage))
        reasons[name] = {
            "candidates": dict(count_reasons(judged.reason_QK, stage.rules)),
            "rows": dict(count_rows(judged.reason_QK, judged.candidates, stage)),
        }
        examples.append(examples_text(name, judged.rows, judged.mined, judged.texts, judged.reason_QK, stage))
    write_json(context.folder / "reasons.json", reasons)
    write_atomic(context.folder / "examples.md", "\n".join(examples))
    print_reasons(reasons)
    for name, counts in reasons.items():
        if advice := poor_yield(name, counts, stage):
            print(advice)
    return {"sources": reasons}


def check_ranks(context: StageContext, stage: Select) -> None:
    """Refuse ranks that the mine stage did not keep."""
    mine = find_stage(context.run, stage.candidates)
    assert isinstance(mine, Mine)
    asked = {"first_rank": stage.first_rank, "require_positive_in_top": stage.require_positive_in_top}
    for key, value in asked.items():
        if value is not None and value > mine.top_k:
            raise UserError(
                f"stage '{stage.name}' > {key}: {value}, but stage '{mine.name}' keeps {mine.top_k} "
                "candidates a row; lower it, or raise top_k there"
            )


def judge_source(context: StageContext, stage: Select, folder: Path, name: str) -> Judged:
    """Read what was mined for one source and apply the rules."""
    mine = find_stage(context.run, stage.candidates)
    assert isinstance(mine, Mine)
    rows, mined = open_one(context, mine, name), read_mined(folder, name)
    last = int(mined.query_row_Q.max(initial=-1))
    if last >= len(rows):
        raise UserError(
            f"{rows_path(context, mine, name)}: {len(rows)} rows, but stage "
            f"'{stage.candidates}' mined row number {last}; the file has changed since"
        )
    keys, texts = read_corpus(folder, name)
    chosen = rows.take(mined.query_row_Q)
    known = known_positives(rows, chosen.query_N, context.run.sources[name].symmetric)
    candidates = gather_candidates(chosen, mined, keys, known)
    return Judged(chosen, mined, texts, candidates, judge(candidates, stage))


def gather_candidates(
    rows: RowStore, mined: Mined, keys: np.ndarray, known: Sequence[Sequence[int]]
) -> Candidates:
    """What the rules look at."""
    known_QP, known_mask_QP = pad(known)
    return Candidates(
        key_QK=keys[mined.ids_QK],
        score_QK=mined.score_QK,
        present_QK=np.ones(mined.ids_QK.shape, bool),
        query_key_Q=rows.keys_M[rows.query_N],
        known_QP=known_QP,
        known_mask_QP=known_mask_QP,
        positive_score_Q=mined.positive_score_Q,
        positive_rank_Q=mined.positive_rank_Q,
    )


def selected_rows(name: str, judged: Judged, stage: Select) -> list[Row]:
    """The rows that stay, with their kept candidates as negatives, hardest first, and all scores."""
    selected: list[Row] = []
    for number in np.flatnonzero(consistent(judged.mined.positive_rank_Q, stage)).tolist():
        kept = judged.reason_QK[number] == Reason.KEPT
        selected.append(
            replace(
                judged.rows[number],
                positive_scores=tuple(judged.mined.positive_scores[number]),
                negatives=tuple(judged.texts[id] for id in judged.mined.ids_QK[number][kept]),
                negative_scores=tuple(judged.mined.score_QK[number][kept].tolist()),
            )
        )
    if not selected:
        raise UserError(
            f"stage '{stage.name}' > require_positive_in_top: {stage.require_positive_in_top} drops all "
            f"{len(judged.rows)} rows of source '{name}'; raise it, or mine with a better model"
        )
    return selected


def poor_yield(name: str, counts: Mapping[str, Mapping[str, int]], stage: Select) -> str | None:
    """What to do where most rows of a source got no negative; None where they did."""
    rows, candidates = counts["rows"], counts["candidates"]
    stay = sum(rows.values()) - rows["dropped"]
    if rows["without_negatives"] * 2 <= stay:
        return None
    judged = sum(candidates.values()) - candidates["row_dropped"]
    name = reason_name(Reason.RULE, stage.rules)
    refused = candidates[name]
    return (
        f"source '{name}': {rows['without_negatives']:,} of {stay:,} rows got no negative; the rule "
        f"{name} refused {refused / max(judged, 1):.0%} of their candidates. An untrained model "
        "scores all texts alike: mine with a trained stage, raise top_k, or loosen the rule"
    )


def print_reasons(reasons: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Two tables: what became of the candidates, and of the rows."""
    for part in ("candidates", "rows"):
        columns = list(next(iter(reasons.values()))[part])
        print_table(
            f"Selected: {part}",
            ["source", *(column.replace("_", " ") for column in columns)],
            [[name, *(counts[part][column] for column in columns)] for name, counts in reasons.items()],
        )
