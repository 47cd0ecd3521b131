"""A store's memory does not grow with its rows, and several processes may open one at the same time."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from embedtrain.data.rows import Row, write_rows

MEASURE = """
    import json, sys
    from pathlib import Path
    from embedtrain.data.rows import Row
    from embedtrain.data.store import open_rows, write_store

    def anonymous_mb():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    def rows(number):
        for n in range(number):
            document = f"document {n} " + "word " * 30
            yield Row(f"query {n} of many", (document,), (f"another {n}",), label=f"class {n % 9}")

    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    figures = {"start": anonymous_mb()}
    write_store(folder, rows(number))
    figures["written"] = anonymous_mb()
    store = open_rows(folder)
    figures["opened"] = anonymous_mb()
    total = sum(len(store.text(int(place))) for place in store.query_N[:: 101])
    assert store[len(store) - 1].query == f"query {number - 1} of many" and total
    print(json.dumps(figures | {"read": anonymous_mb()}))
"""
OPEN = """
    import sys
    from embedtrain.data.store import open_rows
    store = open_rows(sys.argv[1])
    print(store.folder, len(store), store[len(store) - 1].query)
"""


def start(code: str, *words: object, cache: Path) -> subprocess.Popen[str]:
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "EMBEDTRAIN_CACHE": str(cache)}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, words)]
    return subprocess.Popen(command, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads anonymous memory from /proc")
def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    """The premise is in the files: 200,000 rows hold over 30 MB of text."""
    grown = []
    for number in (20_000, 200_000):
        done = start(MEASURE, tmp_path / f"rows{number}", number, cache=tmp_path / f"cache{number}")
        out, errors = done.communicate(timeout=500)
        assert done.returncode == 0, errors
        figures = json.loads(out)
        grown.append({name: value - figures["start"] for name, value in figures.items()})
    texts = sum(path.stat().st_size for path in (tmp_path / "cache200000").rglob("texts.utf8"))
    assert texts > 30e6
    assert all(grown[1][name] < grown[0][name] + 12 for name in grown[1]), grown


def test_processes_that_open_the_same_rows_at_once(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", [Row(f"query {n}", (f"d {n}",)) for n in range(3000)])
    opened = [start(OPEN, path, cache=tmp_path / "cache") for _ in range(3)]
    results = [one.communicate(timeout=120) for one in opened]
    assert [one.returncode for one in opened] == [0, 0, 0], results
    assert len({out for out, _ in results}) == 1
    assert results[0][0].split()[1:] == ["3000", "query", "2999"]
    assert sum("3,000 lines" in errors for _, errors in results) == 1  # one built, two waited
