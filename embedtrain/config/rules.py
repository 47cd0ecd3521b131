"""Rules of a select stage: which candidates may be negatives. A candidate stays iff every rule lets it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from embedtrain.config.types import (
    STAGE_NAME,
    AtLeastOne,
    Bool,
    Float,
    Fraction,
    NotNegative,
    Positive,
    Str,
    Strict,
)


class Rule(Strict):
    """What every rule on scores has."""

    judge: Annotated[Str, Field(pattern=STAGE_NAME)] | None = Field(
        None, description="column whose scores it reads; absent means the stage's judge"
    )


class PercentOfPositive(Rule):
    """Keep a candidate iff score < fraction x positive score (NV-Retriever's perc_pos, 0.95)."""

    kind: Literal["perc_pos"]
    fraction: Annotated[Float, Field(gt=0, le=1)] = Field(0.95, description="share of the positive's score")


class MarginToPositive(Rule):
    """Keep a candidate iff score < positive score - margin (NV-Retriever's margin_pos, 0.05)."""

    kind: Literal["margin_pos"]
    margin: NotNegative = Field(0.05, description="distance to the positive's score")


class AdaptiveMargin(Rule):
    """perc_pos within bounds: the threshold follows the positive's score, from `floor` to the ceilings."""

    kind: Literal["adaptive"]
    fraction: Annotated[Float, Field(gt=0, le=1)] = Field(0.95, description="share of the positive's score")
    floor: Float | None = Field(None, description="the threshold never falls below it")
    ceiling: Float | None = Field(None, description="the threshold never rises above it")
    ceiling_quantile: Fraction | None = Field(
        None, description="nor above this quantile of the source's positive scores; 0.5 means their median"
    )

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> "AdaptiveMargin":
        if self.floor is not None and self.ceiling is not None and self.floor > self.ceiling:
            raise ValueError(f"floor {self.floor} is above ceiling {self.ceiling}")
        return self


class AbsoluteScore(Rule):
    """Keep a candidate iff score < ceiling (NV-Retriever's absolute threshold, 0.7)."""

    kind: Literal["absolute"]
    ceiling: Float = Field(0.7, description="the score a negative stays below")


class TeacherCeiling(Rule):
    """Refuse a candidate that a teacher calls relevant: score >= ceiling."""

    kind: Literal["teacher_ceiling"]
    judge: Annotated[Str, Field(pattern=STAGE_NAME)] = Field(description="the teacher's column")
    ceiling: Float = Field(description="the score from which on a text counts as relevant")
    promote: Bool = Field(False, description="make it one more positive of the row instead")


class Shift(Strict):
    """Keep a candidate iff its rank is beyond the first `ranks` (NV-Retriever's shift, 10)."""

    kind: Literal["shift"]
    ranks: AtLeastOne = Field(10, description="ranks left out")


class SameLabel(Strict):
    """Refuse a candidate that is a text of a row with the query's label."""

    kind: Literal["same_label"]


AnyRule = Annotated[
    PercentOfPositive
    | MarginToPositive
    | AdaptiveMargin
    | AbsoluteScore
    | TeacherCeiling
    | Shift
    | SameLabel,
    Field(discriminator="kind"),
]


class Top(Strict):
    """The best-ranked of those that stay."""

    kind: Literal["top"]


class Sample(Strict):
    """Drawn without replacement from the best-ranked that stay, with weights softmax(score / temperature)."""

    kind: Literal["sample"]
    from_top: AtLeastOne = Field(10, description="so many of those that stay take part in the draw")
    temperature: Positive | None = Field(None, description="of the judge's scores; absent means all alike")


Choice = Annotated[Top | Sample, Field(discriminator="kind")]
