"""Short names of changes to a run: `focal=off` is every override that it stands for in the run at hand.

A shorthand only writes overrides; what they do to the run is checked where all overrides are.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from embedtrain.ablation import changes
from embedtrain.config.errors import UserError, nearest
from embedtrain.config.schema import Run


@dataclass(frozen=True)
class Shorthand:
    """What may stand behind `name=`, what it means, and the overrides that it is in a run.

    `lacking` says why it changes nothing where it gives no override.
    """

    values: str
    meaning: str
    lacking: str
    write: Callable[[Run, str], Iterator[str]]


SHORTHANDS: Mapping[str, Shorthand] = {
    "focal": Shorthand(
        "off or a number above 0",
        "gamma of the focal weight of every infonce term",
        "no term has a focal weight",
        changes.focal,
    ),
    "mixing": Shorthand(
        "off, pair, list or both",
        "mixed negatives of every infonce term; put in where rows have two negatives or more",
        "no term has mixed negatives, or rows to mix them from",
        changes.mixing,
    ),
    "attention": Shorthand(
        "bidirectional or causal",
        "whether a token sees those after it, in every stage",
        "nothing changes",
        changes.attention,
    ),
    "pooling": Shorthand(
        "mean, weighted_mean, last_token or cls",
        "which token states become the vector, in every stage",
        "nothing changes",
        changes.pooling,
    ),
    "distill_kl": Shorthand(
        "off or a number above 0",
        "the terms of kind distill_kl: gone, or with this weight",
        "no term is of kind distill_kl",
        changes.distill_kl,
    ),
    "soft_labels": Shorthand(
        "off",
        "no term learns the teacher scores in the rows",
        "no term learns the teacher scores in the rows",
        changes.soft_labels,
    ),
    "soup": Shorthand(
        "off",
        "what reads a soup reads its first ingredient",
        "nothing reads a soup",
        changes.soup,
    ),
    "instructions": Shorthand(
        "off",
        "templates without the line, or the beginning of it, that holds {instruction}",
        "no template holds {instruction}",
        changes.instructions,
    ),
    "few_shot": Shorthand(
        "off or a whole number",
        "off: no examples in training or prompts; 0: trained with them, exported prompts without; "
        "k: exported prompts with k",
        "no source has a few_shot section, or no export shows examples",
        changes.few_shot,
    ),
    "margin": Shorthand(
        "none, perc_pos, margin_pos, adaptive, absolute or shift",
        "the rule on scores of every select stage, with its published constant",
        "there is no select stage",
        changes.margin,
    ),
    "matryoshka": Shorthand(
        "off",
        "no view of fewer dims, in objectives and terms",
        "no objective and no term has one",
        changes.matryoshka,
    ),
    "masks": Shorthand(
        "off, same_text, same_label, above_margin or above_fraction",
        "what every contrastive term hides; the last three beside equal texts",
        "no term hides anything",
        changes.masks,
    ),
    "temperature": Shorthand(
        "a number above 0",
        "the temperature of every contrastive term (infonce, sigmoid), in every stage",
        "no term is contrastive",
        changes.temperature,
    ),
}


def expand(run: Run, change: str) -> list[str]:
    """The overrides that a change stands for: itself where it is `path=value`, else the shorthand's.

    Raises UserError for a shorthand that is unknown, has another value, or changes nothing in this run.
    """
    name, equals, value = (part.strip() for part in change.partition("="))
    if not name or not equals:
        raise UserError(f"'{change}': expected path=value or a shorthand, for example focal=off")
    if "." in name or "[" in name or name in Run.model_fields:
        return [f"{name}={value}"]
    if name not in SHORTHANDS:
        raise UserError(f"no shorthand '{name}'; {nearest(name, SHORTHANDS)}")
    shorthand = SHORTHANDS[name]
    try:
        found = list(shorthand.write(run, value))
    except ValueError:
        raise UserError(f"{name}: found '{value}', expected {shorthand.values}") from None
    if not found:
        raise UserError(f"{name}={value} changes nothing: {shorthand.lacking}")
    return found
