"""All formats by name, and which of them a path is written in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedtrain.config.errors import UserError, nearest
from embedtrain.data.formats import (
    beir,
    canonical,
    columns,
    flagembedding,
    msmarco,
    nemo,
    pylate,
    swift,
    tevatron,
    triplets,
)
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample, take_sample


@dataclass(frozen=True, slots=True)
class Format:
    """`detect` says why a sample may be of this format, or None; `read` yields rows with their places.

    `keys` are those that are read; none means all.
    """

    shape: str
    detect: Callable[[Sample], str | None]
    read: Callable[[Request], Iterator[Placed]]
    keys: tuple[str, ...] = ()


FORMATS = {
    "rows": Format("embedtrain's own rows", canonical.detect, canonical.read),
    "flagembedding": Format(
        "query, pos, neg, pos_scores, neg_scores, prompt, type",
        flagembedding.detect,
        flagembedding.read,
        flagembedding.KEYS,
    ),
    "columns": Format("query, positive, negatives, label by name or position", columns.detect, columns.read),
    "triplets": Format(
        "query, positive, negative; the file's name is the source",
        triplets.detect,
        triplets.read,
        triplets.KEYS,
    ),
    "tevatron": Format(
        "query, positive_passages, negative_passages",
        tevatron.detect_inline,
        tevatron.read_inline,
        tevatron.KEYS,
    ),
    "tevatron_ids": Format(
        "query_text, positive_document_ids, negative_document_ids, with --corpus",
        tevatron.detect_by_id,
        tevatron.read_by_id,
        tevatron.KEYS,
    ),
    "swift": Format("messages, positive_messages, negative_messages", swift.detect, swift.read, swift.KEYS),
    "swift_old": Format(
        "query, response, rejected_response", swift.detect_old, swift.read_old, swift.OLD_KEYS
    ),
    "nemo": Format(
        "query or question, pos_doc, neg_doc as texts", nemo.detect_inline, nemo.read_inline, nemo.KEYS
    ),
    "nemo_ids": Format(
        "a JSON file of questions with document ids, and its corpora",
        nemo.detect_by_id,
        nemo.read_by_id,
        (*nemo.KEYS, "corpus", "data"),
    ),
    "beir": Format("a folder of corpus.jsonl, queries.jsonl, qrels/", beir.detect, beir.read),
    "msmarco": Format("collection.tsv, queries.tsv, qrels.tsv, or triples", msmarco.detect, msmarco.read),
    "pylate": Format(
        "query_id, document_ids, scores, with queries and documents", pylate.detect, pylate.read, pylate.KEYS
    ),
}


def find_format(name: str) -> Format:
    """The format of a name. Raises UserError where there is none."""
    if name not in FORMATS:
        raise UserError(f"--format {name}: no such format; {nearest(name, FORMATS)}")
    return FORMATS[name]


def detect_format(request: Request) -> tuple[str, Sample]:
    """Name of the one format that a path may be written in. Raises UserError where none or several may."""
    sample = take_sample(request)
    reasons = {name: reason for name, one in FORMATS.items() if (reason := one.detect(sample))}
    if len(reasons) == 1:
        return next(iter(reasons)), sample
    if reasons:
        lines = [f"  --format {name}: {reason}" for name, reason in reasons.items()]
        raise UserError("\n".join([f"{request.path}: may be of several formats; choose one", *lines]))
    if sample.first is None and not sample.names:
        sample.problems.require()
        raise UserError(f"{request.path}: no rows; expected at least one")
    raise UserError(f"{request.path}: no known format\n{unknown_text(sample)}")


def unknown_text(sample: Sample) -> str:
    """What was found, and what would be known."""
    found = (
        f"its keys are {', '.join(sample.keys)}"
        if sample.keys
        else f"it holds {', '.join(sample.names[:10])}"
    )
    known = "\n".join(f"  {name:14} {one.shape}" for name, one in FORMATS.items())
    return (
        f"  {found}\n  known formats:\n{known}\n"
        "  other columns: name them, as in --column query=question --column positive=answer, or "
        "read them by position with --format columns; classes, graded or judged pairs need a --task"
    )


def unused_keys(name: str, sample: Sample) -> list[str]:
    """Keys of the first record that the format does not read."""
    known = FORMATS[name].keys
    return [key for key in sample.keys if known and key not in known]
