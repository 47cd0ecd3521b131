"""The soup stage on tiny encoders with adapters, by each of its methods."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exports import PREFIXED, tiny_encoder

from embedtrain.artifacts import read_json
from embedtrain.average import merge, tensors_in_memory
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.config.soups import Soup
from embedtrain.model.checkpoint import all_tensors, save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import open_encoder
from embedtrain.stages import soup
from embedtrain.stages.context import StageContext


def make_context(folder: Path, method: dict[str, Any]) -> tuple[StageContext, list[Encoder]]:
    """Two checkpoints whose adapters differ, and a soup stage on them."""
    encoders = [tiny_encoder(folder / "base") for _ in range(2)]
    with torch.no_grad():
        for _, parameter in encoders[1].trainable():
            parameter.mul_(-1.5)
    inputs = {name: folder / name for name in ("one", "two")}
    for encoder, place in zip(encoders, inputs.values(), strict=True):
        save_encoder(encoder, place / "encoder")
    train = {"kind": "train", "objective": {"terms": [{"kind": "infonce", "temperature": 0.1}]}}
    train |= {"batch_size": 2, "steps": 1, "lr": 0.1}
    run = Run.model_validate(
        {
            "name": "r",
            "base": {"model": str(folder / "base")},
            "text": PREFIXED.model_dump(),
            "sources": {"faq": {"rows": "x.jsonl"}},
            "stages": [
                train | {"name": "one"},
                train | {"name": "two"},
                {"name": "soup", "kind": "soup", "from": ["one", "two"], "method": method},
            ],
        }
    )
    return StageContext(run, find_stage(run, "soup"), Machine(), folder / "soup", inputs), encoders


@pytest.mark.parametrize(
    "method",
    [
        {"kind": "mean", "weights": [3.0, 1.0]},
        {"kind": "slerp"},
        {"kind": "task_arithmetic", "scale": 0.5},
        {"kind": "ties", "density": 0.5},
        {"kind": "dare", "elect_signs": True},
    ],
)
def test_the_stage_merges_what_adapters_make_of_the_weights(tmp_path: Path, method: dict[str, Any]) -> None:
    context, encoders = make_context(tmp_path, method)
    facts = soup.run_stage(context)
    found = dict(all_tensors(open_encoder(tmp_path / "soup" / "encoder")))
    stage = context.stage
    assert isinstance(stage, Soup)
    models = [tensors_in_memory(dict(all_tensors(encoder)), "m") for encoder in encoders]
    base = tensors_in_memory(dict(all_tensors(tiny_base(tmp_path))), "base")
    expected = merge(models, stage.method, base=base, seed=context.seed)
    assert found.keys() == expected.info.keys()
    moved = 0.0
    for name in found:
        wanted = expected.read(name)
        moved += float((wanted - base.read(name)).norm())
        assert torch.allclose(found[name], wanted, rtol=1e-6, atol=1e-7), name
    assert moved > 0.1  # the premise: the checkpoints differ from the base
    assert facts["method"]["kind"] == method["kind"]
    shares = {"mean": [0.75, 0.25], "slerp": [0.5, 0.5]}.get(method["kind"], [None, None])
    assert facts["weights"] == dict(zip(["one", "two"], shares, strict=True))


def tiny_base(folder: Path) -> Encoder:
    """The base that the checkpoints started from: adapters that change nothing."""
    encoder = tiny_encoder(folder / "base")
    with torch.no_grad():
        for name, parameter in encoder.trainable():
            if "lora_B" in name:
                parameter.zero_()
    return encoder


def test_encoders_of_two_kinds_are_refused(tmp_path: Path) -> None:
    context, _ = make_context(tmp_path, {"kind": "mean"})
    path = tmp_path / "two" / "encoder" / "encoder.json"
    path.write_text(path.read_text().replace('"mean"', '"cls"'))
    assert read_json(path)["spec"]["pooling"] == "cls"
    with pytest.raises(UserError) as caught:
        soup.run_stage(context)
    one, two = (tmp_path / name / "encoder" for name in ("one", "two"))
    assert str(caught.value) == (
        f"these models cannot be averaged, they differ:\n  pooling: mean in {one}; cls in {two}"
    )
    assert not (tmp_path / "soup").exists()
