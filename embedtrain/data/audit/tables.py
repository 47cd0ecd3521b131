"""The audit as tables: the same for the terminal and the page."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from embedtrain.data.audit.faults import FAULTS
from embedtrain.data.audit.languages import UNSURE
from embedtrain.data.audit.result import Audit, SourceAudit
from embedtrain.data.audit.sample import SIDES, Lengths

SHOWN_LANGUAGES = 6  # with the others and those that are unsure, as many as there are colours
SHOWN_FRACTION = 0.005  # of all texts: languages that are rarer are not named
OTHER = "other"
NOT_STATED = "none stated"


@dataclass(frozen=True, slots=True)
class Rows:
    """A table: columns and cells; the last row is the sum where `total` holds."""

    columns: tuple[str, ...]
    cells: list[list[object]]
    total: bool = False


def size_table(audit: Audit) -> Rows:
    """What every source holds."""
    columns = (
        "source",
        "rows",
        "distinct texts",
        "positives a row",
        "negatives a row",
        "labels",
        "instructions",
    )
    cells: list[list[object]] = [
        [
            name,
            source.rows,
            source.texts,
            source.positives / source.rows,
            source.negatives / source.rows,
            source.labels.num_labels,
            source.instructions,
        ]
        for name, source in audit.sources.items()
    ]
    return Rows(columns, cells)


def fault_table(audit: Audit) -> Rows:
    """Rows with each fault, by source, and their sum."""
    names = [name for name in FAULTS if name != "test_data" or audit.test]
    cells: list[list[object]] = [
        [source, one.rows, *(one.faults[name] for name in names)] for source, one in audit.sources.items()
    ]
    sums = [sum(one.faults[name] for one in audit.sources.values()) for name in names]
    columns = ("source", "rows", *(FAULTS[name].heading for name in names))
    if len(cells) == 1:
        return Rows(columns, cells)
    return Rows(columns, [*cells, ["all", audit.rows, *sums]], total=True)


def length_table(audit: Audit, side: str) -> Rows:
    """Half and 99 in 100 of one side's texts are no longer than that, and what is cut."""
    cells: list[list[object]] = [
        [name, *length_cells(lengths_of(source)[side])] for name, source in audit.sources.items()
    ]
    return drop_empty(Rows(("source", "50 %", "95 %", "99 %", "longest", "limit", "cut"), cells))


def lengths_of(source: SourceAudit) -> Mapping[str, Lengths]:
    """Lengths in tokens where they were counted, else in words."""
    return source.sampled.lengths or source.words


def length_cells(lengths: Lengths) -> list[object]:
    """The cells of one source."""
    cut = None if lengths.cut_fraction is None else f"{lengths.cut_fraction:.1%}"
    return [*(lengths.percentiles[percent] for percent in (50, 95, 99, 100)), lengths.limit, cut]


def drop_empty(rows: Rows, nothing: object = None) -> Rows:
    """Without the columns in which every cell is `nothing`."""
    places = range(len(rows.columns))
    kept = [place for place in places if any(line[place] != nothing for line in rows.cells)]
    columns = tuple(rows.columns[place] for place in kept)
    return Rows(columns, [[line[place] for place in kept] for line in rows.cells], rows.total)


def language_shares(audit: Audit) -> list[tuple[str, dict[str, float]]]:
    """By source and side, the share of each language; the rarer ones together."""
    counts = {
        (name, side): source.sampled.languages[side]
        for name, source in audit.sources.items()
        for side in SIDES
    }
    weights: defaultdict[str, float] = defaultdict(float)
    for count in counts.values():
        for language, times in count.items():
            weights[language] += times / sum(count.values())
    weights.pop(UNSURE, None)
    common = [language for language, weight in weights.items() if weight >= SHOWN_FRACTION * len(counts)]
    shown = sorted(common, key=lambda language: -weights[language])[:SHOWN_LANGUAGES]
    return [(f"{name}, {side}", shares_of(count, shown)) for (name, side), count in counts.items()]


def shares_of(count: Mapping[str, int], shown: list[str]) -> dict[str, float]:
    """Shares of the languages shown, of the others together, and of what nobody could tell."""
    total = max(sum(count.values()), 1)
    shares = {language: count.get(language, 0) / total for language in shown}
    unsure = count.get(UNSURE, 0) / total
    return {**shares, OTHER: max(0.0, 1 - sum(shares.values()) - unsure), UNSURE: unsure}


def language_table(audit: Audit) -> Rows:
    """The commonest languages of queries and positives."""
    cells: list[list[object]] = [
        [name, *(main_languages(source.sampled.languages[side]) for side in SIDES)]
        for name, source in audit.sources.items()
    ]
    return Rows(("source", *(f"{side} languages" for side in SIDES)), cells)


def main_languages(count: Mapping[str, int], most: int = 3) -> str:
    """`en 97%, unsure 2%`: the commonest, which come first, that make at least 1 %."""
    total = max(sum(count.values()), 1)
    common = [(language, times) for language, times in count.items() if times * 100 >= total]
    return ", ".join(f"{language} {times / total:.0%}" for language, times in common[:most])


def label_table(audit: Audit) -> Rows:
    """How the rows of labelled sources spread over their labels."""
    columns = ("source", "labels", "commonest", "rarest", "evenness", "rows without")
    cells: list[list[object]] = []
    for name, source in audit.sources.items():
        labels = source.labels
        if labels.num_labels:
            label, times = next(iter(labels.top.items()))
            share = f"{label} ({times / source.rows:.1%})"
            evenness = labels.evenness
            cells.append([name, labels.num_labels, share, labels.smallest, evenness, labels.unlabelled_rows])
    return Rows(columns, cells)


def test_table(audit: Audit) -> Rows:
    """How much of each test set stands in the rows, and in which source most of it."""
    cells: list[list[object]] = []
    for part in audit.test:
        worst = max(part.by_source, key=lambda name: part.by_source[name], default=None)
        where = f"{worst} ({part.by_source[worst]:,})" if worst and part.by_source[worst] else None
        share = f"{part.touched / max(part.texts, 1):.1%}"
        cells.append([part.task, part.side, part.texts, part.touched, share, part.short, where])
    return Rows(("test data", "side", "texts", "found", "share", "of these short", "most in source"), cells)


def between_table(audit: Audit) -> Rows:
    """Duplicates of rows of another source."""
    cells: list[list[object]] = [
        [later, earlier, FAULTS[fault].title, count]
        for (later, earlier, fault), count in audit.between.items()
        if later != earlier
    ]
    return Rows(("source", "repeats rows of", "as", "rows"), cells)


def licence_table(audit: Audit) -> Rows:
    """What the files beside the rows say."""
    cells: list[list[object]] = [
        [name, source.licence.stated or NOT_STATED, source.licence.mteb_overlap]
        for name, source in audit.sources.items()
    ]
    return drop_empty(Rows(("source", "licence", "MTEB overlap"), cells))
