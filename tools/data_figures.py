"""One measurement of data_scale.py in a process of its own: `python tools/data_figures.py JSON` prints JSON.

The JSON names a `part` and what it needs. Seconds are measured around the work alone, without imports;
`cpu_seconds` tell what an idle machine would need at most. Memory is the peak of anonymous memory while the
part works: what the system cannot drop and read again, as it can the pages of mapped files.
"""

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.config.sources import Mixture  # noqa: E402
from embedtrain.data.rows import Row  # noqa: E402
from embedtrain.data.store import RowStore, open_rows, write_store  # noqa: E402
from embedtrain.mixture import Plan, row_keys  # noqa: E402

STATUS = Path("/proc/self/status")
EVERY_SECONDS = 0.02
Figures = dict[str, Any]


def anonymous_bytes() -> int:
    """Anonymous memory of this process now."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


@contextmanager
def measured() -> Iterator[Figures]:
    """Seconds, CPU seconds and the peak of anonymous memory of what is done inside."""
    figures: Figures = {"peak_bytes": anonymous_bytes()}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_SECONDS):
            figures["peak_bytes"] = max(figures["peak_bytes"], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, cpu = time.monotonic(), time.process_time()
    try:
        yield figures
    finally:
        figures["seconds"], figures["cpu_seconds"] = time.monotonic() - start, time.process_time() - cpu
        done.set()
        watcher.join()


def make_rows(asked: Figures) -> Figures:
    """Write `rows` as a folder, paired anew with their own positives `rounds` apart where they are too few.

    Row i of round r has the query of row i and the positives of row i + r x 7919, both of the same source.
    """
    rows = open_rows(asked["rows"])
    wanted, size = asked["wanted"], len(rows)

    def pairs() -> Iterator[Row]:
        for number in range(wanted):
            turn, place = divmod(number, size)
            query = rows[place]
            positives = rows[(place + turn * 7919) % size].positives if turn else query.positives
            yield Row(query.query, positives, label=query.label, instruction=query.instruction)

    write_store(Path(asked["out"]), pairs())
    return {"rows": wanted}


def read(asked: Figures) -> Figures:
    """Open all folders: the first time their files are made, later only mapped."""
    with measured() as figures:
        stores = open_all(asked)
    rows = sum(map(len, stores.values()))
    texts = sum(store.num_texts for store in stores.values())
    return figures | {"rows": rows, "texts": texts, "distinct_rows": distinct(stores)}


def distinct(stores: Mapping[str, RowStore]) -> int:
    """Different pairs of a query and a first positive."""
    keys = [
        np.stack([s.keys_M[s.query_N], s.keys_M[s.positive_P[s.positive_starts[:-1]]]])
        for s in stores.values()
    ]
    return len(np.unique(np.concatenate(keys, axis=1), axis=1).T)


def plan(asked: Figures) -> Figures:
    """Make every batch of a run, by index arrays alone; memory is also taken after a tenth of the steps."""
    stores = open_all(asked)
    with measured() as figures:
        keys = {name: row_keys(store) for name, store in stores.items()}
        sizes = dict.fromkeys(keys, int(asked["batch_size"]))
        mixture = Mixture.model_validate(asked["mixture"])
        planned = Plan(keys, dict.fromkeys(keys, 1.0), mixture, sizes, asked["steps"], seed=7)
        figures |= walk(planned)
    rows = sum(map(len, keys.values()))
    return figures | {"rows": rows, "batches": len(planned), "step_alone_seconds": time_alone(planned)}


def walk(planned: Plan) -> Figures:
    """Make every batch: rows and swaps counted, and how much memory grew after the first tenth."""
    rows = swapped = early = 0
    for batch in planned:
        rows += len(batch)
        swapped += batch.swapped
        if batch.step == len(planned) // 10:
            early = anonymous_bytes()
    return {"rows_planned": rows, "swapped": swapped, "growth_bytes": anonymous_bytes() - early}


def time_alone(planned: Plan) -> float:
    """Seconds to plan one step by itself, on average over some from the middle of the run."""
    steps = range(len(planned))[len(planned) // 2 :][:50]
    start = time.monotonic()
    for step in steps:
        planned[step]
    return (time.monotonic() - start) / len(steps)


def audit(asked: Figures) -> Figures:
    """Audit all sources together, as `embedtrain audit` does; its summary is not shown."""
    from embedtrain.stages.audit import audit_sources

    with measured() as figures, redirect_stdout(io.StringIO()):
        audit_sources([Path(path) for path in asked["rows"].values()], asked["test_data"])
    return figures | {"rows": sum(map(len, open_all(asked).values()))}


def open_all(asked: Figures) -> dict[str, RowStore]:
    """The stores of all sources."""
    return {name: open_rows(path) for name, path in asked["rows"].items()}


PARTS: dict[str, Callable[[Figures], Figures]] = {
    "make": make_rows,
    "read": read,
    "plan": plan,
    "audit": audit,
}

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    print(json.dumps(PARTS[request["part"]](request)))
