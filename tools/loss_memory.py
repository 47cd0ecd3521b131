"""Memory that InfoNCE needs beside its vectors, and its time: `python tools/loss_memory.py`.

Each figure is the difference between the peaks of two processes (tools/loss_peak.py). Both make the same raw
float32 vectors and have run the term on a tiny batch. Then the *baseline* only fills the vectors' gradients,
while the other runs the term forward and backward, which leaves the same gradients. So the figure holds all
that the loss has for a while: unit vectors and their graph, scores, masks, and sums of gradients.

Seconds and CPU-seconds are those of the one run, forward and backward.

The streamed path is measured at the full size; both paths at a size where the direct one fits, with the
difference of loss and gradients. Writes JSON, prints the verdict last; exits 1 where the streamed path takes
more than 1 GB (10^9 bytes) at the full size, or the paths differ by more than 1e-5.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402

MOST_BYTES = 10**9
MOST_DIFFERENCE = 1e-5
NEVER = 2**62
SIZE = "queries, candidates, dims"
COLUMNS = [
    "term",
    "path",
    "queries",
    "candidates",
    "dims",
    "one matrix, MB",
    "peak extra, MB",
    "seconds",
    "CPU-s",
    "loss",
]


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    full, small = tuple(args.size), tuple(args.direct_size)
    figures = [measure(term, "streamed", full, args) for term in args.terms]
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        for term in args.terms:
            kept = {path: Path(folder) / f"{term}_{path}.npz" for path in ("direct", "streamed")}
            direct, streamed = (measure(term, path, small, args, kept[path]) for path in kept)
            differences[term] = compare(direct, streamed, *kept.values())
            figures += [direct, streamed]
    faults = judge(figures[: len(args.terms)], differences)
    report(args.out, figures, differences, faults)
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Memory that InfoNCE needs beside its vectors")
    parser.add_argument("--size", type=int, nargs=3, default=[16_384, 131_072, 256], help=SIZE)
    parser.add_argument(
        "--direct-size", type=int, nargs=3, default=[4_096, 32_768, 256], help=f"{SIZE} where both fit"
    )
    parser.add_argument("--terms", nargs="+", choices=["plain", "full"], default=["plain", "full"])
    parser.add_argument("--chunk", type=int, help="scores of a chunk; absent: as the term has it")
    parser.add_argument(
        "--stream-above", type=int, help="scores that are streamed; absent: as the term has it"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/loss_memory/loss_memory.json")
    return parser.parse_args()


def measure(
    term: str, path: str, size: tuple[int, ...], args: argparse.Namespace, keep: Path | None = None
) -> dict[str, Any]:
    """One term on one path: its peak less the baseline's."""
    asked: dict[str, Any] = dict(zip(("queries", "candidates", "dims"), size, strict=True)) | {"term": term}
    given = {"chunk": args.chunk, "stream_above": NEVER if path == "direct" else args.stream_above}
    options = {name: value for name, value in given.items() if value is not None}
    baseline = run(asked | {"path": "baseline"})
    found = run(asked | {"path": path} | options | ({"keep": str(keep)} if keep else {}))
    extra = found["peak_bytes"] - baseline["peak_bytes"]
    matrix = 4 * asked["queries"] * asked["candidates"]
    figure = asked | {"path": path, "matrix_bytes": matrix, "extra_bytes": extra}
    return figure | {name: found[name] for name in ("seconds", "cpu_seconds", "loss")}


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """What a fresh process measures."""
    command = [sys.executable, str(ROOT / "tools" / "loss_peak.py"), json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"loss_memory: {asked} failed\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(direct: dict[str, Any], streamed: dict[str, Any], *kept: Path) -> dict[str, float]:
    """Relative difference of loss and gradients between the paths."""
    (expected, found) = (np.load(path) for path in kept)
    squares = [float(np.square(found[n] - expected[n], dtype=np.float64).sum()) for n in expected]
    norms = [float(np.square(expected[n], dtype=np.float64).sum()) for n in expected]
    loss = abs(streamed["loss"] - direct["loss"]) / abs(direct["loss"])
    return {"loss": loss, "gradients": float(np.sqrt(sum(squares) / sum(norms)))}


def judge(streamed: list[dict[str, Any]], differences: dict[str, dict[str, float]]) -> list[str]:
    """What is above its bound."""
    faults = [
        f"{f['term']}: peak extra {f['extra_bytes'] / 1e6:,.0f} MB, at most {MOST_BYTES / 1e6:,.0f}"
        for f in streamed
        if not f["extra_bytes"] <= MOST_BYTES
    ]
    return faults + [
        f"{term}: {name} of the paths differ by {value:.1e}, at most {MOST_DIFFERENCE}"
        for term, found in differences.items()
        for name, value in found.items()
        if not value <= MOST_DIFFERENCE
    ]


def report(
    out: Path, figures: list[dict[str, Any]], differences: dict[str, dict[str, float]], faults: list[str]
) -> None:
    """Print the tables and the verdict, and write the JSON."""
    write_json(out, {"figures": figures, "differences": differences, "passed": not faults})
    rows = [
        [
            *(f[name] for name in COLUMNS[:5]),
            f["matrix_bytes"] / 1e6,
            f["extra_bytes"] / 1e6,
            f["seconds"],
            f["cpu_seconds"],
            f["loss"],
        ]
        for f in figures
    ]
    print_table("Memory of InfoNCE beside its vectors and their gradients", COLUMNS, rows)
    cells = [[term, f"{d['loss']:.1e}", f"{d['gradients']:.1e}"] for term, d in differences.items()]
    print_table("Streamed against direct, relative", ["term", "loss", "gradients"], cells)
    for fault in faults:
        print(fault)
    print(f"loss_memory: {'FAILED' if faults else 'passed'}, JSON in {out}")


if __name__ == "__main__":
    sys.exit(main())
