"""`embedtrain mine`, `score` and `select` on a file, for any trainer: FlagEmbedding's lines come back."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedtrain.config.errors import UserError, shorten
from embedtrain.config.schema import Machine
from embedtrain.data.rows import Row, text_key
from embedtrain.data.store import open_rows
from embedtrain.data.store.view import RowStore
from embedtrain.mining.tables import Column, Mined, read_columns, read_corpus, read_mined
from embedtrain.stages.context import stage_rows
from embedtrain.standalone.options import (
    Section,
    choice_section,
    model_sections,
    rank_window,
    reads_scores,
    rule_sections,
    teacher_sections,
)
from embedtrain.standalone.work import SOURCE, Given, do_stages, opened, write_file

MINED, SCORED, SELECTED = "mined", "scored", "selected"
OWN = {"kind": "rows"}
ENSEMBLE = "teachers"
PAGE = "mining.html"


def mine_file(
    paths: Sequence[str],
    out: Path,
    *,
    models: Sequence[str] = (),
    bm25: bool = False,
    corpus: Sequence[str] = (),
    top_k: int = 100,
    ranks: str | None = None,
    negatives: int = 7,
    rules: Sequence[str] = (),
    sample_from: int | None = None,
    fill: bool = False,
    max_tokens: int | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 7,
    machine: Machine,
) -> None:
    """Write the rows of `paths` with mined negatives and their scores in place of those they had.

    Searched are the rows' own positives and negatives and the documents of `corpus`; several retrievers are
    fused by reciprocal rank, and the first one's scores are what the rules read. Raises UserError.
    """
    retrievers = model_sections(models, bm25, max_tokens)
    judge = str(retrievers[0].get("name", retrievers[0]["kind"]))
    chosen = select_section(judge, rules, ranks, top_k * len(retrievers), negatives, sample_from)
    given = Given("embedtrain mine", paths, out, format, columns, seed, machine)
    mined = {"name": MINED, "kind": "mine", "retrievers": retrievers, "top_k": top_k, "corpus": corpus}
    with opened(given):
        folders = do_stages(given, [mined, chosen | {"fill": "random" if fill else "nothing"}])
        keep_selected(given, folders[SELECTED])


def select_file(
    paths: Sequence[str],
    out: Path,
    *,
    rules: Sequence[str] = (),
    ranks: str | None = None,
    negatives: int = 7,
    sample_from: int | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 7,
    machine: Machine,
) -> None:
    """Write the rows of `paths` with those of their negatives that the rules let stay.

    The rules read the scores in the rows; a negative's rank is its place in its row. Raises UserError.
    """
    given = Given("embedtrain select", paths, out, format, columns, seed, machine)
    with opened(given) as rows:
        longest = longest_list(rows)
        chosen = select_section("rows", rules, ranks, longest, min(negatives, longest), sample_from)
        if reads_scores(chosen["rules"]):
            require_scores(rows, paths)
        keep_selected(given, do_stages(given, [own_section(longest), chosen])[SELECTED])


def score_file(
    paths: Sequence[str],
    out: Path,
    *,
    teachers: Sequence[str],
    max_tokens: int | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 7,
    machine: Machine,
) -> None:
    """Write the rows of `paths` with a teacher's scores of their positives and negatives.

    Several teachers are averaged, each brought to mean 0 and deviation 1 over a row. Raises UserError.
    """
    judges = teacher_sections(teachers, max_tokens)
    names = [judge["name"] for judge in judges]
    mean = [{"kind": "mean", "name": ENSEMBLE, "of": names}] if len(names) > 1 else []
    scored = {
        "name": SCORED, "kind": "score", "candidates": MINED, "teachers": judges, "ensembles": mean,
    }  # fmt: skip
    given = Given("embedtrain score", paths, out, format, columns, seed, machine)
    with opened(given) as rows:
        folders = do_stages(given, [own_section(longest_list(rows)), scored])
        write_file(given, scored_rows(rows, folders, ENSEMBLE if mean else names[0]))


def select_section(
    judge: str, rules: Sequence[str], ranks: str | None, last: int, negatives: int, sample_from: int | None
) -> Section:
    """The select stage of these options."""
    first, last = rank_window(ranks, last)
    return {
        "name": SELECTED,
        "kind": "select",
        "candidates": MINED,
        "judge": judge,
        "rules": rule_sections(rules, judge),
        "first_rank": first,
        "last_rank": last,
        "num_negatives": negatives,
        "choice": choice_section(sample_from),
    }


def own_section(longest: int) -> Section:
    """The mine stage whose candidates are the rows' own negatives."""
    return {"name": MINED, "kind": "mine", "retrievers": [OWN], "top_k": longest}


def longest_list(rows: RowStore) -> int:
    """The most negatives of a row. Raises UserError where none has any."""
    longest = int(np.diff(rows.negative_starts).max())
    if not longest:
        raise UserError("no row has negatives; `embedtrain mine` finds some")
    return longest


def require_scores(rows: RowStore, paths: Sequence[str]) -> None:
    """Refuse files without scores, which rules were to compare."""
    for key, scores in (("pos_scores", rows.positive_score_P), ("neg_scores", rows.negative_score_Q)):
        if np.isnan(scores).all():
            raise UserError(
                f"{', '.join(paths)}: no row has {key}, which the rules compare; `embedtrain score` writes "
                "them, or give a rule that reads none (--rule shift=10, --rule none)"
            )


def keep_selected(given: Given, folder: Path) -> None:
    """Write the selected rows, and beside them the page that shows why the others were refused."""
    path = stage_rows(folder, SOURCE)
    assert path is not None
    if (page := folder / PAGE).is_file():
        shown = given.out.with_name(f"{given.stem}.html")
        shutil.copyfile(page, shown)
        print(f"{shown}: what was refused, and why")
    write_file(given, iter(open_rows(path)))


def scored_rows(rows: RowStore, folders: Mapping[str, Path], name: str) -> Iterator[Row]:
    """The rows with the scores of this column."""
    mined = read_mined(folders[MINED], SOURCE)
    column = read_columns(folders[SCORED], SOURCE, mined)[name]
    keys_N, _ = read_corpus(folders[MINED], SOURCE)
    for place, number in enumerate(mined.query_row_Q.tolist()):
        yield scored_row(rows[number], place, mined, column, keys_N)


def scored_row(row: Row, place: int, mined: Mined, column: Column, keys_N: np.ndarray) -> Row:
    """A row with its scores; texts that are equal have one. Raises UserError where a score is missing."""
    there = mined.present_QK[place]
    keys = keys_N[mined.ids_QK[place][there]].tolist()
    known = dict(zip(keys, column.score_QK[place][there].tolist(), strict=True))
    positives = tuple(column.positive_scores[place].tolist())
    negatives = tuple(known.get(text_key(text), np.nan) for text in row.negatives)
    if not np.isfinite([*positives, *negatives]).all():
        raise UserError(f"row {shorten(row.query)}: a text of it got no score")
    return replace(row, positive_scores=positives, negative_scores=negatives)
