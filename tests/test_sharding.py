"""Weights split among processes: the same gradients, runs and files as with whole ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import (
    OBJECTIVE,
    Gradients,
    Tuning,
    add_learned,
    make_batch,
    relative_error,
    step_gradients,
    tiny_encoder,
    tiny_folder,
    words,
)
from processes import run_on
from pydantic import ValidationError
from training import Curve, curve_of, full_stage, parameters, tiny_stage, train_tiny

from embedtrain.batch import TokenBatch
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row
from embedtrain.dist import agreed, current, in_turns
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.load import open_encoder
from embedtrain.sharding import is_sharded
from embedtrain.train.place import place_encoder, share_out, whole_weights
from embedtrain.train.snapshots import snapshot_folder
from embedtrain.train.step import encode_chunks

BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6}
CPU = torch.device("cpu")
SHARDED = Machine(num_processes=2, chunk_tokens=64, keep_tokens=100, sharding="full")
WHOLE = Machine(chunk_tokens=64, keep_tokens=100)


def unequal_rows() -> list[Row]:
    """One process gets a text as long as all others together, which stay on the other one."""
    rows = [Row(words(10 + i, 3), (words(60 + i, 5),), (words(90 + i, 4),)) for i in range(6)]
    return [*rows, Row(words(1, 3), (words(2, 90),), (words(3, 4),))]


def gradients_here(
    folder: str, tuning: Tuning, dtype: torch.dtype, keep_tokens: int, checkpointing: bool = False
) -> tuple[float, Gradients, tuple[int, int]]:
    """Loss, gradients, and this process's parts of (matrices, all else) that are sharded."""
    here, encoder = current(), tiny_encoder(tuning, dtype=dtype, folder=folder)
    add_learned(encoder, OBJECTIVE, None)
    machine = Machine(activation_checkpointing=checkpointing)
    place_encoder(encoder, CPU, machine, sharded=here.world > 1)
    parts = [p for p in encoder.parameters() if is_sharded(p)]
    batch = make_batch(encoder, unequal_rows(), here.rank, here.world)
    loss, gradients = step_gradients(encoder, batch, chunk_tokens=64, keep_tokens=keep_tokens)
    return loss, gradients, (len(parts), sum(p.ndim < 2 for p in parts))


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_gradients_are_those_of_whole_weights(tuning: Tuning, dtype: torch.dtype) -> None:
    """Kept, encoded again, and some of each; with LoRA the frozen matrices are shared out alone."""
    folder = tiny_folder()
    loss, expected, (none, _) = gradients_here(folder, tuning, dtype, 0)
    assert none == 0
    for keep_tokens in (0, 100, 10**6):
        (found_loss, found, (matrices, vectors)), _ = run_on(
            2, gradients_here, folder, tuning, dtype, keep_tokens
        )
        assert matrices == 3 * 7 + 1
        assert vectors == 0
        assert found_loss == pytest.approx(loss, rel=BOUNDS[dtype])
        assert relative_error(found, expected) <= BOUNDS[dtype]


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_activations_computed_again(tuning: Tuning) -> None:
    folder = tiny_folder()
    _, expected, _ = gradients_here(folder, tuning, torch.float64, 0)
    (_, found, _), _ = run_on(2, gradients_here, folder, tuning, torch.float64, 100, True)
    assert relative_error(found, expected) <= BOUNDS[torch.float64]


# --- as many turns on every process -------------------------------------------------------------------------


def chunks_here(folder: str) -> tuple[list[int], list[bool], int]:
    """Texts of each chunk, whether it was kept, and chunks that this process's own texts make."""
    encoder = tiny_encoder("lora", folder=folder)
    share_out(encoder, CPU)
    lengths = [40] if current().rank else [9, 8, 7, 6, 5]
    texts = TokenBatch.of([[5] * length for length in lengths])
    chunks = encode_chunks(encoder, texts, 15, 25)
    kept = [chunk.vectors_TD.requires_grad for chunk in chunks]
    return [len(chunk.texts) for chunk in chunks], kept, len(list(texts.chunks(15)))


def test_who_has_fewer_chunks_adds_empty_ones() -> None:
    """The long text cannot be kept, so nobody keeps its first chunk; the empty ones cost nothing."""
    first, second = run_on(2, chunks_here, tiny_folder())
    assert (first[2], second[2]) == (3, 1)
    assert first[0] == [1, 2, 2]
    assert second[0] == [1, 0, 0]
    assert first[1] == second[1] == [False, True, False]


def turns_here() -> tuple[list[object], list[bool]]:
    items = ["a", "b", "c"] if current().rank else ["z"]
    return list(in_turns(items)), agreed([True, False] if current().rank else [True, True, True])


