"""Scores mined candidates and the rows' positives by teachers, a column a teacher, and by ensembles."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

from embedtrain.artifacts import wait_for
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.mining import Mine, Score
from embedtrain.config.retrievers import Teacher
from embedtrain.dist import Processes, launched
from embedtrain.mining.corpus import Corpus
from embedtrain.mining.judges import Inquiry
from embedtrain.mining.scoring import Candidates, Units, column_facts, cut_rows, with_ensembles
from embedtrain.mining.tables import (
    SCORES,
    list_sources,
    read_columns,
    read_corpus,
    read_mined,
    scores_schema,
    scores_table,
    table_writer,
)
from embedtrain.mining.teachers import Reader, open_teacher, unit_pairs
from embedtrain.show.progress import progress
from embedtrain.show.tables import print_table
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_one, rows_path

WORK = "work"  # in the stage's folder, while it scores
UNITS = "units"
ROWS_AT_ONCE = 4096  # written to the table

ColumnFacts = Mapping[str, Mapping[str, object]]


def run_stage(context: StageContext) -> dict[str, object]:
    """Write scores.parquet; the facts count units, made now or found finished, and judge each column.

    Every process scores its units; the first waits for all of them, writes the table, then removes the units.
    """
    stage = context.stage
    assert isinstance(stage, Score)
    processes = launched(context.machine.num_processes, context.machine.device)
    found = found_units(context.folder)
    seconds = {
        teacher.column: score_sources(context, stage, teacher, processes) for teacher in stage.teachers
    }
    if processes.rank > 0:
        return {}
    if not (context.folder / SCORES).exists():
        write_scores(context, stage)
    shutil.rmtree(context.folder / WORK, ignore_errors=True)
    facts = gather_facts(context, stage, found, seconds)
    print_facts(facts["sources"], facts["teachers"])
    return dict(facts)


def found_units(folder: Path) -> Counter[str]:
    """How many units each teacher has that an earlier start finished."""
    return Counter(path.parent.name for path in (folder / WORK / UNITS).glob("*/*/*.npy"))


def score_sources(context: StageContext, stage: Score, judge: Teacher, processes: Processes) -> float:
    """Score this process's units of all sources by one teacher; the seconds that it took.

    A process that starts late stops where it sees that the first has written the whole table.
    """
    start = time.monotonic()
    teacher = cache(partial(open_teacher, judge, context))  # no model is read where nothing is missing
    for name in mined_sources(context, stage):
        if (context.folder / SCORES).exists():
            break
        units = open_units(context, judge, open_candidates(context, stage, name))
        if units.missing:
            score_units(context, teacher(), f"{name}: {judge.column}", units, processes)
    return round(time.monotonic() - start, 1)


def score_units(
    context: StageContext, teacher: Reader, label: str, units: Units, processes: Processes
) -> None:
    """Make those of the missing units that are this process's; all processes read the source together."""
    answers = teacher.read(inquiry_of(context, units.candidates, processes))
    own = [number for number in units.missing if number % processes.world == processes.rank]
    with progress(label, total=sum(map(units.num_pairs, own)), unit="pair") as bar:
        for number in own:
            if (context.folder / SCORES).exists():
                return
            units.write(number, answers)
            bar.advance(units.num_pairs(number))


def inquiry_of(context: StageContext, candidates: Candidates, processes: Processes) -> Inquiry:
    """What a teacher is asked about a source."""
    return Inquiry(
        name=candidates.name,
        source=context.run.sources[candidates.name],
        rows=candidates.rows,
        corpus=candidates.corpus,
        folder=context.folder / WORK / "read" / candidates.name,
        processes=processes,
        wanted=candidates.wanted,
    )


def open_units(context: StageContext, judge: Teacher, candidates: Candidates) -> Units:
    """The units of one source and teacher."""
    folder = context.folder / WORK / UNITS / candidates.name / judge.column
    return Units(folder, candidates, unit_pairs(judge))


def mined_sources(context: StageContext, stage: Score) -> list[str]:
    """The sources that were mined."""
    return list_sources(context.inputs[stage.candidates])


def open_candidates(context: StageContext, stage: Score, name: str) -> Candidates:
    """What was mined for a source."""
    folder = context.inputs[stage.candidates]
    mine = find_stage(context.run, stage.candidates)
    assert isinstance(mine, Mine)
    rows, mined = open_one(context, mine, name), read_mined(folder, name)
    if (last := int(mined.query_row_Q.max(initial=-1))) >= len(rows):
        raise UserError(
            f"{rows_path(context, mine, name)}: {len(rows)} rows, but stage '{stage.candidates}' mined row "
            f"number {last}; the file has changed since"
        )
    keys, texts = read_corpus(folder, name)
    corpus = Corpus(keys, texts, len(texts))
    return Candidates(name, rows.take(mined.query_row_Q), mined, corpus, stage.first_candidates)


def write_scores(context: StageContext, stage: Score) -> None:
    """All columns as one table, line for line beside the candidates, once all units are there."""
    names = [*(teacher.column for teacher in stage.teachers), *(one.name for one in stage.ensembles)]
    with table_writer(context.folder / SCORES, scores_schema(names)) as file:
        for name in mined_sources(context, stage):
            candidates = open_candidates(context, stage, name)
            units = {judge.column: open_units(context, judge, candidates) for judge in stage.teachers}
            wait_for_units(name, units)
            teachers = {column: one.read() for column, one in units.items()}
            columns = with_ensembles(candidates, teachers, stage.ensembles)
            row_Q, present_QK = candidates.mined.query_row_Q, candidates.mined.present_QK
            for start in range(0, len(row_Q), ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                file.write_table(scores_table(name, row_Q[rows], present_QK[rows], cut_rows(columns, rows)))


def wait_for_units(name: str, units: Mapping[str, Units]) -> None:
    """Wait for what other processes have not made yet."""
    absent = [one.paths[number] for one in units.values() for number in one.missing]
    if absent:
        with progress(f"{name}: other processes", total=len(absent), unit="unit") as bar:
            wait_for(absent, arrived=lambda path: bar.advance(1))


def gather_facts(
    context: StageContext, stage: Score, found: Mapping[str, int], seconds: Mapping[str, float]
) -> dict[str, dict[str, dict]]:
    """Of each source and column the pairs, of each teacher the units, by the finished table."""
    sources: dict[str, dict] = {}
    totals: Counter[str] = Counter()
    for name in mined_sources(context, stage):
        candidates = open_candidates(context, stage, name)
        columns = read_columns(context.folder, name, candidates.mined)
        sources[name] = {column: column_facts(candidates, scores) for column, scores in columns.items()}
        for judge in stage.teachers:
            totals[judge.column] += len(open_units(context, judge, candidates).paths)
    teachers = {
        column: {
            "units_made": total - found[column],
            "units_found": found[column],
            "seconds": seconds[column],
        }
        for column, total in totals.items()
    }
    return {"sources": sources, "teachers": teachers}


def print_facts(sources: Mapping[str, ColumnFacts], teachers: ColumnFacts) -> None:
    """A line a source and column, and a line a teacher."""
    print_table(
        "Scored",
        ["source", "column", "scored pairs", "positives first"],
        [[name, column, *fact.values()] for name, facts in sources.items() for column, fact in facts.items()],
        note="positives first: share of rows whose positives all score above the other candidates",
    )
    print_table(
        "Teachers",
        ["teacher", "units made", "units found", "seconds"],
        [[column, *fact.values()] for column, fact in teachers.items()],
    )
