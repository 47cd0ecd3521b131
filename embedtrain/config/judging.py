"""What retrievers, teachers and rules ask for and cannot get."""

from collections import Counter
from collections.abc import Iterator, Sequence

from embedtrain.config.errors import nearest
from embedtrain.config.faults import Fault, Location
from embedtrain.config.inputs import missing, outside_fault, pin_faults
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.retrievers import LikelihoodJudge, Pinned, Retriever, Teacher, YesNoJudge
from embedtrain.config.rules import Rule
from embedtrain.config.schema import Run


def mine_faults(run: Run, stage: Mine, here: Location) -> Iterator[Fault]:
    """Retrievers and documents that are not there, or share a column."""
    yield from judge_faults(run, stage.retrievers, (*here, "retrievers"), [stage.from_ or ""])
    for number, path in enumerate(stage.corpus):
        if text := missing(path):
            yield Fault((*here, "corpus", number), text)


def score_faults(run: Run, stage: Score, here: Location, mine: Mine | None) -> Iterator[Fault]:
    """Teachers that are not there or share a column; ensembles of columns that nobody makes."""
    columns = mined_columns(mine)
    yield from judge_faults(run, stage.teachers, (*here, "teachers"), columns)
    columns = [*columns, *(teacher.column for teacher in stage.teachers)]
    for number, ensemble in enumerate(stage.ensembles):
        spot = (*here, "ensembles", number)
        for place, name in enumerate(ensemble.of):
            yield from column_faults(name, columns, (*spot, "of", place))
        if ensemble.name in columns:
            yield Fault((*spot, "name"), f"there is a column '{ensemble.name}' already; give another name")
        columns.append(ensemble.name)


def select_faults(stage: Select, here: Location, mine: Mine | None, score: Score | None) -> Iterator[Fault]:
    """Ranks that hold too few candidates, and columns that nobody makes."""
    if score and score.candidates != stage.candidates:
        text = f"'{score.name}' scores the candidates of '{score.candidates}', not of '{stage.candidates}'"
        yield Fault((*here, "scores"), text)
    if mine:
        found = mine.top_k * len(mine.judges)
        last = min(stage.last_rank, found)
        if (room := max(0, last - stage.first_rank + 1)) < stage.num_negatives:
            text = f"found {stage.num_negatives}, and ranks {stage.first_rank} to {last} hold only {room}"
            yield Fault((*here, "num_negatives"), f"{text} candidates")
        columns = [*mined_columns(mine), *scored_columns(score)]
        for spot, name in judges_named(stage, here):
            yield from column_faults(name, columns, spot)


def judges_named(stage: Select, here: Location) -> Iterator[tuple[Location, str]]:
    """Where a select stage names a column, and which."""
    for key in ("judge", "soft_labels"):
        if (name := getattr(stage, key)) is not None:
            yield (*here, key), name
    for number, rule in enumerate(stage.rules):
        if isinstance(rule, Rule) and rule.judge is not None:
            yield (*here, "rules", number, "judge"), rule.judge


def column_faults(name: str, columns: Sequence[str], spot: Location) -> Iterator[Fault]:
    """A column that nobody makes."""
    if name not in columns:
        yield Fault(spot, f"no column '{name}'; {nearest(name, columns)}")


def mined_columns(mine: Mine | None) -> list[str]:
    """The columns of a mine stage."""
    return [judge.column for judge in mine.judges] if mine else []


def scored_columns(score: Score | None) -> list[str]:
    """The columns that a score stage adds."""
    if score is None:
        return []
    return [*(teacher.column for teacher in score.teachers), *(one.name for one in score.ensembles)]


def judge_faults(
    run: Run, judges: Sequence[Retriever | Teacher], here: Location, taken: Sequence[str]
) -> Iterator[Fault]:
    """Models that are not there, and columns of one name."""
    stages = [other.name for other in run.stages]
    seen = Counter(taken)
    for number, judge in enumerate(judges):
        spot = (*here, number)
        if seen[judge.column]:
            yield Fault(spot, f"there is a column '{judge.column}' already; give this one a name")
        seen[judge.column] += 1
        if isinstance(judge, Pinned):
            causal = isinstance(judge, LikelihoodJudge | YesNoJudge)
            if text := outside_fault(judge.model, [] if judge.kind != "model" else stages, causal):
                yield Fault((*spot, "model"), text)
            yield from pin_faults(judge.model, judge.revision, judge.sha256, spot)
