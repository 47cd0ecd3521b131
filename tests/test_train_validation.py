"""Validation during training: when, on how many processes, the best kept, across a kill."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from contrastive import tiny_folder
from processes import run_on
from pydantic import ValidationError
from safetensors.torch import load_file
from souped import write_held_out
from taught_sources import write_sources
from tiny_models import save_tiny
from training import STEPS, curve_of, full_stage, parameters, same, tiny_stage, train_tiny
from validated import measured, validated_context

from embedtrain.artifacts import read_json
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Train
from embedtrain.config.validating import Validating
from embedtrain.dist import current
from embedtrain.model.encoder import Encoder
from embedtrain.pipeline import outside_paths
from embedtrain.train.best import best_file
from embedtrain.train.place import whole_weights
from embedtrain.train.snapshots import snapshot_folder
from embedtrain.train.validation import Validate

BEST = 8
EVERY_4 = {"data": ["held.jsonl"], "every_steps": 4, "keep_best": True}
SETTINGS = {"validation": EVERY_4, "save_every_steps": 3, "snapshot_steps": [BEST]}
STAGE = tiny_stage(**SETTINGS)


class Killed(Exception):
    """Ends a training where it stands."""


def peaks(folder: Path, die_in: int = 0) -> Validate:
    """A measure that is best after step 8; in the step `die_in` it ends the training."""

    def validate(encoder: Encoder) -> dict[str, float]:
        step = len(curve_of(folder)) + 1
        if step == die_in:
            raise Killed
        assert not encoder.training
        return {"mean": -abs(step - BEST) / 3, "other": 1.0}

    return validate


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Encoder, dict[str, object]]:
    folder = tmp_path_factory.mktemp("whole")
    facts, encoder = train_tiny(tiny_folder(), folder, STAGE, validate=peaks(folder))
    return folder, encoder, facts


Finished = tuple[Path, Encoder, dict[str, object]]


def test_the_best_encoder_is_what_is_left(whole: Finished) -> None:
    folder, encoder, facts = whole
    curve = curve_of(folder)
    assert [line["step"] for line in curve if "validation/mean" in line] == [4, 8, 12, 16, STEPS]
    assert facts["best"] == {"step": BEST, "mean": 0.0}
    kept = load_file(snapshot_folder(folder, BEST) / "adapter.safetensors")
    found = {
        name.removeprefix("backbone.").replace(".default.", "."): p
        for name, p in parameters(encoder).items()
        if ".lora_" in name
    }
    assert found.keys() == {name.removeprefix("backbone.") for name in kept}
    assert all(np.array_equal(found[name.removeprefix("backbone.")], kept[name].numpy()) for name in kept)
    last = load_file(folder / "checkpoints" / f"step-{STEPS:06d}" / "parameters.safetensors")
    assert not same({name: t.numpy() for name, t in last.items()}, parameters(encoder))


def test_it_is_the_same_after_a_kill(tmp_path: Path, whole: Finished) -> None:
    """In step 16, after the best one; checkpoints before and after it are the only ones left."""
    _, encoder, facts = whole
    with pytest.raises(Killed):
        train_tiny(tiny_folder(), tmp_path, STAGE, validate=peaks(tmp_path, die_in=16))
    state = read_json(tmp_path / "checkpoints" / "step-000015" / "state.json")
    assert (state["best_step"], state["best_mean"]) == (BEST, 0.0)
    again, resumed = train_tiny(tiny_folder(), tmp_path, STAGE, validate=peaks(tmp_path))
    assert again["best"] == facts["best"]
    assert same(parameters(resumed), parameters(encoder))
    assert curve_of(tmp_path) == curve_of(whole[0])
    assert list((tmp_path / "best").iterdir()) == [best_file(tmp_path, BEST)]
    _, at_the_end = train_tiny(tiny_folder(), tmp_path, STAGE, validate=peaks(tmp_path))
    assert same(parameters(at_the_end), parameters(encoder))  # killed after its last step


@pytest.mark.parametrize(("die_in", "damaged", "goes_on"), [(12, 9, 6), (16, 12, 15)])
def test_it_is_the_same_after_a_state_was_damaged(
    tmp_path: Path,
    whole: Finished,
    die_in: int,
    damaged: int,
    goes_on: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """That of the newest checkpoint, with another best than the one before; and that of an older one."""
    _, encoder, facts = whole
    stage, checkpoints = tiny_stage(**(SETTINGS | {"keep_last": 3})), tmp_path / "checkpoints"
    with pytest.raises(Killed):
        train_tiny(tiny_folder(), tmp_path, stage, validate=peaks(tmp_path, die_in=die_in))
    states = [read_json(folder / "state.json") for folder in sorted(checkpoints.iterdir())]
    bests = {state["step"]: state.get("best_step") for state in states}
    assert bests == ({3: None, 6: 4, 9: BEST} if die_in == 12 else {9: BEST, 12: BEST, 15: BEST})
    (checkpoints / f"step-{damaged:06d}" / "state.json").write_bytes(b'{"step": \xff')
    capsys.readouterr()
    again, resumed = train_tiny(tiny_folder(), tmp_path, stage, validate=peaks(tmp_path))
    assert f"train tune from step {goes_on}: " in capsys.readouterr().err
    assert again["best"] == facts["best"]
    assert same(parameters(resumed), parameters(encoder))
    assert curve_of(tmp_path) == curve_of(whole[0])
    assert list((tmp_path / "best").iterdir()) == [best_file(tmp_path, BEST)]


def test_full_tuning_with_dropout_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Mid-epoch, with dropout in the attention."""
    settings = full_stage().model_dump(by_alias=True) | {"steps": 10, "save_every_steps": 3}
    stage = Train.model_validate(settings | {"validation": EVERY_4})
    model = tiny_folder(0.1)
    _, expected = train_tiny(model, tmp_path / "whole", stage, validate=peaks(tmp_path / "whole"))
    with pytest.raises(Killed):
        train_tiny(model, tmp_path / "killed", stage, validate=peaks(tmp_path / "killed", die_in=8))
    assert len(curve_of(tmp_path / "killed")) == 7
    _, resumed = train_tiny(model, tmp_path / "killed", stage, validate=peaks(tmp_path / "killed"))
    assert same(parameters(resumed), parameters(expected))
    assert curve_of(tmp_path / "killed") == curve_of(tmp_path / "whole")
    dry = train_tiny(tiny_folder(), tmp_path / "dry", stage, validate=peaks(tmp_path / "dry"))[1]
    assert not same(parameters(dry), parameters(expected))  # the premise: there is dropout


