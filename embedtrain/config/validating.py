"""How a training is validated as it goes."""

from typing import Annotated

from pydantic import Field, model_validator

from embedtrain.config.types import AtLeastOne, Bool, Positive, Str, Strict


class Validating(Strict):
    """Test data that the encoder is measured on as it trains, by all processes together; not for reports."""

    data: Annotated[tuple[Str, ...], Field(min_length=1)] = Field(
        description="folders or files with held-out test data, as in an evaluate stage"
    )
    every_steps: AtLeastOne | None = Field(
        None, description="steps from one validation to the next; the last step is validated in any case"
    )
    every_minutes: Positive | None = Field(
        None, description="or minutes, by the first process's clock: other figures in every run"
    )
    max_tokens: AtLeastOne | None = Field(
        None, description="cut the data to fixed subsets of about this many tokens in all"
    )
    keep_best: Bool = Field(
        False,
        description="the stage's encoder is the one with the highest mean of the data's main metrics, not "
        "the last",
    )

    @model_validator(mode="after")
    def _steps_or_minutes(self) -> "Validating":
        if (self.every_steps is None) == (self.every_minutes is None):
            given = (
                "both every_steps and every_minutes are"
                if self.every_steps
                else ("neither every_steps nor every_minutes is")
            )
            raise ValueError(f"{given} given; expected one of them")
        return self
