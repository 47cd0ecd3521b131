"""The bricks of every config class: strict numbers, frozen models, no unknown keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

Int = StrictInt
Bool = StrictBool
Str = Annotated[StrictStr, Field(min_length=1)]
Text = StrictStr
Float = Annotated[StrictFloat, Field(allow_inf_nan=False)]  # takes 1 as well, and makes it 1.0
Positive = Annotated[Float, Field(gt=0)]
NotNegative = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
Count = Annotated[Int, Field(ge=0)]
AtLeastOne = Annotated[Int, Field(ge=1)]

RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
STAGE_NAME = r"^[a-z][a-z0-9_]*$"
LINK_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
SHA256 = r"^[0-9a-f]{64}$"
ADDRESS = r"^https?://"
PATTERNS = {
    RUN_NAME: "letters, digits, '.', '_' and '-', starting with a letter or digit",
    STAGE_NAME: "small letters, digits and '_', starting with a letter",
    LINK_NAME: "letters, digits, '_' and '-', starting with a letter or digit",
    ADDRESS: "an address that begins with http:// or https://",
    SHA256: "64 hexadecimal digits in small letters",
}


class Strict(BaseModel):
    """Base of every config class: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
