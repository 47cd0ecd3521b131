"""The command `embedtrain split`: rows in; rows to train on, and a test that asks the others, out."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedtrain.artifacts import flush
from embedtrain.config.errors import UserError
from embedtrain.data.formats.beir import write_beir
from embedtrain.data.rows import write_rows
from embedtrain.data.split import groups, num_refused, split_rows
from embedtrain.data.store import RowStore, open_rows, write_store
from embedtrain.show.tables import print_table

HELD_OUT = "held_out.parquet"
"""In the folder of the test: the rows held out, for an audit of those to train on."""


def split_file(rows: Path, train: Path, test: Path, *, share: float, seed: int) -> None:
    """Write the folder of rows `train` and the BEIR folder `test`, and print what they hold.

    Raises UserError, and leaves neither, where one of them is there or holds the other, where a row has a
    grade, where no row can be held out, and where no query can be asked.
    """
    require_places(train, test)
    if not 0 < share < 1:
        raise UserError(f"--share {share:g}: expected a number between 0 and 1")
    store = open_rows(rows)
    if graded := int(np.isfinite(store.score_N).sum()):
        raise UserError(f"{rows}: {graded:,} rows have a grade; expected queries with their answers")
    kept_N, held_out_N = split_rows(store, share, seed)
    if not len(held_out_N):
        raise UserError(f"{rows}: --share {share:g} of {len(store):,} rows holds none out: {smallest(store)}")
    kept, held_out = store.take(kept_N), store.take(held_out_N)
    facts = {"split from": str(rows), "share": share, "seed": seed}
    aside = test.with_name(f".{test.name}.{os.getpid()}.partial")
    try:
        asked, num_documents = write_test(aside, store, held_out)
        if not asked:
            raise UserError(f"{rows}: every query held out answers another one; nothing can be asked")
        write_rows(aside / HELD_OUT, list(held_out))
        write_both(train, kept, facts, aside, test)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    tell(rows, {train: kept, test: held_out}, asked, num_documents)


def write_both(train: Path, kept: RowStore, facts: dict[str, object], aside: Path, test: Path) -> None:
    """Write the rows to train on and put the test in place: both, or neither."""
    write_store(train, kept, facts=facts)
    try:
        aside.replace(test)
    except BaseException:
        shutil.rmtree(train)
        raise
    flush(test.parent)


def tell(rows: Path, written: Mapping[Path, RowStore], asked: int, num_documents: int) -> None:
    """What was written, and what of the rows is not as one may think."""
    (train, kept), (test, held_out) = written.items()
    print_table(
        f"{rows}: {len(kept) + len(held_out):,} rows",
        ["written", "rows", "holds"],
        [
            [str(train), len(kept), "what to train on"],
            [str(test), len(held_out), f"a test: {asked:,} queries, {num_documents:,} documents"],
        ],
    )
    if answers := len(np.unique(held_out.query_N)) - asked:
        print(f"{answers:,} queries held out are not asked: they answer others, and would find themselves")
    if refused := num_refused(kept, held_out):
        print(f"{refused:,} rows to train on have a held-out text among their negatives: mine after this")


def require_places(train: Path, test: Path) -> None:
    """Raise UserError unless both folders are new and apart."""
    for folder in (train, test):
        if folder.exists():
            raise UserError(f"{folder}: is there already; remove it or give another name")
    one, other = train.resolve(), test.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UserError(f"--train {train} and --test {test}: expected two folders beside each other")


def smallest(store: RowStore) -> str:
    """Why no group of rows fits."""
    if len(store) == 1:
        return "expected two rows at least"
    size = np.bincount(groups(store)).min()
    return f"the smallest group of rows with texts in common has {size:,}; expected a larger share"


def write_test(folder: Path, store: RowStore, held_out: RowStore) -> tuple[int, int]:
    """A BEIR folder of what is held out among all rows' documents; how many queries and documents it has.

    No query finds itself: one that answers another query is not asked, and any other is no document.
    """
    queries = named("q", held_out.query_N, without=held_out.positive_P)
    all_texts = np.concatenate([store.positive_P, store.negative_Q])
    documents = named("d", all_texts, without=np.array(list(queries), np.int64))
    query_P = np.repeat(held_out.query_N, np.diff(held_out.positive_starts)).tolist()
    pairs = dict.fromkeys(zip(query_P, held_out.positive_P.tolist(), strict=True))
    write_beir(
        folder,
        documents=((name, store.text(text)) for text, name in documents.items()),
        queries=((name, store.text(text)) for text, name in queries.items()),
        judged=((queries[query], documents[text]) for query, text in pairs if query in queries),
    )
    return len(queries), len(documents)


def named(letter: str, texts: np.ndarray, *, without: np.ndarray) -> dict[int, str]:
    """By text id a name, in the order in which the texts come."""
    ids = dict.fromkeys(texts[~np.isin(texts, without)].tolist())
    return {text: f"{letter}{number}" for number, text in enumerate(ids)}
