"""Leaves out of the sources what an audit finds wrong, and counts what each rule removed."""

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from embedtrain.artifacts import write_json
from embedtrain.config.errors import UserError
from embedtrain.config.stages import Filter
from embedtrain.data.audit.contamination import index_test_texts
from embedtrain.data.audit.examined import examine
from embedtrain.data.filters import RULES, count_removed, judge_rows, kept_rows
from embedtrain.data.store import open_source, write_store
from embedtrain.show.tables import print_table
from embedtrain.stages.context import StageContext
from embedtrain.stages.held_out import read_test_texts

REMOVED = "removed.json"
Counts = dict[str, Any]


def run_stage(context: StageContext) -> dict[str, object]:
    """Write rows/<source>/ and removed.json; the facts are the counts, by source."""
    stage = context.stage
    assert isinstance(stage, Filter)
    sources = context.run.sources
    names = stage.sources or [name for name, source in sources.items() if source.weight > 0]
    stores = {name: open_source(sources[name], name, context.seed) for name in names}
    test = index_test_texts(read_test_texts(stage.test_data), stage.ngram_words) if stage.test_data else None
    with ExitStack() as stack:
        scratch = None
        if stage.near_duplicates is not None:
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="embedtrain-filter-")))
        examined = examine(stores, test=test, scratch=scratch)
        judgment = judge_rows(examined, stage)
    removed = {name: count_removed(examined, judgment, number) for number, name in enumerate(names)}
    refuse_empty(stage.name, removed)
    shutil.rmtree(context.folder / "rows", ignore_errors=True)  # of an attempt that was stopped
    for number, name in enumerate(names):
        facts = {"filtered": removed[name]}
        write_store(context.folder / "rows" / name, kept_rows(examined, judgment, number), facts=facts)
    write_json(context.folder / REMOVED, removed)
    print_removed(removed)
    return {"sources": removed}


def refuse_empty(stage: str, removed: Mapping[str, Counts]) -> None:
    """A UserError where a source has no row left, with the rule that took most."""
    for name, counts in removed.items():
        if not counts["kept"]:
            rule, most = max(counts["removed"].items(), key=lambda item: item[1])
            raise UserError(
                f"stage '{stage}': its rules leave none of the {counts['rows']:,} rows of source '{name}'; "
                f"{rule} alone removes {most:,}: loosen it, or leave the source out with `sources`"
            )


def print_removed(removed: Mapping[str, Counts]) -> None:
    """A table of what each rule removed."""
    used = [rule for rule in RULES if any(counts["removed"][rule] for counts in removed.values())]
    texts = ("positives_removed", "negatives_removed")
    shown = [key for key in texts if any(counts[key] for counts in removed.values())]
    print_table(
        "Filtered: rows, and what each rule removed",
        ["source", "rows", *(name.replace("_", " ") for name in (*used, *shown)), "kept"],
        [
            [name, c["rows"], *(c["removed"][rule] for rule in used), *(c[key] for key in shown), c["kept"]]
            for name, c in removed.items()
        ],
    )