def test_minutes_are_those_of_a_clock(tmp_path: Path) -> None:
    """A clock that is always due: every step is validated and saved."""
    often = {"data": ["held.jsonl"], "every_minutes": 1e-9}
    stage = tiny_stage(steps=4, validation=often, save_every_minutes=1e-9, keep_last=9)
    train_tiny(tiny_folder(), tmp_path, stage, validate=peaks(tmp_path))
    assert all("validation/mean" in line for line in curve_of(tmp_path))
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 4


# --- the stage's own measure --------------------------------------------------------------------------------


def test_all_processes_measure_the_same(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "base")
    write_sources(tmp_path)
    write_held_out(tmp_path / "held.jsonl")
    alone = measured(tmp_path)
    assert alone.keys() == {"held", "mean"}
    assert 0 < alone["mean"] < 100
    assert run_on(2, measured, tmp_path) == [alone, alone]


def test_sharded_processes_measure_the_same(tmp_path: Path) -> None:
    """They run the layers together, so all encode every text."""
    save_tiny("llama", tmp_path / "base")
    write_sources(tmp_path)
    write_held_out(tmp_path / "held.jsonl")
    alone = measured(tmp_path)
    for found in run_on(2, measured, tmp_path, "full"):
        assert found == pytest.approx(alone, abs=1e-3)


def best_here(model: str, target: str) -> dict[str, np.ndarray] | None:
    """On the first process, the parameters that are left; several processes share the weights out."""
    machine = Machine(num_processes=2, sharding="full", keep_tokens=0) if current().world > 1 else Machine()
    changes = {"steps": 12, "save_every_steps": 3, "validation": STAGE.validation}
    stage = full_stage().model_copy(update=changes)
    _, encoder = train_tiny(model, Path(target), stage, machine=machine, validate=peaks(Path(target)))
    with whole_weights(encoder):
        return None if current().rank else parameters(encoder)


def test_sharded_processes_keep_the_same_best(tmp_path: Path) -> None:
    """Best after step 8 of 12, not the last one."""
    expected = best_here(tiny_folder(), str(tmp_path / "whole"))
    found, nothing = run_on(2, best_here, tiny_folder(), str(tmp_path / "sharded"))
    assert expected is not None
    assert nothing is None
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-4, err_msg=name)
    last = load_file(tmp_path / "whole/checkpoints" / "step-000012" / "parameters.safetensors")
    assert any(not np.allclose(last[name].numpy(), expected[name], atol=2e-4) for name in expected)


def test_the_data_is_a_part_of_what_the_stage_is(tmp_path: Path) -> None:
    write_held_out(tmp_path / "held.jsonl")
    context = validated_context(tmp_path)
    assert str(tmp_path / "held.jsonl") in outside_paths(context.run, context.stage)
    assert "validation" in context.stage.identity()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("{every_steps: 2, every_minutes: 3}", "both every_steps and every_minutes are given"),
        ("{}", "neither every_steps nor every_minutes is given"),
    ],
)
def test_steps_or_minutes(given: str, text: str) -> None:
    with pytest.raises(ValidationError, match=f"{text}; expected one of them"):
        Validating.model_validate({"data": ["held.jsonl"]} | yaml.safe_load(given))
