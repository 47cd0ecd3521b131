"""The process that tools/loss_memory.py measures: makes vectors, runs InfoNCE or only fills their gradients.

`python tools/loss_peak.py '{"term": …, "path": …, …}'` prints one line of JSON: peak memory, times, loss.

A queries, C candidates, D dims.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.batch import Gathered  # noqa: E402
from embedtrain.config.denominator import SAME_TEXT, AboveMargin, Focal, PairMixing  # noqa: E402
from embedtrain.config.terms import InfoNCE  # noqa: E402
from embedtrain.loss import stream  # noqa: E402
from embedtrain.loss.infonce import infonce  # noqa: E402
from tools.peak import peak_bytes  # noqa: E402

TERMS = {
    "plain": InfoNCE(kind="infonce", temperature=0.05),
    "full": InfoNCE(
        kind="infonce",
        temperature=0.05,
        masks=(SAME_TEXT, AboveMargin(kind="above_margin", margin=0.1)),
        focal=Focal(),
        hardness=5.0,
        symmetric=True,
        mixing=(PairMixing(kind="pair", shared=True),),
    ),
}
"""`full` has masks, focal weights, hardness, both directions and shared mixed negatives."""


def main(asked: dict[str, str]) -> None:
    """Measure what was asked."""
    stream.STREAM_ABOVE = int(asked.get("stream_above", stream.STREAM_ABOVE))
    stream.CHUNK = int(asked.get("chunk", stream.CHUNK))
    settings = TERMS[asked["term"]]
    run(make_batch(8, 32, 4), settings)  # loads what is loaded on first use
    g = make_batch(int(asked["queries"]), int(asked["candidates"]), int(asked["dims"]))
    started, cpu = time.perf_counter(), time.process_time()
    loss = fill_gradients(g) if asked["path"] == "baseline" else run(g, settings)
    seconds, cpu_seconds, peak = time.perf_counter() - started, time.process_time() - cpu, peak_bytes()
    if "keep" in asked:
        np.savez(
            asked["keep"], *[x.grad.numpy() for x in (g.queries_AD, g.candidates_CD) if x.grad is not None]
        )
    found = {"peak_bytes": peak, "seconds": seconds, "cpu_seconds": cpu_seconds, "loss": loss}
    print(json.dumps(found))


def run(g: Gathered, settings: InfoNCE) -> float:
    """Mean loss, forward and backward."""
    total, count = infonce(g, settings, {})
    loss = total / count
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def fill_gradients(g: Gathered) -> float:
    """The gradients that a run leaves, without a run."""
    for x in (g.queries_AD, g.candidates_CD):
        x.grad = torch.ones_like(x)
    return float("nan")


def make_batch(num_queries: int, num_candidates: int, dims: int) -> Gathered:
    """Random raw vectors; each row has one positive, near its query, and an equal share of hard negatives."""
    group = num_candidates // num_queries
    generator = torch.Generator().manual_seed(1)
    queries_AD = torch.randn(num_queries, dims, generator=generator)
    candidates_CD = torch.randn(num_queries * group, dims, generator=generator)
    candidates_CD[::group].add_(queries_AD, alpha=0.35)
    index_A, index_C = torch.arange(num_queries), torch.arange(num_queries * group)
    return Gathered(
        queries_AD=queries_AD.requires_grad_(),
        candidates_CD=candidates_CD.requires_grad_(),
        local_B=index_A,
        query_index_A=index_A,
        query_key_A=-1 - index_A,
        label_A=torch.zeros_like(index_A),
        graded_score_A=torch.full((num_queries,), torch.nan, dtype=torch.float64),
        owner_C=index_C // group,
        is_positive_C=index_C % group == 0,
        document_key_C=1 + index_C // 2,  # every second text stands twice
        label_C=torch.zeros_like(index_C),
        teacher_scores={},
        teacher_vectors=None,
        source="random",
        draw_seed=3,
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
