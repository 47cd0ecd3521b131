"""Templates of texts: what they may hold, and what they put before and after a text."""

import re
from collections.abc import Mapping, Sequence

from embedtrain.config.errors import UserError

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
TEMPLATES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "query": (("text",), ("instruction",)),
    "document": (("text",), ("instruction",)),
    "few_shot_query": (("examples", "text"), ("instruction",)),
    "shared_query": (("text",), ("examples", "instruction")),
    "example": (("query", "response"), ("instruction",)),
}
"""By kind of template: what it holds once, and what it may hold once."""


def prefix(template: str, instruction: str = "", examples: str = "") -> str:
    """What the template puts before the text."""
    return fill(template.partition("{text}")[0], instruction=instruction, examples=examples)


def suffix(template: str, instruction: str = "") -> str:
    """What the template puts after the text."""
    return fill(template.partition("{text}")[2], instruction=instruction)


def fill(template: str, **values: str) -> str:
    """The template with its placeholders filled; braces in the values are left as they are."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def validate_template(
    template: str, kind: str = "query", *, instruction: str = "", pool_instruction: bool = True
) -> None:
    """Raise UserError where a template of this kind cannot be filled, or its prefix cannot leave the pool.

    A space at the end of a prefix becomes one token with the first word of the text, so the two cannot be
    told apart in the pool: sentence-transformers would drop that word.
    """
    needed, allowed = TEMPLATES[kind]
    _check_placeholders(template, needed, allowed)
    before, text, _ = template.partition("{text}")
    if "examples" in PLACEHOLDER.findall(template) and "{examples}" not in before:
        raise UserError(f"template {template!r}: {{examples}} stands after {{text}}; put it in front")
    before = prefix(template, instruction)
    if text and not pool_instruction and before.endswith((" ", "\t")):
        raise UserError(
            f"template {template!r}: what stands before the text, {before!r}, ends in a space and is to "
            "leave the pool (encoder.pool_instruction is false); end it in a line break or a colon"
        )


def _check_placeholders(template: str, needed: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise UserError for a placeholder that is unknown, missing or there too often."""
    found = PLACEHOLDER.findall(template)
    *first, last = sorted([*needed, *allowed])
    for name in found:
        if name not in needed and name not in allowed:
            known = ", ".join(f"{{{one}}}" for one in first) + f" and {{{last}}}"
            hint = "; {examples} is filled only where the source has few_shot" * (name == "examples")
            raise UserError(f"template {template!r}: unknown placeholder {{{name}}}; known are {known}{hint}")
    for name in needed:
        if found.count(name) != 1:
            raise UserError(
                f"template {template!r}: holds {{{name}}} {found.count(name)} times, must hold it once"
            )
    for name in allowed:
        if found.count(name) > 1:
            raise UserError(
                f"template {template!r}: holds {{{name}}} {found.count(name)} times, at most once"
            )
