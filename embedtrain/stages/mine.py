"""Mines candidates: for every row, the documents of its source that the retrievers find for its query."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from embedtrain.artifacts import WORK
from embedtrain.config.errors import UserError
from embedtrain.config.mining import Mine
from embedtrain.data.store import RowStore
from embedtrain.dist import Processes, launched
from embedtrain.mining.corpus import Corpus, build_corpus, draw_rows
from embedtrain.mining.given import Given, write_given
from embedtrain.mining.judges import Inquiry, Judge, open_judge
from embedtrain.mining.retrieve import FUSED, Units, make_units, read_units, shares
from embedtrain.mining.sharing import first_makes, leave
from embedtrain.mining.tables import (
    CANDIDATES,
    CORPUS,
    CORPUS_SCHEMA,
    candidates_schema,
    corpus_table,
    table_writer,
)
from embedtrain.show.tables import print_table
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_sources

BLOCK = 8192  # documents that are written at a time
Facts = dict[str, Any]
TOGETHER: dict[str, Callable[[Sequence[Any]], Any]] = {
    "made": sum,
    "found": sum,
    "encoded": max,
    "stored": min,
}
"""By the last word of a fact: units belong to one process, texts are counted by each as it comes to them."""


@dataclass(frozen=True, slots=True)
class Share:
    """One source, after this process has done its share."""

    corpus: Corpus
    units: Units
    facts: Facts


def run_stage(context: StageContext) -> Facts:
    """Write candidates.parquet and corpus.parquet; the facts are counts, seconds and shares, by source."""
    stage, machine = context.stage, context.machine
    assert isinstance(stage, Mine)
    processes = launched(
        machine.num_processes,
        machine.device,
        timeout_seconds=machine.timeout_seconds,
        folder=context.folder,
    )
    judges = [open_judge(one, context, stage.vector_precision, stage.approximate) for one in stage.judges]
    facts = mine_sources(context, stage, judges, processes)
    if processes.rank == 0:
        print_facts(facts)
    return {"sources": facts}


def mine_sources(
    context: StageContext, stage: Mine, judges: Sequence[Judge], processes: Processes
) -> dict[str, Facts]:
    """Mine one source after the other; the first process then merges all. Its facts of each source."""
    work, sources = context.folder / WORK, open_sources(context, stage)
    given = Given()
    if stage.corpus:
        given = Given(first_makes(work / "given", processes, partial(write_given, stage.corpus)))
    mined = {
        name: mine_source(context, stage, name, rows, given, judges, processes)
        for name, rows in sources.items()
    }
    everyones = leave(context.folder, processes, {name: one.facts for name, one in mined.items()})
    if processes.rank != 0:
        return {}
    return write_tables(context.folder, stage, mined, total(everyones))


def mine_source(
    context: StageContext,
    stage: Mine,
    name: str,
    rows: RowStore,
    given: Given,
    judges: Sequence[Judge],
    processes: Processes,
) -> Share:
    """This process's share of encoding, searching and fusing."""
    start, source = time.monotonic(), context.run.sources[name]
    numbers = draw_rows(len(rows), stage.max_rows, context.seed, name)
    corpus = build_corpus(rows, numbers, stage, given, source.symmetric, context.seed, name)
    if corpus.num_searched == 0 and any(judge.kind != "rows" for judge in stage.judges):
        raise UserError(f"stage '{stage.name}': no documents to search for source '{name}'; corpus is empty")
    folder = context.folder / WORK / "sources" / name
    inquiry = Inquiry(name, source, rows.take(numbers), corpus, folder, processes)
    found = {judge.column: judge.search(inquiry, stage.top_k) for judge in judges}
    units = make_units(inquiry, numbers, found, stage.fusion)
    facts = {
        "rows": len(rows),
        "mined_rows": len(numbers),
        "documents": corpus.num_searched,
        "units_made": units.made,
        "units_found": units.found,
        "seconds": round(time.monotonic() - start, 1),
        "retrievers": {column: one.facts for column, one in found.items()},
    }
    return Share(corpus, units, facts)


def write_tables(
    folder: Path, stage: Mine, mined: Mapping[str, Share], facts: Mapping[str, Facts]
) -> dict[str, Facts]:
    """Both tables from the units of all processes; the facts with the shares of rows found."""
    columns, finished = [judge.column for judge in stage.judges], {}
    with (
        table_writer(folder / CORPUS, CORPUS_SCHEMA) as corpus_file,
        table_writer(folder / CANDIDATES, candidates_schema(columns)) as candidates_file,
    ):
        for name, one in mined.items():
            write_corpus(corpus_file, name, one.corpus)
            tally: dict[str, Counter[str]] = {}
            for table in read_units(one.units, columns, tally):
                candidates_file.write_table(table)
            finished[name] = with_shares(facts[name], tally, stage)
    return finished


def write_corpus(file: pq.ParquetWriter, name: str, corpus: Corpus) -> None:
    """The documents, some at a time."""
    for start in range(0, len(corpus.texts), BLOCK):
        part = slice(start, start + BLOCK)
        file.write_table(corpus_table(name, corpus.keys_N[part], corpus.texts[part], start))


def with_shares(facts: Facts, tally: Mapping[str, Mapping[str, int]], stage: Mine) -> Facts:
    """The facts with how many rows have their positives near the top, by each list and the fused one."""
    num_rows, retrievers = facts["mined_rows"], facts["retrievers"]
    told = {
        column: shares(tally.get(column, {}), num_rows, stage.top_k) | own
        for column, own in retrievers.items()
    }
    longest = stage.top_k * len(retrievers)
    return facts | shares(tally.get(FUSED, {}), num_rows, longest) | {"retrievers": told}


def total(everyones: Sequence[Facts]) -> Facts:
    """The first process's facts, with what each process made and found brought together over all."""
    together: Facts = {}
    for key, value in everyones[0].items():
        each = [one[key] for one in everyones]
        bring = TOGETHER.get(key.rpartition("_")[2], itemgetter(0))
        together[key] = total(each) if isinstance(value, dict) else bring(each)
    return together


def print_facts(facts: Mapping[str, Facts]) -> None:
    """A line a source and list: how often the positives stand near its top."""
    tops = [f"positive_in_top_{top}" for top in (1, 10, 50)]
    lines = []
    for name, fact in facts.items():
        retrievers = fact["retrievers"]
        lists = retrievers | ({FUSED: fact} if len(retrievers) > 1 else {})
        sizes = [fact["mined_rows"], fact["documents"]]
        lines += [[name, column, *sizes, *map(one.get, tops)] for column, one in lists.items()]
    print_table(
        "Mined",
        ["source", "retriever", "rows", "documents", *("in top " + top.rpartition("_")[2] for top in tops)],
        lines,
        note="in top n: share of rows all of whose positives are among the first n documents found",
    )
