"""What is measured on a fixed random sample of rows: lengths in tokens, what is cut, and languages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.data.audit.languages import count_languages
from embedtrain.data.rows import Row, text_key
from embedtrain.text import SourceText, format_document, format_query

SEED = 0
PERCENTS = (5, 25, 50, 75, 95, 99, 100)
SIDES = ("query", "positive")

CountTokens = Callable[[list[str]], list[int]]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Percentiles of one side's texts, by percent; the limit, and the share of texts above it."""

    percentiles: Mapping[int, int]
    limit: int | None = None
    cut_fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the sample of a source tells. `languages` counts texts; `lengths` are of tokens, by side."""

    num_rows: int
    languages: Mapping[str, Mapping[str, int]]
    lengths: Mapping[str, Lengths]


def split_sample(sizes: Mapping[str, int], sample: int) -> dict[str, int]:
    """How many rows are drawn of each source: as many of each as can be, all of the small ones."""
    shares: dict[str, int] = {}
    left = sample
    for place, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        shares[name] = min(size, left // (len(sizes) - place))
        left -= shares[name]
    return shares


def draw_rows(name: str, size: int, number: int) -> np.ndarray:
    """Row numbers, ascending; the same whatever else is audited."""
    generator = np.random.default_rng([SEED, text_key(name) % 2**64])
    return np.sort(generator.permutation(size)[:number])


def measure_sample(rows: Sequence[Row], how: SourceText | None, count_tokens: CountTokens | None) -> Sampled:
    """Languages, and, where there is a tokenizer, lengths as the model sees the texts (special tokens too).

    Without `how` (no run) the bare texts are counted, and no limit is known. In-context examples are not
    counted: they have a budget of their own. Of each row the query and the first positive count.
    """
    texts = {"query": [row.query for row in rows], "positive": [row.positives[0] for row in rows]}
    languages = {side: count_languages(of_side) for side, of_side in texts.items()}
    if count_tokens is None:
        return Sampled(len(rows), languages, {})
    if how is not None:
        texts = {
            "query": [format_query(how, row.query, row.instruction).text for row in rows],
            "positive": [
                format_document(how, row.positives[0], text_key(row.positives[0]), row.instruction).text
                for row in rows
            ],
        }
    limits = (None, None) if how is None else (how.max_query_tokens, how.max_document_tokens)
    lengths = {
        side: measure_lengths(np.array(count_tokens(texts[side])), limit)
        for side, limit in zip(SIDES, limits, strict=True)
    }
    return Sampled(len(rows), languages, lengths)


def measure_lengths(lengths_T: np.ndarray, limit: int | None = None) -> Lengths:
    """Percentiles of lengths, each one that occurs; what lies above the limit is cut."""
    values = np.percentile(lengths_T, PERCENTS, method="higher").astype(int).tolist()
    percentiles = dict(zip(PERCENTS, values, strict=True))
    return Lengths(percentiles, limit, None if limit is None else float((lengths_T > limit).mean()))