def test_turns_and_flags() -> None:
    assert run_on(2, turns_here) == [
        (["z", None, None], [True, False, True]),
        (["a", "b", "c"], [True, False, True]),
    ]
    assert list(in_turns("ab")) == ["a", "b"]
    assert agreed([True, False]) == [True, False]


def encode_here(folder: str) -> np.ndarray:
    """Vectors of this process's own texts, many on the first, none on the second; then it trains on."""
    encoder = tiny_encoder("full", dtype=torch.float32, folder=folder)
    share_out(encoder, CPU)
    texts = [words(i, 6) for i in range(0 if current().rank else 9)]
    vectors = encoder.encode(texts, tokens_per_batch=32)
    encoder(TokenBatch.of([[5, 6]])).sum().backward()
    return vectors


def test_processes_encode_texts_of_their_own() -> None:
    folder = tiny_folder()
    found, none = run_on(2, encode_here, folder)
    whole = tiny_encoder("full", dtype=torch.float32, folder=folder)
    np.testing.assert_allclose(found, whole.encode([words(i, 6) for i in range(9)]), atol=1e-6)
    assert len(none) == 0


# --- whole runs ---------------------------------------------------------------------------------------------


def stage_of(tuning: Tuning) -> Train:
    """6 steps with a checkpoint in the middle and a snapshot, no dropout; the norm is clipped."""
    plain = tiny_stage(steps=6, lora={"rank": 4, "alpha": 8}) if tuning == "lora" else full_stage()
    return plain.model_copy(update={"save_every_steps": 3, "snapshot_steps": (6,), "max_gradient_norm": 0.5})


def run_here(folder: str, tuning: Tuning, target: str) -> tuple[Curve, dict[str, np.ndarray] | None]:
    """The curve, and on the first process the trained parameters; its encoder is saved."""
    root = Path(target)
    machine = SHARDED if current().world > 1 else WHOLE
    _, encoder = train_tiny(folder, root, stage_of(tuning), machine=machine)
    with whole_weights(encoder):
        if current().rank:
            return [], None
        save_encoder(encoder.eval(), root / "encoder")
        return curve_of(root), parameters(encoder)


def resumed_from(finished: Path, root: Path) -> Path:
    """What the finished run's folder held after 3 steps."""
    shutil.copytree(finished / "checkpoints/step-000003", root / "checkpoints/step-000003")
    shutil.copy(finished / "curve.jsonl", root)
    return root


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_runs_and_files_are_the_same(tuning: Tuning, tmp_path: Path) -> None:
    """Sharded as whole; each goes on from the other's checkpoint; the snapshot opens anywhere."""
    folder = tiny_folder()
    whole_curve, whole = run_here(folder, tuning, str(tmp_path / "whole"))
    (curve, found), _ = run_on(2, run_here, folder, tuning, str(tmp_path / "sharded"))
    onward = resumed_from(tmp_path / "whole", tmp_path / "onward")
    (onward_curve, there), _ = run_on(2, run_here, folder, tuning, str(onward))
    back_curve, back = run_here(folder, tuning, str(resumed_from(tmp_path / "sharded", tmp_path / "back")))
    assert whole is not None
    for other_curve, other in ((curve, found), (onward_curve, there), (back_curve, back)):
        assert other is not None
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(
                [line[name] for line in other_curve], [line[name] for line in whole_curve], rtol=2e-4
            )
        for name, expected in whole.items():
            np.testing.assert_allclose(other[name], expected, atol=2e-4, err_msg=name)
    assert max(float(line["gradient_norm"]) for line in whole_curve) > 0.5
    texts = [words(3, 8), words(4, 20)]
    expected = open_encoder(tmp_path / "whole/encoder").encode(texts)
    for opened in (tmp_path / "sharded/encoder", snapshot_folder(tmp_path / "sharded", 6)):
        np.testing.assert_allclose(open_encoder(opened).encode(texts), expected, atol=2e-3)
        assert (opened / "config.json").read_text() == (tmp_path / "whole/encoder/config.json").read_text()


# --- what does not go together ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_processes": 1}, "sharding is 'full', and num_processes is 1: there is nobody to share with"),
        (
            {"keep_tokens": "auto"},
            "sharding is 'full', and keep_tokens is 'auto', which each process measures for itself; "
            "write a number, 0 takes the least memory",
        ),
        ({"compile": True}, "sharding is 'full', and compile is true: sharded layers are not compiled"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    settings = {"num_processes": 2, "keep_tokens": 0, "sharding": "full"}
    Machine.model_validate(settings)
    with pytest.raises(ValidationError) as refused:
        Machine.model_validate(settings | changes)
    assert [error["msg"] for error in refused.value.errors()] == [f"Value error, {message}"]
