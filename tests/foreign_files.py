"""Files to convert, and the faults that a conversion tells."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from embedtrain.config.errors import UserError
from embedtrain.data.formats.request import Request
from embedtrain.data.formats.table import FORMATS, detect_format
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row
from embedtrain.stages.convert import convert_files

GOOD = [
    {"query": "why mulch", "pos": ["It keeps soil moist."], "neg": ["Gravel is heavy.", "Sold by the bag."]},
    {"query": "when to mulch", "pos": ["In late spring."], "meta": {"id": 3}},
    {"query": "what is mulch", "pos": ["A cover of the soil."], "prompt": "Define it"},
]


def write_lines(name: str, *records: Any) -> str:
    """Write one JSON value a line; text is written as it is."""
    lines = (record if isinstance(record, str) else json.dumps(record) for record in records)
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def faults(*paths: str, **options: Any) -> list[str]:
    """The lines of the error of a conversion; nothing is left of it."""
    with pytest.raises(UserError) as error:
        convert_files(list(paths), Path("out"), **options)
    assert not Path("out").exists()
    assert not list(Path().glob(".*")), "something was left beside"
    return str(error.value).splitlines()


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def read_all(path: Path | str, name: str | None = None, **more: Any) -> list[Row]:
    """The rows of a path, read in the format given or detected; every fault is raised."""
    problems = Problems()
    request = Request(str(path), problems, **more)
    rows = [row for _, row in FORMATS[name or detect_format(request)[0]].read(request)]
    problems.require()
    return rows


def read_record(folder: Path, record: Mapping[str, Any], name: str | None = None, **more: Any) -> Row:
    """The row of one record."""
    rows = read_all(write_records(folder / "one.jsonl", [record]), name, **more)
    assert len(rows) == 1
    return rows[0]
