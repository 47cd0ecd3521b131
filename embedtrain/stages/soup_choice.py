"""How much of each ingredient a soup has, by its method, and what is to be told of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from math import fsum
from typing import Any

import numpy as np

from embedtrain.average.choice import Step, cocktail_weights, greedy, kept_numbers
from embedtrain.config.soups import Cocktail, Dare, Greedy, Mean, Slerp, SoupMethod, TaskArithmetic, Ties
from embedtrain.data.rows import Row
from embedtrain.data.store import open_rows
from embedtrain.evaluation.sets import cut, read_tasks, unlike_names
from embedtrain.show.progress import progress
from embedtrain.stages.soup_judge import Judge

EXAMPLES_STREAM = 4  # draws of examples share no stream with other draws of a seed


@dataclass(frozen=True)
class Choice:
    """The ingredients that are merged, in this order, by a method that needs no data any more.

    `told` are figures of each ingredient given, `weights` their shares, which sum to one; none where the
    method has no shares.
    """

    numbers: tuple[int, ...]
    method: SoupMethod
    weights: tuple[float, ...] | None = None
    told: Sequence[dict[str, Any]] = ()
    order: tuple[int, ...] | None = None
    score: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@singledispatch
def choose(method: object, judge: Judge, seed: int) -> Choice:
    """What a method takes of the judge's ingredients."""
    raise TypeError(f"no soup method {type(method).__name__}")


@choose.register
def _(method: Mean | Slerp, judge: Judge, seed: int) -> Choice:
    count = len(judge.ingredients)
    given = method.weights or (1.0,) * count
    return Choice(tuple(range(count)), method, tuple(weight / fsum(given) for weight in given))


@choose.register
def _(method: TaskArithmetic | Ties | Dare, judge: Judge, seed: int) -> Choice:
    return Choice(tuple(range(len(judge.ingredients))), method)


@choose.register
def _(method: Greedy, judge: Judge, seed: int) -> Choice:
    tasks = cut(unlike_names(read_tasks(method.data)), method.max_tokens)
    count = len(judge.ingredients)
    with progress("validate", total=2 * count - 1, unit="model") as bar:

        def score(numbers: tuple[int, ...]) -> float:
            found = judge.score(numbers, tasks)
            bar.advance(1, score=found)
            return found

        alone = [score((number,)) for number in range(count)]
        steps = greedy(alone, score)
    kept = kept_numbers(steps)
    told = {step.number: {"score": alone[step.number]} | step_facts(step) for step in steps}
    return Choice(
        numbers=kept,
        method=Mean(kind="mean"),
        weights=tuple(1 / len(kept) if number in kept else 0.0 for number in range(count)),
        told=[told[number] for number in range(count)],
        order=tuple(step.number for step in steps),
        score=[step.score for step in steps if step.kept][-1],
        facts={"tasks": [task.name for task in tasks]},
    )


def step_facts(step: Step) -> dict[str, Any]:
    """What is told of a step."""
    if step.to_reach is None:
        reason = "the best by itself"
    else:
        verdict = "no lower" if step.kept else "lower"
        reason = f"{step.score:.4f} with it, {verdict} than {step.to_reach:.4f} without it"
    return {"kept": step.kept, "tried_score": step.score, "reason": reason}


@choose.register
def _(method: Cocktail, judge: Judge, seed: int) -> Choice:
    rows = draw_examples(method, seed)
    count = len(judge.ingredients)
    losses = []
    with progress("validate", total=count, unit="model") as bar:
        for number in range(count):
            losses.append(judge.loss(number, rows, method.loss_temperature))
            bar.advance(1, loss=losses[-1])
    weights = cocktail_weights(losses, method.temperature)
    used = tuple(number for number, weight in enumerate(weights) if weight > 0)
    return Choice(
        numbers=used,
        method=Mean(kind="mean", weights=tuple(weights[number] for number in used)),
        weights=weights,
        told=[{"loss": loss} for loss in losses],
        facts={"examples": len(rows)},
    )


def draw_examples(method: Cocktail, seed: int) -> list[Row]:
    """Rows drawn with the seed, without repetition; all of them where there are no more."""
    store = open_rows(method.rows)
    count = min(method.num_rows, len(store))
    drawn = np.random.default_rng([seed, EXAMPLES_STREAM]).choice(len(store), count, replace=False)
    return [store[number] for number in sorted(drawn.tolist())]
