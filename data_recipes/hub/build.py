"""Finds the published sets, and builds one: its records are streamed and written as rows with a card."""

import argparse
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from data_recipes import hub as package
from data_recipes.fetch import say
from data_recipes.hub.card import HubSet, card_text
from embedtrain.artifacts import write_atomic
from embedtrain.config.errors import UserError
from embedtrain.data.counts import count_rows
from embedtrain.data.formats.hub import import_datasets
from embedtrain.data.formats.record import Record
from embedtrain.data.formats.request import read_path
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row
from embedtrain.data.store import write_store

SAY_EVERY = 100_000  # records


def hub_sets() -> dict[str, HubSet]:
    """Name → published set, in order of names."""
    found: dict[str, HubSet] = {}
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        for hub in vars(importlib.import_module(info.name)).get("SETS", ()):
            found[hub.name] = hub
    return dict(sorted(found.items()))


def read_arguments(hub: HubSet, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of a build; the folder of another config than the usual is named after it."""
    parser = argparse.ArgumentParser(f"python -m data_recipes build {hub.name}", description=hub.title)
    parser.add_argument("--out", type=Path, help=f"folder to write (default: build/rows/{hub.name})")
    parser.add_argument("--rows", type=int, help="stop after so many rows (default: all)")
    parser.add_argument("--config", default=hub.config, help="config of the set (default: %(default)s)")
    parser.add_argument("--split", default=hub.split, help="split to read (default: %(default)s)")
    parser.add_argument("--files", type=Path, help="read this file or folder instead of the hub")
    args = parser.parse_args(arguments)
    args.name = hub.name if args.config == hub.config else f"{hub.name}-{args.config}"
    args.out = args.out or Path("build/rows") / args.name
    return args


def build_hub(hub: HubSet, arguments: Sequence[str]) -> None:
    """Write a folder of rows with a card. Raises UserError with all faults and writes nothing then."""
    args = read_arguments(hub, arguments)
    hub = replace(hub, name=args.name, config=args.config, split=args.split)
    problems = Problems()
    records = read_path(str(args.files), None, problems) if args.files else read_hub(hub)
    rows = make_all(hub, counted(records), problems)
    say(f"{hub.title}: {args.files or hub.hub_id}")
    write_store(args.out, whole(islice(rows, args.rows), problems), facts={"source": hub.name})
    told = f"{count_rows(args.out):,} rows"
    write_atomic(args.out / "card.md", card_text(hub, f"{told} from {args.files or 'the hub'}."))
    say(f"{args.out}: {told}")


def make_all(hub: HubSet, records: Iterator[Record], problems: Problems) -> Iterator[Row]:
    """The rows of a set; one without a source of its own gets the set's name."""
    for row in hub.make_rows(records, problems):
        yield row if row.source else replace(row, source=hub.name)


def whole(rows: Iterator[Row], problems: Problems) -> Iterator[Row]:
    """The rows; raises UserError behind the last where a record was wrong."""
    yield from rows
    problems.require()


def counted(records: Iterator[Record]) -> Iterator[Record]:
    """The records; tells how many were read."""
    for number, record in enumerate(records, 1):
        yield record
        if number % SAY_EVERY == 0:
            say(f"  {number:,} records")


def read_hub(hub: HubSet) -> Iterator[Record]:
    """The records, streamed from the hub; of several splits one after another."""
    if hub.by_hand:
        raise UserError(f"{hub.name}: not on the hub. {hub.by_hand}")
    try:
        found = open_hub(hub)
        for split, rows in found.items() if isinstance(found, dict) else [(hub.split, found)]:
            for number, values in enumerate(rows, 1):
                yield Record(f"{hub.hub_id}[{split}]:{number}", values)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{hub.hub_id}: cannot be read: {error}") from None


def open_hub(hub: HubSet) -> Any:
    """The set as `datasets` streams it: one split, or all by name."""
    load = import_datasets(hub.name).load_dataset
    if not hub.files:
        return load(hub.hub_id, hub.config, split=hub.split, revision=hub.revision, streaming=True)
    urls = [f"hf://datasets/{hub.hub_id}@{hub.revision}/{file}" for file in hub.files]
    return load("json", data_files={"train": urls}, split="train", streaming=True)
