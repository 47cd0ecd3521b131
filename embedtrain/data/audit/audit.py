"""The audit of several sources together: every text is read once, languages and tokens are sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from embedtrain.data.audit.contamination import TestIndex, longest_shared_run
from embedtrain.data.audit.examined import Examined, examine
from embedtrain.data.audit.faults import FAULTS, NONE, find_faults
from embedtrain.data.audit.licences import read_licence
from embedtrain.data.audit.result import Audit, Example, Labels, SourceAudit, TestOverlap
from embedtrain.data.audit.sample import (
    CountTokens,
    Sampled,
    draw_rows,
    measure_lengths,
    measure_sample,
    split_sample,
)
from embedtrain.data.store import RowStore
from embedtrain.show.progress import progress
from embedtrain.text import SourceText

SAMPLE_ROWS = 20_000
EXAMPLES = 3  # of each fault, by source
TOP_LABELS = 5


@dataclass(frozen=True, slots=True)
class AuditedSource:
    """Rows to audit: where they lie, and, for a run's source, how its texts are written."""

    path: Path
    store: RowStore
    how: SourceText | None = None


def audit_stores(
    sources: Mapping[str, AuditedSource],
    *,
    test: TestIndex | None = None,
    count_tokens: CountTokens | None = None,
    sample: int = SAMPLE_ROWS,
) -> Audit:
    """Audit the sources together: duplicates and conflicts are found across them too.

    Every distinct text is read once; languages and lengths in tokens are told on `sample` rows, spread over
    the sources, the same in every audit.
    """
    stores = {name: source.store for name, source in sources.items()}
    with TemporaryDirectory(prefix="embedtrain-audit-") as scratch:
        examined = examine(stores, test=test, scratch=Path(scratch))
        faults = find_faults(examined)
    drawn = split_sample({name: len(store) for name, store in stores.items()}, sample)
    audits = {}
    with progress("sample of rows", total=sum(drawn.values()), unit="row") as bar:
        for number, (name, source) in enumerate(sources.items()):
            rows = [source.store[i] for i in draw_rows(name, len(source.store), drawn[name]).tolist()]
            sampled = measure_sample(rows, source.how, count_tokens)
            audits[name] = audit_source(source, number, examined, faults, sampled)
            bar.advance(len(rows))
    return Audit(
        audits,
        measure_overlaps(examined),
        None if test is None else test.num_words,
        count_between(examined, faults),
    )


def audit_source(
    source: AuditedSource,
    number: int,
    examined: Examined,
    faults: Mapping[str, np.ndarray],
    sampled: Sampled,
) -> SourceAudit:
    """What was found in source `number`."""
    store = source.store
    first, last = examined.bounds[number : number + 2].tolist()
    positives = slice(*examined.positive_starts[[first, last]])
    found = {name: first + np.flatnonzero(against[first:last] != NONE) for name, against in faults.items()}
    return SourceAudit(
        path=str(source.path),
        rows=len(store),
        texts=len(np.unique(np.concatenate([store.query_N, store.positive_P, store.negative_Q]))),
        positives=len(store.positive_P),
        negatives=len(store.negative_Q),
        instructions=len(np.unique(store.instruction_N[store.instruction_N >= 0])),
        words={
            "query": measure_lengths(examined.query_words_N[first:last]),
            "positive": measure_lengths(examined.positive_words_P[positives]),
        },
        faults={name: len(rows) for name, rows in found.items()},
        examples={
            name: [show_row(examined, name, row, int(faults[name][row])) for row in rows[:EXAMPLES].tolist()]
            for name, rows in found.items()
            if len(rows)
        },
        sampled=sampled,
        labels=count_labels(store),
        licence=read_licence(source.path),
    )


def show_row(examined: Examined, fault: str, row: int, against: int) -> Example:
    """A row with a fault, as an example."""
    _, store, number = examined.place(row)
    shown = store[number]
    example = Example(number + 1, shown.query, shown.positives[0])
    if FAULTS[fault].against == "test" and examined.test is not None:
        text = examined.test.texts[against]
        shared = longest_shared_run([shown.query, *shown.positives, *shown.negatives], text.text)
        return replace(example, where=f"{text.task}, {text.side}", against=text.text, shared=shared)
    if FAULTS[fault].against == "row":
        name, other_store, other = examined.place(against)
        held = other_store[other]
        return replace(
            example, where=f"{name}, row {other + 1:,}", against=f"{held.query} → {held.positives[0]}"
        )
    return example


def count_labels(store: RowStore) -> Labels:
    """How the rows spread over the labels."""
    labelled = store.label_N[store.label_N >= 0]
    counts = np.bincount(labelled, minlength=len(store.labels))
    order = [int(code) for code in np.argsort(-counts, kind="stable") if counts[code]]
    shares = counts[order] / max(len(labelled), 1)
    evenness = float(-(shares * np.log(shares)).sum() / np.log(len(order))) if len(order) > 1 else None
    return Labels(
        num_labels=len(order),
        unlabelled_rows=len(store) - len(labelled),
        top={store.labels[code]: int(counts[code]) for code in order[:TOP_LABELS]},
        smallest=int(counts[order[-1]]) if order else 0,
        evenness=evenness,
    )


def measure_overlaps(examined: Examined) -> list[TestOverlap]:
    """For each side of each test set, how much of it stands in the rows."""
    test = examined.test
    if test is None:
        return []
    touched = {
        name: test.count_touched(seen_U) for name, seen_U in zip(examined.sources, examined.seen, strict=True)
    }
    anywhere = np.any(examined.seen, axis=0)
    whole, short = test.count_touched(anywhere), test.count_touched(anywhere, short=True)
    return [
        TestOverlap(*part, count, whole[part], short[part], {name: n[part] for name, n in touched.items()})
        for part, count in test.count_texts().items()
    ]


def count_between(examined: Examined, faults: Mapping[str, np.ndarray]) -> dict[tuple[str, str, str], int]:
    """Duplicates by (source of the later row, of the earlier row, fault)."""
    counts: dict[tuple[str, str, str], int] = {}
    for fault in ("exact_duplicates", "near_duplicates"):
        rows = np.flatnonzero(faults[fault] != NONE)
        later, earlier = (
            np.searchsorted(examined.bounds, numbers, side="right") - 1
            for numbers in (rows, faults[fault][rows])
        )
        pairs, times = np.unique(np.stack([later, earlier]), axis=1, return_counts=True)
        for (a, b), count in zip(pairs.T.tolist(), times.tolist(), strict=True):
            counts[examined.sources[a], examined.sources[b], fault] = count
    return counts
