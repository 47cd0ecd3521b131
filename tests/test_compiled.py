"""Compiled layers: the same gradients, warm-up told, and nothing left behind."""

import re
from pathlib import Path

import pytest
import torch
from contrastive import make_batch, ragged_rows, relative_error, step_gradients, tiny_encoder, tiny_folder
from training import tiny_stage, train_tiny

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.model.compiled import compiled_layers, require_compiler
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.train.log import read_curve

# what PyTorch's compiler says of its own code; it hides the second itself where warnings are no errors
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture
def _compiler() -> None:
    try:
        require_compiler()
    except UserError as error:
        pytest.skip(str(error))


def are_compiled(encoder: Encoder) -> list[bool]:
    return [layer._compiled_call_impl is not None for layer in layers_of(encoder.backbone)]


@pytest.mark.usefixtures("_compiler")
def test_layers_are_as_before_once_the_block_is_left() -> None:
    encoder = tiny_encoder("lora", dtype=torch.float32)
    names = list(encoder.state_dict())
    with compiled_layers(encoder, is_on=False):
        assert are_compiled(encoder) == [False] * 3
    try:
        with compiled_layers(encoder):
            assert are_compiled(encoder) == [True] * 3
            assert list(encoder.state_dict()) == names
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert are_compiled(encoder) == [False] * 3


def test_without_a_compiler_it_is_refused() -> None:
    encoder = tiny_encoder("lora", dtype=torch.float32)
    nowhere = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with nowhere, pytest.raises(UserError) as error, compiled_layers(encoder):
        pass
    assert str(error.value) == (
        "compile is true in the machine file, but PyTorch finds no C++ compiler; install g++ or set "
        "compile: false"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
def test_gradients_are_the_same() -> None:
    """Float32, dropout on, some graphs kept and some recomputed."""
    encoder = tiny_encoder("lora", dropout=0.3, dtype=torch.float32)
    batch = make_batch(encoder, ragged_rows())
    loss, gradients = step_gradients(encoder, batch, chunk_tokens=64, keep_tokens=150)
    torch._dynamo.reset()
    with compiled_layers(encoder):
        compiled_loss, compiled = step_gradients(encoder, batch, chunk_tokens=64, keep_tokens=150)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "the premise: something was compiled"
    assert compiled_loss == pytest.approx(loss, rel=1e-5)
    assert 0 < relative_error(compiled, gradients) < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
def test_a_training_tells_its_warm_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And measures what graphs hold while layers are compiled."""
    curves = {}
    for is_on in (False, True):
        folder, machine = tmp_path / str(is_on), Machine(chunk_tokens=64, compile=is_on)
        facts, encoder = train_tiny(tiny_folder(), folder, tiny_stage(steps=3), machine=machine)
        curves[is_on] = read_curve(folder / "curve.jsonl")
    assert are_compiled(encoder) == [False] * 3
    for compiled, plain in zip(curves[True], curves[False], strict=True):
        assert compiled["loss"] == pytest.approx(plain["loss"], rel=1e-4)
        assert compiled["kept_tokens"] == compiled["tokens"]
    first, *rest = curves[True]
    assert first["warm_up_seconds"] == first["seconds"]
    assert not any("warm_up_seconds" in line for line in [*rest, *curves[False]])
    seconds = sum(float(line["seconds"]) for line in rest)
    tokens = sum(int(line["tokens"]) for line in rest)
    assert facts["tokens_per_second"] == pytest.approx(tokens / seconds, rel=0.01)
    told = capsys.readouterr().err.splitlines()
    assert any(re.fullmatch(r"compiled layers: [\d.]+ s of warm-up in step 1", line) for line in told)
