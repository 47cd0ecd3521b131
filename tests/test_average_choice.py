"""The greedy choice and the weights of a cocktail, against the papers' rules written out."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.average.choice import cocktail_weights, greedy, kept_numbers

EIGHTHS = st.integers(0, 8).map(lambda n: n / 8)  # exact, with ties


def slow_greedy(scores: Sequence[float], values: Sequence[float]) -> list[int]:
    """Recipe 1 of the paper, line by line; an average of checkpoints scores the mean of their values."""
    order: list[int] = []
    left = list(range(len(scores)))
    while left:
        best = left[0]
        for number in left:
            if scores[number] > scores[best]:
                best = number
        order.append(best)
        left.remove(best)
    ingredients: list[int] = []
    accuracy = -math.inf
    for number in order:
        tried = sum(values[i] for i in [*ingredients, number]) / (len(ingredients) + 1)
        tried = scores[number] if not ingredients else tried
        if tried >= accuracy:
            ingredients.append(number)
            accuracy = tried
    return ingredients


@given(st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=1, max_size=6))
def test_the_greedy_choice_is_the_papers(pairs: list[tuple[float, float]]) -> None:
    scores, values = zip(*pairs, strict=True)
    steps = greedy(scores, lambda numbers: sum(values[i] for i in numbers) / len(numbers))
    assert list(kept_numbers(steps)) == slow_greedy(scores, values)
    assert sorted(step.number for step in steps) == list(range(len(scores)))


def test_each_average_is_asked_for_once_and_only_with_those_kept() -> None:
    asked: list[tuple[int, ...]] = []
    answers = {(1, 2): 0.9, (1, 2, 0): 0.8, (1, 2, 3): 0.9}

    def together(numbers: tuple[int, ...]) -> float:
        asked.append(numbers)
        return answers[numbers]

    steps = greedy([0.5, 0.7, 0.6, 0.4], together)
    assert asked == [(1, 2), (1, 2, 0), (1, 2, 3)]
    assert [(step.number, step.kept) for step in steps] == [(1, True), (2, True), (0, False), (3, True)]
    assert [step.to_reach for step in steps] == [None, 0.7, 0.9, 0.9]  # never what a refused one scored


def test_of_equal_scores_the_first_given_comes_first() -> None:
    steps = greedy([0.3, 0.5, 0.5], lambda numbers: 0.0)
    assert [step.number for step in steps] == [1, 2, 0]


@given(st.lists(st.floats(0, 50), min_size=1, max_size=6), st.floats(0.05, 100))
def test_cocktail_weights_are_a_softmax(losses: list[float], temperature: float) -> None:
    weights = cocktail_weights(losses, temperature)
    top = max(-loss / temperature for loss in losses)
    total = sum(math.exp(-loss / temperature - top) for loss in losses)
    expected = [math.exp(-loss / temperature - top) / total for loss in losses]
    assert weights == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert math.fsum(weights) == pytest.approx(1.0, abs=1e-15)


def test_weights_of_huge_losses_are_finite() -> None:
    assert cocktail_weights([1e6, 1e6], 0.01) == (0.5, 0.5)
    assert cocktail_weights([1e6, 0.0], 0.01) == (0.0, 1.0)
