"""Numbers of the objective that training changes: temperatures, biases, projections to the teacher's dims.

The encoder owns them as raw parameters, so that they are averaged and saved with the rest; a term sees their
values, which stay between the config's bounds. Suffixes: D dims of the model, K of the teacher.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from embedtrain.config.errors import UserError
from embedtrain.config.objective import Objective
from embedtrain.config.terms import Learned as LearnedNumber
from embedtrain.config.terms import LearnedTemperature, Term

Learned = Mapping[str, Tensor]
"""What a term's learned numbers are now: `temperature`, `bias`, `projection_weight` (K, D), …"""
NAMES = {"student_temperature": "temperature"}
"""Settings that terms know by another name."""


def value_of(setting: float | LearnedNumber, learned: Learned, name: str) -> Tensor | float:
    """What the setting is now: a learned one's value, or the number itself."""
    return learned[name] if isinstance(setting, LearnedNumber) else setting


def initial_parameters(config: Objective, dim: int, teacher_dim: int | None, seed: int) -> dict[str, Tensor]:
    """Raw parameters of all terms by `<index>_<kind>_<name>`, float32; empty where nothing is learned.

    A projection starts as `torch.nn.Linear` does, its bias at 0; with `seed`, whatever else was drawn.
    Raises UserError where one is asked for and the teacher's dims are None.
    """
    generator, raw = torch.Generator().manual_seed(seed), {}
    for index, term in enumerate(config.terms):
        for name, setting in learned_settings(term):
            raw[key_of(index, term, name)] = torch.tensor(to_raw(setting))
        if term.kind == "embed_distill" and term.projection:
            if teacher_dim is None:
                raise UserError(f"objective.terms[{index}] ({term.kind}): projection needs teacher vectors")
            weight_KD = (2 * torch.rand(teacher_dim, dim, generator=generator) - 1) / math.sqrt(dim)
            raw[key_of(index, term, "projection_weight")] = weight_KD
            raw[key_of(index, term, "projection_bias")] = torch.zeros(teacher_dim)
    return raw


def values(parameters: Mapping[str, Tensor], index: int, term: Term) -> dict[str, Tensor]:
    """The term's learned numbers as it sees them, within their bounds; with gradient."""
    bounded = dict(learned_settings(term))
    prefix = key_of(index, term, "")
    raw = {key.removeprefix(prefix): p for key, p in parameters.items() if key.startswith(prefix)}
    if missing := bounded.keys() - raw.keys():
        raise ValueError(f"{prefix}{min(missing)} is learned, and the encoder has no such parameter")
    return {name: to_value(bounded[name], x) if name in bounded else x for name, x in raw.items()}


def learned_settings(term: Term) -> Iterator[tuple[str, LearnedNumber]]:
    """Names, as the term knows them, and bounds of its learned scalars."""
    for name in type(term).model_fields:
        if isinstance(setting := getattr(term, name), LearnedNumber):
            yield NAMES.get(name, name), setting


def key_of(index: int, term: Term, name: str) -> str:
    """A parameter's name on the encoder."""
    return f"{index}_{term.kind}_{name}"


def to_value(bounds: LearnedNumber, raw: Tensor) -> Tensor:
    """A temperature moves in equal ratios between its bounds, any other number in equal steps."""
    share = torch.sigmoid(raw)
    if isinstance(bounds, LearnedTemperature):
        return bounds.minimum * (bounds.maximum / bounds.minimum) ** share
    return bounds.minimum + (bounds.maximum - bounds.minimum) * share


def to_raw(bounds: LearnedNumber) -> float:
    """The raw number whose value is the initial one."""
    low, start, high = bounds.minimum, bounds.initial, bounds.maximum
    if isinstance(bounds, LearnedTemperature):
        low, start, high = math.log(low), math.log(start), math.log(high)
    return math.log((start - low) / (high - start))
