"""Rules of a select stage: which candidates are too close to the positive to be negatives."""

from typing import Annotated, Literal

from pydantic import Field

from embedtrain.config.types import Float, NotNegative, Strict


class PercentOfPositive(Strict):
    """Keep a candidate iff score < fraction x positive score (NV-Retriever's perc_pos)."""

    kind: Literal["perc_pos"]
    fraction: Annotated[Float, Field(gt=0, le=1)] = Field(0.95, description="share of the positive's score")


class MarginToPositive(Strict):
    """Keep a candidate iff score < positive score - margin (NV-Retriever's margin_pos)."""

    kind: Literal["margin_pos"]
    margin: NotNegative = Field(0.05, description="distance to the positive's score")


class AbsoluteScore(Strict):
    """Keep a candidate iff score < ceiling."""

    kind: Literal["absolute"]
    ceiling: Float = Field(0.7, description="the score a negative stays below")


class Naive(Strict):
    """Keep every candidate."""

    kind: Literal["naive"]


Rule = Annotated[PercentOfPositive | MarginToPositive | AbsoluteScore | Naive, Field(discriminator="kind")]
