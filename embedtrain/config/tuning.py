"""What stages that take optimizer steps share: adapters, and models that teach."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from embedtrain.config.types import SHA256, AtLeastOne, Bool, Float, Positive, Str, Strict, Text

INSTRUCTION = "{instruction}"


class Lora(Strict):
    """Low-rank adapters on the linear layers of the backbone (peft)."""

    rank: AtLeastOne = Field(16, description="rank of the adapters")
    alpha: Positive = Field(32, description="scale; the product is multiplied by alpha / rank")
    rslora: Bool = Field(False, description="multiply by alpha / sqrt(rank) instead")
    dropout: Annotated[Float, Field(ge=0, lt=1)] = Field(0.0, description="adapter dropout")
    targets: Literal["all_linear"] | tuple[Str, ...] = Field(
        "all_linear", description="all linear layers, or their names, for example [q_proj, v_proj]"
    )


class TeacherModel(Strict):
    """A model whose vectors are learned or judge; each text is encoded once, with the model's prompts."""

    model: Str = Field(
        description="an earlier export stage, or a sentence-transformers folder, hub id or `pip:` package"
    )
    revision: Str | None = Field(None, description="hub revision; pin it")
    sha256: Annotated[Str, Field(pattern=SHA256)] | None = Field(
        None, description="expected SHA-256 of the package file"
    )
    max_tokens: AtLeastOne | None = Field(
        None, description="texts are cut to so many tokens; absent means the model's own limit"
    )


class RowTeacher(TeacherModel):
    """A teacher of rows, which may have instructions."""

    query_prompt: Text | None = Field(
        None,
        description="written before each query in place of the model's own prompt; {instruction} is the "
        "row's, or its source's",
    )

    @property
    def is_instructed(self) -> bool:
        """Whether the prompt shows instructions."""
        return self.query_prompt is not None and INSTRUCTION in self.query_prompt

    @field_validator("query_prompt")
    @classmethod
    def _can_be_filled(cls, prompt: str | None) -> str | None:
        for name in re.findall(r"\{[^{}]*\}", prompt or ""):
            if name != INSTRUCTION:
                raise ValueError(f"unknown placeholder {name}; known is {INSTRUCTION}; the text comes last")
        return prompt


Decay = Annotated[Float, Field(ge=0, lt=1)]
