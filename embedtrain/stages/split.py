"""The command `embedtrain split`: rows in; rows to train on, and a test that asks the others, out."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embedtrain.artifacts import flush
from embedtrain.config.errors import UserError
from embedtrain.data.rows import write_rows
from embedtrain.data.split import groups, num_refused, split_rows
from embedtrain.data.store import RowStore, open_rows, write_store
from embedtrain.show.tables import print_table

HELD_OUT = "held_out.parquet"
"""In the folder of the test: the rows held out, for an audit of those to train on."""


def split_file(rows: Path, train: Path, test: Path, *, share: float, seed: int) -> None:
    """Write the folder of rows `train` and the BEIR folder `test`, and print what they hold.

    Raises UserError, and writes nothing, where one of them is there, where a row has a grade or where no row
    can be held out or trained on.
    """
    if not 0 < share < 1:
        raise UserError(f"--share {share:g}: expected a number between 0 and 1")
    for folder in (train, test):
        if folder.exists():
            raise UserError(f"{folder}: is there already; remove it or give another name")
    store = open_rows(rows)
    if graded := int(np.isfinite(store.score_N).sum()):
        raise UserError(f"{rows}: {graded:,} rows have a grade; expected queries with their answers")
    kept_N, held_out_N = split_rows(store, share, seed)
    if not len(held_out_N) or not len(kept_N):
        _, size_G = groups(store)
        raise UserError(
            f"{rows}: --share {share:g} of {len(store):,} rows cannot be held out: the smallest group of "
            f"rows with texts in common has {size_G.min():,}; expected a larger share"
        )
    kept, held_out = store.take(kept_N), store.take(held_out_N)
    aside = test.with_name(f".{test.name}.{os.getpid()}.partial")
    try:
        num_queries, num_documents = write_test(aside, store, held_out)
        write_rows(aside / HELD_OUT, held_out)
        write_store(train, kept, facts={"split from": str(rows), "share": share, "seed": seed})
        aside.replace(test)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    flush(test.parent)
    print_table(
        f"{rows}: {len(store):,} rows",
        ["written", "rows", "holds"],
        [
            [str(train), len(kept), "what to train on"],
            [str(test), len(held_out), f"a test: {num_queries:,} queries, {num_documents:,} documents"],
        ],
    )
    if refused := num_refused(kept, held_out):
        print(f"{refused:,} rows to train on have a held-out answer among their negatives: mine after this")


def write_test(folder: Path, store: RowStore, held_out: RowStore) -> tuple[int, int]:
    """A BEIR folder: the queries held out, all rows' positives and negatives; how many there are of each."""
    document_D, name_of = numbered(store, np.concatenate([store.positive_P, store.negative_Q]), "d")
    query_D, query_of = numbered(store, held_out.query_N, "q")
    query_P = np.repeat(held_out.query_N, np.diff(held_out.positive_starts))
    judged = dict.fromkeys(
        (query_of[query], name_of[document])
        for query, document in zip(
            store.keys_M[query_P].tolist(), store.keys_M[held_out.positive_P].tolist(), strict=True
        )
    )
    (folder / "qrels").mkdir(parents=True)
    write_texts(folder / "corpus.jsonl", store, document_D, name_of, {"title": ""})
    write_texts(folder / "queries.jsonl", store, query_D, query_of, {})
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(f"{query}\t{document}\t1\n" for query, document in judged)
    return len(query_D), len(document_D)


def numbered(store: RowStore, texts: np.ndarray, letter: str) -> tuple[np.ndarray, dict[int, str]]:
    """(ids of the different texts, in the order in which they come; by `text_key` the name of each)."""
    keys, first = np.unique(store.keys_M[texts], return_index=True)
    order = np.argsort(first)
    names = {int(key): f"{letter}{number}" for number, key in enumerate(keys[order])}
    return texts[first[order]], names


def write_texts(
    path: Path, store: RowStore, texts: np.ndarray, name_of: Mapping[int, str], more: Mapping[str, str]
) -> None:
    """A JSON object a text: its name, `more`, and the text."""
    with path.open("w", encoding="utf-8") as file:
        for number in texts.tolist():
            record = {"_id": name_of[int(store.keys_M[number])], **more, "text": store.text(number)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
