"""Scores mined candidates and the rows' positives by teachers, a column a teacher, and by ensembles."""

import time
from collections.abc import Mapping, Sequence
from functools import cache, partial

from embedtrain.artifacts import WORK
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.mining import Mine, Score
from embedtrain.config.retrievers import Teacher
from embedtrain.dist import Processes, launched
from embedtrain.mining.corpus import Corpus
from embedtrain.mining.judges import Inquiry
from embedtrain.mining.scoring import Candidates, Units, column_facts, cut_rows, with_ensembles
from embedtrain.mining.sharing import Facts, leave
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
from embedtrain.mining.teachers import Answers, open_teacher, unit_pairs
from embedtrain.places import at
from embedtrain.show.progress import progress
from embedtrain.show.tables import print_table
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_one, rows_path

ROWS_AT_ONCE = 4096  # written to the table


def run_stage(context: StageContext) -> dict[str, object]:
    """Write scores.parquet; the facts count units, made now or found finished, and judge each column.

    Every process scores its units; when all have left, the first writes the table.
    """
    stage = context.stage
    assert isinstance(stage, Score)
    processes = launched(
        context.machine.num_processes,
        context.machine.device,
        timeout_seconds=context.machine.timeout_seconds,
        folder=context.folder,
    )
    teachers = Facts()
    if not (context.folder / SCORES).exists():
        own = {judge.column: score_sources(context, stage, judge, processes) for judge in stage.teachers}
        everyones = leave(context.folder, processes, own)
        if processes.rank == 0:
            write_scores(context, stage)
            teachers = {column: total([facts[column] for facts in everyones]) for column in own}
    if processes.rank > 0:
        return {}
    sources = {name: source_facts(context, stage, name) for name in mined_sources(context, stage)}
    print_facts(sources, teachers)
    return {"sources": sources, "teachers": teachers}


def score_sources(context: StageContext, stage: Score, judge: Teacher, processes: Processes) -> Facts:
    """Score this process's units of all sources by one teacher; its units and seconds."""
    start = time.monotonic()
    teacher = cache(partial(open_teacher, judge, context))  # no model is read where nothing is missing
    made = found = 0
    for name in mined_sources(context, stage):
        units = open_units(context, judge, open_candidates(context, stage, name))
        own = range(processes.rank, len(units.paths), processes.world)
        missing = set(units.missing)
        numbers = [number for number in own if number in missing]
        made, found = made + len(numbers), found + len(own) - len(numbers)
        if missing:
            answers = teacher().read(inquiry_of(context, units.candidates, processes))
            score_units(f"{name}: {judge.column}", units, numbers, answers)
    return {"units_made": made, "units_found": found, "seconds": round(time.monotonic() - start, 1)}


def score_units(label: str, units: Units, numbers: Sequence[int], answers: Answers) -> None:
    """Make these units."""
    with progress(label, total=sum(map(units.num_pairs, numbers)), unit="pair") as bar:
        for number in numbers:
            at(f"{label}: unit {number}")
            units.write(number, answers)
            bar.advance(units.num_pairs(number))


def total(facts: Sequence[Facts]) -> Facts:
    """What all processes did: their units, and the seconds of the slowest."""
    counts = {key: sum(one[key] for one in facts) for key in ("units_made", "units_found")}
    return counts | {"seconds": max(one["seconds"] for one in facts)}


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
    folder = context.folder / WORK / "units" / candidates.name / judge.column
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
    """All columns as one table, line for line beside the candidates."""
    names = [*(teacher.column for teacher in stage.teachers), *(one.name for one in stage.ensembles)]
    with table_writer(context.folder / SCORES, scores_schema(names)) as file:
        for name in mined_sources(context, stage):
            candidates = open_candidates(context, stage, name)
            scored = {judge.column: open_units(context, judge, candidates).read() for judge in stage.teachers}
            columns = with_ensembles(candidates, scored, stage.ensembles)
            row_Q, present_QK = candidates.mined.query_row_Q, candidates.mined.present_QK
            for start in range(0, len(row_Q), ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                file.write_table(scores_table(name, row_Q[rows], present_QK[rows], cut_rows(columns, rows)))


def source_facts(context: StageContext, stage: Score, name: str) -> Facts:
    """Of each column of the finished table, how much is scored and how the positives stand."""
    candidates = open_candidates(context, stage, name)
    columns = read_columns(context.folder, name, candidates.mined)
    return {column: column_facts(candidates, scores) for column, scores in columns.items()}


def print_facts(sources: Mapping[str, Facts], teachers: Mapping[str, Facts]) -> None:
    """A line a source and column, and a line a teacher that had work."""
    print_table(
        "Scored",
        ["source", "column", "scored pairs", "positives first"],
        [[name, column, *fact.values()] for name, facts in sources.items() for column, fact in facts.items()],
        note="positives first: share of rows whose positives all score above the other candidates",
    )
    if not teachers:
        return
    print_table(
        "Teachers",
        ["teacher", "units made", "units found", "seconds"],
        [[column, *fact.values()] for column, fact in teachers.items()],
    )
