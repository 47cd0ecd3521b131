"""How data scales: `python tools/data_scale.py` measures reading, planning and auditing, and judges them.

The rows are all that are there: those shipped in rows/ and those built in build/rows/. For a million, every
query is paired with other positives of its source too; no pair comes twice but where the source has it twice.
Each figure is taken in a process of its own (tools/data_figures.py). Writes JSON, prints the verdict last;
exits 1 where a bound is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.data.counts import count_rows  # noqa: E402
from embedtrain.mixture.schedule import source_shares, split_units  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "one source": {"kind": "one_source"},
    "blended": {"kind": "blended"},
    "half from one source": {"kind": "semi_homogeneous", "main_fraction": 0.5},
}
FLAT_BYTES = 32 * 10**6
Figures = dict[str, Any]
BOUNDS = {
    "seconds": "at most {:.0f} s",
    "peak_bytes": "peak at most {:.3g} bytes",
    "growth_bytes": "grows at most {:.2g} bytes",
}
COLUMNS = ("what", "rows", "seconds", "CPU seconds", "peak MB", "bound", "of the bound")


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    local = local_rows(args.rows)
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        figures = [*measure(args, local, Path(work))]
    faults = [fault for figure in figures for fault in judge(figure)]
    report(args.out, figures, faults)
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How reading, planning and auditing rows scale")
    parser.add_argument("--rows", type=Path, nargs="+", default=[ROOT / "rows", ROOT / "build/rows"])
    parser.add_argument("--num-rows", type=int, default=10**6, help="rows after pairing anew")
    parser.add_argument("--batches", type=int, default=10**6, help="batches of 64 to plan")
    parser.add_argument("--test-data", nargs="*", default=[str(ROOT / "rows/tests/faq")])
    parser.add_argument("--parts", nargs="+", choices=["plan", "audit"], default=["plan", "audit"])
    parser.add_argument("--work", type=Path, help="where to write meanwhile; absent: a temporary folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/data_scale/data_scale.json")
    return parser.parse_args()


def local_rows(folders: list[Path]) -> dict[str, str]:
    """Training rows by source, of all folders that are there."""
    files = [path for folder in folders for path in sorted(folder.glob("*/train.parquet"))]
    if not files:
        raise SystemExit(f"data_scale: no rows in {', '.join(map(str, folders))}")
    return {path.parent.name: str(path) for path in files}


def measure(args: argparse.Namespace, local: dict[str, str], work: Path) -> Iterator[Figures]:
    """All figures; what a figure must stay below stands in its `bounds`."""
    os.environ["EMBEDTRAIN_CACHE"] = str(work / "cache")
    large = make_large(local, args.num_rows, work)
    first = run("read, first time", "read", rows=large)
    yield first
    yield run("read, second time", "read", rows=large)
    if "plan" in args.parts:
        epoch = plan_asked(large, args.num_rows // 64, KINDS["one source"])
        one = run("keys and one epoch of 64", "plan", **epoch)
        one |= {name: one[name] + first[name] for name in ("seconds", "cpu_seconds")}
        yield one | {"what": "read and plan one epoch of 64", "bounds": {"seconds": 60}}
        for kind, batches in KINDS.items():
            asked = plan_asked(large, args.batches, batches)
            found = run(f"plan {args.batches:,} batches, {kind}", "plan", **asked)
            yield found | {"bounds": {"seconds": 60, "growth_bytes": FLAT_BYTES}}
    if "audit" in args.parts:
        run("open", "read", rows=local)
        found = run("audit of all local rows", "audit", rows=local, test_data=args.test_data)
        yield found | {"bounds": {"seconds": 240, "peak_bytes": 2 * 10**9}}
        yield run("audit of the rows paired anew", "audit", rows=large, test_data=args.test_data)


def make_large(local: dict[str, str], num_rows: int, work: Path) -> dict[str, str]:
    """So many rows in folders of their own, each source in its share."""
    sizes = {name: count_rows(path) for name, path in local.items()}
    shares = source_shares(sizes, dict.fromkeys(sizes, 1.0), 1.0)
    for name, wanted in split_units(shares, num_rows).items():
        run(f"make {name}", "make", rows=local[name], wanted=wanted, out=str(work / "rows" / name))
    return {name: str(work / "rows" / name) for name in local}


def plan_asked(rows: dict[str, str], steps: int, batches: dict[str, Any]) -> Figures:
    """A plan that draws from every source by the root of its size."""
    return {
        "rows": rows,
        "steps": steps,
        "batch_size": 64,
        "mixture": {"batches": batches, "size_exponent": 0.5},
    }


def run(what: str, part: str, **asked: Any) -> Figures:
    """What a fresh process measures."""
    print(f"{what} …", file=sys.stderr, flush=True)
    request = json.dumps({"part": part, **asked})
    command = [sys.executable, str(ROOT / "tools" / "data_figures.py"), request]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"data_scale: '{what}' failed")
    return {"what": what, **json.loads(done.stdout)}


def judge(figure: Figures) -> list[str]:
    """The bounds that a figure misses."""
    return [
        f"{figure['what']}: {name} {figure[name]:,.1f}, at most {bound:,}"
        for name, bound in figure.get("bounds", {}).items()
        if not figure[name] <= bound
    ]


def lines(figure: Figures) -> Iterator[list[object]]:
    """A line of the table for a figure, and one for each further bound."""
    told = [figure[name] for name in ("what", "rows", "seconds", "cpu_seconds")]
    told.append(figure["peak_bytes"] / 1e6)
    for name, bound in figure.get("bounds", {"": 0}).items():
        share = [BOUNDS[name].format(bound), figure[name] / bound] if name else [None, None]
        yield [*told, *share]
        told = [""] * len(told)


def report(out: Path, figures: list[Figures], faults: list[str]) -> None:
    """Print the table and the verdict, and write the JSON."""
    load = os.getloadavg()[0]
    machine = {"cores": os.cpu_count(), "load": round(load, 1)}
    write_json(out, {"figures": figures, "machine": machine, "passed": not faults})
    note = f"{machine['cores']} cores, load {load:.1f} at the end"
    print_table("How data scales", COLUMNS, [line for f in figures for line in lines(f)], note=note)
    for fault in faults:
        print(fault)
    print(f"data_scale: {'FAILED' if faults else 'passed'}, JSON in {out}")


if __name__ == "__main__":
    sys.exit(main())
