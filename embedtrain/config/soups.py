"""Methods of a soup stage: how the merged weights of several checkpoints become one. Told apart by `kind`."""

from typing import Annotated, Literal

from pydantic import Field

from embedtrain.config.types import Bool, Float, Positive, Strict

Weights = Annotated[
    tuple[Positive, ...] | None,
    Field(description="one a checkpoint, brought to sum 1; absent means all alike"),
]
Density = Annotated[Float, Field(gt=0, le=1)]


class Mean(Strict):
    """Weighted mean of the weights; all alike it is the uniform soup (Wortsman et al. 2022)."""

    kind: Literal["mean"]
    weights: Weights = None


class Slerp(Strict):
    """Along the great circle, tensor by tensor. Of many: each in turn, by its share of the weight so far."""

    kind: Literal["slerp"]
    weights: Weights = None


class Difference(Strict):
    """What methods on the differences to the base have."""

    scale: Positive = Field(1.0, description="factor of the merged difference (lambda)")


class TaskArithmetic(Difference):
    """Base + scale x the sum of the differences (Ilharco et al. 2022)."""

    kind: Literal["task_arithmetic"]


class Ties(Difference):
    """Trim each difference, elect a sign for each number, average those that agree (Yadav et al. 2023)."""

    kind: Literal["ties"]
    density: Density = Field(0.2, description="share of a tensor's numbers that is kept, the largest")


class Dare(Difference):
    """Drop numbers of each difference at random and scale up the others (Yu et al. 2023), then sum."""

    kind: Literal["dare"]
    density: Density = Field(0.5, description="share of a tensor's numbers that is kept")
    elect_signs: Bool = Field(False, description="then as in TIES: elect signs, average those that agree")


SoupMethod = Annotated[Mean | Slerp | TaskArithmetic | Ties | Dare, Field(discriminator="kind")]
