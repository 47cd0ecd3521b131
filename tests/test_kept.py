"""Per cent kept: paired intervals against loops, what cannot be compared, and cells that keep their draws."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from word_embedder import WordEmbedder

from embedtrain.evaluation import intervals
from embedtrain.evaluation.inherited import Binary, measure_in
from embedtrain.evaluation.kept import kept_of, mean_kept
from embedtrain.evaluation.measure import mean_figure, measure
from embedtrain.evaluation.results import Figure, Result, keep_result
from embedtrain.evaluation.tasks import Bitext

ANIMALS = ("the cat sleeps", "a cat eats fish", "cats and kittens purr", "a dog barks")
TASK = Bitext("animals", ANIMALS, ("the cat naps", "a cat eats mice", "kittens purr", "a dog growls"))


def result_of(draws: Sequence[float], value: float, task: str = "t", size: int = 4) -> Result:
    figures = {"ndcg@10": Figure(value, 0, 0, tuple(draws))}
    return Result("m", task, "retrieval", "ndcg@10", figures, {"queries": size}, None, 1)


def test_per_cent_kept_is_drawn_pairwise() -> None:
    """Slow: resamples of queries one by one, the quotient of two means in each."""
    generator = np.random.default_rng(0)
    whole = generator.random(25)
    part = 0.9 * whole + 0.02 * generator.random(25)
    full, cut = (
        replace(result_of((), 0), metrics={"ndcg@10": mean_figure(values)}) for values in (whole, part)
    )
    kept = kept_of(cut, full)
    assert kept is not None
    slow = []
    for weights in next(intervals.draw_weights(25)):
        rows = [n for n, times in enumerate(weights) for _ in range(int(times))]
        slow.append(100 * sum(part[n] for n in rows) / sum(whole[n] for n in rows))
    np.testing.assert_allclose(kept.draws[: len(slow)], slow, atol=1e-3)
    assert kept.value == pytest.approx(100 * part.mean() / whole.mean())
    assert (kept.low, kept.high) == pytest.approx(np.percentile(kept.draws, [2.5, 97.5]))
    alone = full.figure
    assert kept.high - kept.low < 0.1 * (alone.high - alone.low)  # what is common to both is not in it
    assert kept_of(full, full) == Figure(100, 100, 100)


def test_a_resample_with_nothing_to_keep_is_left_out() -> None:
    kept = kept_of(result_of([1, 2, 0, 4], 2), result_of([2, 4, 0, 4], 4))
    assert kept is not None
    assert (kept.value, kept.low, kept.high) == pytest.approx((50, 50, 97.5))
    assert kept_of(result_of([1, 2], 2), result_of([0, -1], 0)) is None
    assert mean_kept([kept, None]) is None
    assert mean_kept([]) is None


def test_the_mean_over_tasks_is_drawn_again_too() -> None:
    first, second = Figure(90, 0, 0, (80, 90, 100)), Figure(70, 0, 0, (60, 70, 90))
    mean = mean_kept([first, second])
    assert mean is not None
    assert mean.draws == (70, 80, 95)
    assert (mean.value, mean.low, mean.high) == pytest.approx((80, 70.5, 94.25))


def test_results_of_unlike_tasks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="m was measured on t, m on u"):
        kept_of(result_of([1], 1), result_of([1], 1, task="u"))
    with pytest.raises(ValueError, match="task 't': 0 and 1 draws, expected as many"):
        kept_of(result_of([], 1), result_of([1], 1))


def test_a_finished_cell_keeps_its_draws(tmp_path: Path) -> None:
    file = tmp_path / "cell.json"
    first = keep_result(file, lambda: measure_in(Binary(), WordEmbedder(dim=16), TASK))
    again = keep_result(file, lambda: pytest.fail("measured twice"))
    assert again == first
    assert again.figure.draws == first.figure.draws
    assert len(first.figure.draws) == 1000
    assert "draws" not in str(first.to_json())
    whole = measure(WordEmbedder(dim=16), TASK)
    assert kept_of(again, whole) == kept_of(first, whole)
