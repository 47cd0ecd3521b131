"""What every stage has."""

from typing import Annotated

from pydantic import Field

from embedtrain.config.types import STAGE_NAME, Str, Strict


class Stage(Strict):
    """What every stage has."""

    name: Annotated[Str, Field(pattern=STAGE_NAME)] = Field(
        description="unique in the run; later stages refer back to it"
    )
