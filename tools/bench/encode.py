"""Speed of encoding beside sentence-transformers' `encode`: the same weights, texts and precision, in turns.

`measure_encode` gives the figures, `judge_encode` what is below its bound, `encode_table` what people read.
"""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from embedtrain.data.rows import Row
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import open_encoder

LEAST_SPEED = 1.2  # times sentence-transformers' throughput, in CPU-seconds
MOST_DIFFERENCE = 1e-5  # of a number of two vectors of length 1
OURS = "embedtrain"
PEER = "sentence-transformers"
Encode = Callable[[Sequence[str]], np.ndarray]
"""texts -> vectors of length 1."""


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


def up_to(encoder: Encoder, texts: Sequence[str], max_tokens: int) -> tuple[list[str], np.ndarray]:
    """The first texts that hold about so many tokens together, and the tokens of each."""
    limit = encoder.spec.text.max_document_tokens
    lengths_T = encoder.tokenize(encoder.format(texts, "document"), limit).lengths_T.numpy()
    num = max(1, int(np.searchsorted(np.cumsum(lengths_T), max_tokens)))
    return list(texts[:num]), lengths_T[:num]


def measure_encode(
    folder: Path, name: str, corpora: Mapping[str, Sequence[str]], *, max_tokens: int, rounds: int
) -> list[dict[str, Any]]:
    """A dict of figures for each corpus: CPU-seconds and seconds of each way in every round, in turns."""
    encoder = open_encoder(str(folder))
    ways: dict[str, Encode] = {OURS: lambda texts: encoder.encode(texts, "document")}
    skipped: dict[str, str] = {}
    if importlib.util.find_spec("sentence_transformers") is None:
        skipped[PEER] = "skipped, sentence-transformers is not installed"
    else:
        ways[PEER] = open_peer(folder)
    return [
        {"model": name, "corpus": corpus, "skipped": skipped}
        | measure_ways(ways, *up_to(encoder, texts, max_tokens), rounds)
        for corpus, texts in corpora.items()
    ]


def open_peer(folder: Path) -> Encode:
    """sentence-transformers with its default batches, on the CPU."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
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


def judge_encode(figures: Sequence[dict[str, Any]]) -> list[str]:
    """What is slower than its bound, or gives other vectors; nothing where the peer is absent."""
    faults = []
    for one in figures:
        if one["skipped"]:
            continue
        what = f"encode, {one['model']}, {one['corpus']} texts"
        if not one["our_speed_cpu"] >= LEAST_SPEED:
            faults.append(f"{what}: {one['our_speed_cpu']:.2f} of {PEER}' throughput, at least {LEAST_SPEED}")
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
