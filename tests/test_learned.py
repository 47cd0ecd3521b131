"""Learned numbers: where they start, their bounds, and who gets which."""

import math

import pytest
import torch
from torch import Tensor

from embedtrain.config.errors import UserError
from embedtrain.config.terms import InfoNCE, Learned, LearnedTemperature, Sigmoid
from embedtrain.loss.learned import initial_parameters, to_raw, to_value, value_of, values
from tools.parity_cases import LEARNED, objective

BIAS = Learned(initial=-10.0, minimum=-30.0, maximum=10.0)
TEMPERATURE = LearnedTemperature(initial=0.05, minimum=0.01, maximum=0.2)


@pytest.mark.parametrize("bounds", [BIAS, TEMPERATURE])
def test_a_number_starts_at_its_initial_value_and_stays_within_its_bounds(bounds: Learned) -> None:
    raw = torch.tensor([to_raw(bounds), -1e3, 1e3], dtype=torch.float64)
    assert to_value(bounds, raw).tolist() == pytest.approx(
        [bounds.initial, bounds.minimum, bounds.maximum], rel=1e-12
    )
    steps = to_value(bounds, torch.linspace(-5, 5, 101))
    assert bool((steps.diff() > 0).all())


def test_a_temperature_moves_in_ratios_and_a_bias_in_steps() -> None:
    middle = torch.zeros((), dtype=torch.float64)
    assert to_value(TEMPERATURE, middle).item() == pytest.approx(math.sqrt(0.01 * 0.2), rel=1e-12)
    assert to_value(BIAS, middle).item() == pytest.approx(-10.0, rel=1e-12)


def test_every_term_gets_its_own() -> None:
    config = objective("learned temperature", "infonce", "sigmoid", "distill_kl", "projected")
    raw = initial_parameters(config, 6, 4, seed=1)
    assert {name: tuple(x.shape) for name, x in raw.items()} == {
        "0_infonce_temperature": (),
        "2_sigmoid_temperature": (),
        "2_sigmoid_bias": (),
        "3_distill_kl_temperature": (),
        "4_embed_distill_projection_weight": (4, 6),
        "4_embed_distill_projection_bias": (4,),
    }
    assert {x.dtype for x in raw.values()} == {torch.float32}
    leaves = {name: x.clone().requires_grad_() for name, x in raw.items()}
    found = [values(leaves, index, term) for index, term in enumerate(config.terms)]
    assert [sorted(one) for one in found] == [
        ["temperature"], [], ["bias", "temperature"], ["temperature"],
        ["projection_bias", "projection_weight"],
    ]  # fmt: skip
    assert found[0]["temperature"].item() == pytest.approx(LEARNED["initial"], rel=1e-6)
    assert found[2]["bias"].item() == pytest.approx(-10, rel=1e-6)
    found[2]["bias"].backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == ["2_sigmoid_bias"]


def test_ten_terms_do_not_mix_their_names() -> None:
    """Term 1's numbers are not term 11's."""
    config = objective(*["infonce"] * 1, *["learned temperature"] * 11)
    raw = initial_parameters(config, 6, None, seed=1)
    assert len(raw) == 11
    marked = {name: torch.tensor(float(name.partition("_")[0])) for name in raw}
    temperatures = [values(marked, i, term)["temperature"] for i, term in enumerate(config.terms) if i]
    assert temperatures == sorted(temperatures)
    assert len(set(map(float, temperatures))) == 11


def test_a_projection_is_drawn_by_the_seed() -> None:
    def weight(seed: int) -> Tensor:
        return initial_parameters(objective("projected"), 9, 4, seed)["0_embed_distill_projection_weight"]

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))
    assert 0.2 < float(weight(1).abs().max()) < 1 / 3


def test_a_fixed_number_is_itself() -> None:
    assert value_of(0.02, {}, "temperature") == 0.02
    assert value_of(TEMPERATURE, {"temperature": torch.tensor(0.1)}, "temperature") == torch.tensor(0.1)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError) as error:
        initial_parameters(objective("infonce", "projected"), 6, None, seed=1)
    assert str(error.value) == "objective.terms[1] (embed_distill): projection needs teacher vectors"
    with pytest.raises(ValueError, match="0_sigmoid_bias is learned, and the encoder has no such parameter"):
        values({}, 0, Sigmoid(kind="sigmoid"))
    assert values({}, 0, InfoNCE(kind="infonce")) == {}
