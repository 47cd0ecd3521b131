"""What is known of a published set: where it is, its schema, its licence, and which tests it may spoil."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from embedtrain.data.formats.record import Record
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row

MakeRows = Callable[[Iterable[Record], Problems], Iterator[Row]]
TEXT, TEXTS = pa.string(), pa.list_(pa.string())


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """A published set and the conversion of its records.

    `licence`: in a few words; `terms`: what else is known of it. `hub_id`: owner/name; `config`, `split`
    and `revision` choose what is read, a split of None all splits.
    `files`: read these files of the repository instead, where it has a loading script, which `datasets` no
    longer runs. `by_hand`: not on the hub; how to fetch it. `columns`: the schema of the records;
    `schema_from` and `num_rows_from` say who told. `overlap`: MTEB tasks whose texts or training parts it
    holds; `overlap_from` says who told. `make_rows`: records to rows.
    """

    name: str
    title: str
    task: str
    hub_id: str
    licence: str
    terms: str
    made: str
    columns: pa.Schema
    schema_from: str
    overlap: tuple[str, ...]
    overlap_from: str
    make_rows: MakeRows
    config: str | None = None
    split: str | None = "train"
    revision: str = "main"
    files: tuple[str, ...] = ()
    by_hand: str | None = None
    num_rows: int | None = None
    num_rows_from: str = ""
    notes: str = ""


def short_overlap(tasks: tuple[str, ...], most: int = 1) -> str:
    """The first tasks, and how many more."""
    more = len(tasks) - most
    return ", ".join(tasks[:most]) + (f" and {more} more" if more > 0 else "") or "none known"


def card_text(hub: HubSet, built: str = "") -> str:
    """The card as Markdown; `built` tells of a build."""
    where = hub.by_hand or f"https://huggingface.co/datasets/{hub.hub_id} (revision `{hub.revision}`)"
    counted = f"{hub.num_rows:,} ({hub.num_rows_from})" if hub.num_rows else "not stated by the publisher"
    schema = ", ".join(f"`{column.name}`: {column.type}" for column in hub.columns)
    parts = {
        "Origin": f"{where}\nConfig: {hub.config or 'the default'}; split: {hub.split or 'all'}.",
        "Licence": f"{hub.licence}. {hub.terms}",
        "Counts": f"Records as published: {counted}.",
        "Schema": f"{schema}\nFrom {hub.schema_from}; the set itself was not downloaded to write this.",
        "How rows are made": f"{hub.made} Task: {hub.task}. {hub.notes}".strip(),
        "MTEB overlap": f"{', '.join(hub.overlap) or 'none known'}\nFrom {hub.overlap_from}.",
    }
    body = "\n\n".join(f"## {head}\n\n{text}" for head, text in parts.items())
    end = f"\n\n## This build\n\n{built}" if built else ""
    return f"# {hub.title}\n\n{body}{end}\n"
