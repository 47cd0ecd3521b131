"""What a run costs, by hand and beside measurements; how figures are rounded."""

import pytest

from embedtrain.config.costs import (
    GPUS,
    Range,
    Step,
    Tuning,
    batch_bytes,
    device_of,
    fixed_bytes,
    forward_flops,
    training_flops,
)
from embedtrain.config.errors import ConfigError
from embedtrain.config.load import load_machine
from embedtrain.config.schema import Machine
from embedtrain.config.shapes import Shape
from embedtrain.pipeline.costs.table import bytes_text, count_text, memory_text, time_text
from tools.plan_ratios import BOUNDS, DISTILLED, STEPS, Compared, compare_distilled, compare_steps

SHAPE = Shape("llama", hidden=8, layers=2, heads=2, intermediate=16, vocab=100, positions=64)


# --- by hand ------------------------------------------------------------------------------------------------


def test_flops_of_a_token() -> None:
    weights = 2 * (4 * 8 * 8 + 3 * 8 * 16)
    attention = 4 * 2 * 10 * 8
    assert SHAPE.products == weights
    assert forward_flops(SHAPE, 10) == 2 * weights + attention
    full, lora = Tuning("float32"), Tuning("float32", adapters=100, ranks=7)
    assert training_flops(SHAPE, 0, full) == 6 * weights
    assert training_flops(SHAPE, 0, full, kept=0) == 8 * weights
    assert training_flops(SHAPE, 0, lora) == 4 * weights + 600
    assert training_flops(SHAPE, 0, lora, kept=0) == 6 * weights + 600
    assert training_flops(SHAPE, 0, lora, again=True) == 6 * weights + 600
    assert training_flops(SHAPE, 10, full) - 6 * weights == 3 * attention


def test_bytes_that_do_not_grow_with_the_batch() -> None:
    n = SHAPE.parameters
    assert fixed_bytes(SHAPE, Tuning("float32")) == 16 * n
    assert fixed_bytes(SHAPE, Tuning("bfloat16")) == 16 * n + 2 * SHAPE.products
    assert fixed_bytes(SHAPE, Tuning("bfloat16", adapters=100)) == 2 * n + 1600
    small = 2 * (n - SHAPE.products) + 4.127 / 8 * SHAPE.products + 1600
    assert fixed_bytes(SHAPE, Tuning("bfloat16", adapters=100, quantised=True)) == pytest.approx(small, 1e-4)


def test_bytes_of_a_batch() -> None:
    step = Step(tokens=0, chunk=0, length=0, local_queries=4, queries=8, candidates=16, dims=8, views=3)
    assert batch_bytes(step) == 4 * 4 * 24 * 8 + 5 * 4 * 3 * 4 * 16
    large = Step(0, 0, 0, local_queries=16384, queries=16384, candidates=131072, dims=256)
    assert batch_bytes(large) < 2e9 < 4 * 16384 * 131072


def test_speed_is_told_or_unknown() -> None:
    assert device_of("cpu", "float32", 2, None, 576).rate == 2 * device_of("cpu", "float32", 1, None, 1).rate
    assert device_of("cpu", "bfloat16", 2, None, 576).rate is None
    assert device_of("mps", "float32", 2, None, 576).rate is None
    assert device_of("cuda", "bfloat16", 2, "a100", 4096).rate == pytest.approx(0.4 * 312e12)
    assert device_of("cuda", "bfloat16", 2, None, 576).rate == pytest.approx(0.25 * 989e12)


def test_the_machine_file_names_the_gpus_that_are_known() -> None:
    for name in GPUS:
        assert Machine(device="cuda", gpu=name).gpu == name
    with pytest.raises(ConfigError) as fault:
        load_machine(overrides=["gpu=h100"])
    assert "gpu is only read with device 'cuda', and it is 'cpu'" in str(fault.value)


# --- beside measurements ------------------------------------------------------------------------------------


def test_estimates_hold_beside_committed_measurements() -> None:
    compared = [*compare_steps(STEPS), *compare_distilled(DISTILLED)]
    assert len(compared) == 13
    far = [one for one in compared if not 1 / BOUNDS[one.unit] <= one.ratio <= BOUNDS[one.unit]]
    assert far == []


def test_a_missed_bound_is_told() -> None:
    assert not Compared("a step", "seconds", 41.0, 20.0).holds
    assert not Compared("a step", "GB", 1.0, 2.0).holds
    assert Compared("a short step", "seconds", 9.0, 3.0).holds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (time_text(0.2), "~1 s"),
        (time_text(96), "~2 min"),
        (time_text(3700), "~1 h"),
        (time_text(11000), "~3 h"),
        (time_text(2e6), "~20 d"),
        (time_text(None), "unknown"),
        (bytes_text(96.4e9), "~96 GB"),
        (bytes_text(999.9e6), "~1 GB"),
        (bytes_text(0), "0"),
        (count_text(1_314_911), "1.3 M"),
        (memory_text(Range(19e9, 64e9)), "19 – 64 GB"),
        (memory_text(Range(0.9e9, 1.2e9)), "900 MB – 1.2 GB"),
        (memory_text(None), "unknown"),
    ],
)
def test_figures_are_rounded(text: str, expected: str) -> None:
    assert text == expected
