"""An instruction and a text into the exact string the model sees."""

import re
from dataclasses import dataclass

from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
KNOWN = ("instruction", "text")


@dataclass(frozen=True, slots=True)
class Formatted:
    """What is tokenised, and how many of its leading characters stand before the text itself."""

    text: str
    instruction_chars: int


def prefix(template: str, instruction: str = "") -> str:
    """What the template puts before the text."""
    return template.partition("{text}")[0].replace("{instruction}", instruction)


def suffix(template: str, instruction: str = "") -> str:
    """What the template puts after the text."""
    return template.partition("{text}")[2].replace("{instruction}", instruction)


def format_query(fmt: TextFormat, text: str, instruction: str = "") -> Formatted:
    """A query as the model sees it."""
    return _fill(fmt.query, text, instruction)


def format_document(fmt: TextFormat, text: str, instruction: str = "", symmetric: bool = False) -> Formatted:
    """A document as the model sees it; as a query where the source is symmetric."""
    return _fill(fmt.query if symmetric else fmt.document, text, instruction)


def validate_template(template: str, *, instruction: str = "", pool_instruction: bool = True) -> None:
    """Raise UserError where the template cannot be filled, or its prefix cannot leave the pool.

    A space at the end of a prefix becomes one token with the first word of the text, so the two cannot be
    told apart in the pool: sentence-transformers would drop that word.
    """
    found = PLACEHOLDER.findall(template)
    unknown = [name for name in found if name not in KNOWN]
    if unknown:
        raise UserError(
            f"template {template!r}: unknown placeholder {{{unknown[0]}}}; "
            "known are {instruction} and {text}"
        )
    if found.count("text") != 1:
        raise UserError(
            f"template {template!r}: holds {{text}} {found.count('text')} times, must hold it once"
        )
    if found.count("instruction") > 1:
        raise UserError(
            f"template {template!r}: holds {{instruction}} {found.count('instruction')} times, at most once"
        )
    before = prefix(template, instruction)
    if not pool_instruction and before.endswith((" ", "\t")):
        raise UserError(
            f"template {template!r}: what stands before the text, {before!r}, ends in a space and is to "
            "leave the pool (encoder.pool_instruction is false); end it in a line break or a colon"
        )


def _fill(template: str, text: str, instruction: str) -> Formatted:
    before = prefix(template, instruction)
    return Formatted(before + text + suffix(template, instruction), len(before))
