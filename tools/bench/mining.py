"""Speed of mining beside the usual tools: `python tools/bench/mining.py`.

Encoding is measured beside sentence-transformers' `encode`, on texts as they stand in rows and on texts of
drawn lengths; exact search beside FAISS Flat. All in one process, in turns, medians of CPU-seconds, so that
another load on the machine counts little. A model or peer that is not there is named and skipped.

Writes JSON, prints the verdict last; exits 1 where encoding is below 1.2 times sentence-transformers'
throughput or gives other vectors, or search is below 0.65 times FAISS Flat's.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.config.errors import UserError  # noqa: E402
from embedtrain.data.rows import Row, read_rows  # noqa: E402
from embedtrain.model.source import resolve_model  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from tools.bench.encode import (  # noqa: E402
    MODELS,
    SEED,
    drawn_texts,
    encode_table,
    judge_encode,
    measure_encode,
    rows_texts,
)
from tools.bench.machine import machine  # noqa: E402
from tools.bench.search import (  # noqa: E402
    SIZE,
    judge_search,
    measured_size,
    search_table,
)
from tools.bench.steps import shown  # noqa: E402

PARTS = ("encode", "search")
Figures = dict[str, Any]


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    measures: dict[str, Callable[[argparse.Namespace], Figures]] = {
        "encode": measure_models,
        "search": lambda args: measured_size(args.size, args.top_k, args.rounds),
    }
    figures = {part: measures[part](args) for part in args.parts}
    faults = [fault for part in args.parts for fault in show(part, figures[part])]
    write_json(args.out, {"machine": machine(torch.get_num_threads()), "figures": figures, "faults": faults})
    print("\n".join(faults) or "all within their bounds")
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Speed of encoding and of exact search")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", default=MODELS, help="folders, hub ids or `pip:` packages")
    parser.add_argument("--rows", type=Path, nargs="+", default=[ROOT / "rows"])
    parser.add_argument("--tokens", type=int, default=8_000, help="of a corpus that is encoded")
    parser.add_argument("--size", type=int, nargs=3, default=[2_000, 100_000, 384], help=SIZE)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/mining/speed.json")
    return parser.parse_args()


def measure_models(args: argparse.Namespace) -> Figures:
    """Encoding by each model that is there."""
    rows = local_rows(args.rows)
    num_texts = args.tokens // 2  # enough, whatever their lengths
    corpora = {"rows'": rows_texts(rows, num_texts, SEED), "drawn": drawn_texts(rows, num_texts, SEED)}
    figures: list[Figures] = []
    absent = {}
    for name in args.models:
        try:
            folder = resolve_model(name).path
        except UserError as error:
            absent[name] = str(error)
            continue
        figures += measure_encode(folder, shown(name), corpora, max_tokens=args.tokens, rounds=args.rounds)
    return {"models": figures, "absent": absent}


def local_rows(paths: list[Path]) -> list[Row]:
    """The first rows of every file below the folders, tests left out."""
    files = [file for path in paths for file in sorted(path.rglob("*.parquet")) if "tests" not in file.parts]
    if not files:
        raise SystemExit(f"no rows below {', '.join(map(str, paths))}")
    return [row for file in files for row in read_rows(file)[:3_000]]


def show(part: str, figures: Figures) -> list[str]:
    """Print the table of a part; what is below its bound."""
    if part == "search":
        print_table("exact search", *search_table(figures))
        return judge_search(figures)
    print_table("encode", *encode_table(figures["models"]))
    for name, reason in figures["absent"].items():
        print(f"{name}: skipped, {reason}")
    return judge_encode(figures["models"])


if __name__ == "__main__":
    sys.exit(main())
