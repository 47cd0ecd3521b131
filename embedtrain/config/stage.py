"""What every stage has."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from embedtrain.config.types import STAGE_NAME, Str, Strict

CHECKPOINTING = frozenset({"save_every_steps", "save_every_minutes", "keep_last", "max_skipped_steps"})
"""Keys that say when a training is saved, and when it is given up."""


class Stage(Strict):
    """What every stage has."""

    free: ClassVar[frozenset[str]] = frozenset()
    """Keys that no result depends on: they may change while a stage is unfinished or finished."""

    name: Annotated[Str, Field(pattern=STAGE_NAME)] = Field(
        description="unique in the run; later stages refer back to it"
    )

    def identity(self) -> dict[str, Any]:
        """All that the stage's result depends on, as JSON has it and with the keys of the file."""
        values = self.model_dump(mode="json", by_alias=True)
        return {key: value for key, value in values.items() if key not in self.free}
