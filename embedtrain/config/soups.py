"""Soup stages: how the merged weights of several checkpoints become one. Methods are told apart by `kind`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.stage import Stage
from embedtrain.config.types import AtLeastOne, Bool, Float, Positive, Str, Strict

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


class Greedy(Strict):
    """Best first; each stays if the uniform average scores no lower with it (Wortsman et al. 2022)."""

    kind: Literal["greedy"]
    data: tuple[Str, ...] = Field(
        min_length=1, description="validation data, never test data: folders or files as in an evaluate stage"
    )
    max_tokens: AtLeastOne | None = Field(
        None, description="cut the tasks to fixed subsets of about this many tokens in all"
    )


class Cocktail(Strict):
    """Weights softmax(-loss / temperature), losses on a few examples (LM-Cocktail, arXiv:2311.13534)."""

    kind: Literal["lm_cocktail"]
    rows: Str = Field(description="the examples: rows, parquet or jsonl, with a query and positives")
    num_rows: AtLeastOne = Field(100, description="examples, drawn with the seed")
    temperature: Positive = Field(5.0, description="of the weights; the larger, the more alike")
    loss_temperature: Positive = Field(0.02, description="of the examples' InfoNCE loss")


SoupMethod = Annotated[
    Mean | Slerp | TaskArithmetic | Ties | Dare | Greedy | Cocktail, Field(discriminator="kind")
]


class Soup(Stage):
    """The merged weights of several checkpoints as one."""

    kind: Literal["soup"]
    from_: tuple[Str, ...] = Field(
        alias="from",
        min_length=2,
        description="earlier train, distil or soup stages, `NAME@STEP`, a snapshot of one, or folders with a "
        "`/` in their path: checkpoints, adapters, exports",
    )
    method: SoupMethod = Field(
        default_factory=lambda: Mean(kind="mean"), description="how; absent means their uniform average"
    )
    adapter_rank: AtLeastOne | None = Field(
        None, description="fold the result into one adapter of this rank on the base (truncated SVD)"
    )

    @model_validator(mode="after")
    def _a_weight_each(self) -> "Soup":
        weights = self.method.weights if isinstance(self.method, Mean | Slerp) else None
        if weights is not None and len(weights) != len(self.from_):
            raise ValueError(f"{len(weights)} weights for {len(self.from_)} checkpoints; expected one each")
        return self
