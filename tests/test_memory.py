"""Kept graphs: what they hold, how many fit, and that no result depends on it."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import make_batch, ragged_rows, step_gradients, tiny_encoder, tiny_folder
from tiny_models import save_tiny
from torch import Tensor
from training import curve_of, parameters, same, tiny_stage, train_tiny

from embedtrain.batch import TokenBatch
from embedtrain.config.schema import Machine
from embedtrain.model.encoder import Encoder
from embedtrain.train.budget import Budget
from embedtrain.train.log import read_curve, speed
from embedtrain.train.memory import (
    GraphCost,
    describe,
    free_bytes,
    free_ram,
    measure_graph,
    measure_on_cuda,
    measure_saved,
    tokens_within,
)
from embedtrain.train.schedule import make_optimizer

GIB = 2**30


def texts_of(encoder: Encoder) -> TokenBatch:
    return make_batch(encoder, ragged_rows()).documents


# --- what a graph holds -------------------------------------------------------------------------------------


def tensors_of_graph(vectors: Tensor) -> Iterator[Tensor]:
    """Every tensor that a graph holds, node by node."""
    waiting, seen = [vectors.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        saved = [getattr(node, name) for name in dir(node) if re.match("_saved_(?!tensors)", name)]
        yield from (x for x in [*saved, *getattr(node, "saved_tensors", ())] if isinstance(x, Tensor))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bert"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_bytes_are_those_of_the_graph(tmp_path: Path, family: str, tuning: str) -> None:
    folder = str(save_tiny(family, tmp_path, seed=3))
    encoder = tiny_encoder(tuning, dtype=torch.float32, folder=folder)  # type: ignore[arg-type]
    part = texts_of(encoder)
    weights = {p.data_ptr() for p in (*encoder.parameters(), *encoder.buffers())}
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in tensors_of_graph(encoder(part))}
    assert weights & storages.keys(), "the premise: weights are among what is saved"
    expected = sum(storage.nbytes() for place, storage in storages.items() if place not in weights)
    assert measure_saved(encoder, part, is_checkpointing=False) == expected > 1000 * part.num_tokens


def test_with_activation_checkpointing_the_layers_inputs_are_left() -> None:
    encoder = tiny_encoder("lora", dtype=torch.float32)
    part = texts_of(encoder)
    whole = measure_saved(encoder, part, is_checkpointing=False)
    encoder.checkpoint_activations()
    inputs = 3 * part.num_tokens * encoder.dim * 4
    assert inputs <= measure_saved(encoder, part, is_checkpointing=True) < whole / 3


def test_measuring_changes_nothing() -> None:
    encoder = tiny_encoder("lora", dropout=0.3, dtype=torch.float32)
    part, before = texts_of(encoder), torch.get_rng_state()
    encoder.zero_grad()
    cost = measure_graph(encoder, part, part.num_tokens, 2 * part.num_tokens, False)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in encoder.parameters())
    gradients = sum(p.nbytes for _, p in encoder.trainable())
    assert cost.besides == pytest.approx(2 * part.num_tokens * cost.per_token + gradients)


@pytest.mark.gpu
def test_an_allocator_and_a_count_agree() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    encoder = tiny_encoder("lora", dtype=torch.float32).to("cuda")
    part = TokenBatch.of([[5] * 200] * 100)
    graph, besides = measure_on_cuda(encoder, part)
    assert graph == pytest.approx(measure_saved(encoder, part, is_checkpointing=False), rel=0.1)
    assert 0 < besides < graph
    free = free_bytes(torch.device("cuda"), 8)
    assert free is not None
    assert 0 < free <= torch.cuda.get_device_properties(0).total_memory


# --- how many fit -------------------------------------------------------------------------------------------


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


MEMINFO = {"proc/meminfo": f"MemTotal: 999999999 kB\nMemAvailable: {8 * 2**20} kB\nHugePages_Total: 0\n"}


def group(folder: str, limit: str, used: int, cached: int) -> dict[str, str]:
    """A control group of version 2."""
    stat = f"anon 5\ninactive_file {cached - 1}\nactive_file 1\n"
    place = f"sys/fs/cgroup/{folder}/memory"
    return {f"{place}.max": limit, f"{place}.current": str(used), f"{place}.stat": stat}


def test_free_memory_is_the_least_that_any_group_leaves(tmp_path: Path) -> None:
    assert free_ram(tmp_path) is None
    root = write(tmp_path, MEMINFO)
    assert free_ram(root) == 8 * GIB
    write(root, {"proc/self/cgroup": "0::/jobs/one\n"})
    assert free_ram(root) == 8 * GIB, "the groups of another container cannot be read"
    write(root, group("jobs/one", "max\n", 6 * GIB, GIB))
    assert free_ram(root) == 8 * GIB
    write(root, group("jobs", f"{7 * GIB}\n", 6 * GIB, GIB))
    assert free_ram(root) == 2 * GIB
    write(root, group("jobs/one", str(GIB), 2 * GIB, GIB // 2))
    assert free_ram(root) == 0


def test_groups_of_version_1(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:devices:/\n4:memory:/job\n0::/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(4 * GIB),
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(3 * GIB),
        "sys/fs/cgroup/memory/job/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}\n",
    }
    assert free_ram(write(tmp_path, MEMINFO | files)) == 2 * GIB


def test_processes_of_a_machine_share_its_memory() -> None:
    one, four = (free_bytes(torch.device("cpu"), count) for count in (1, 4))
    assert one is not None
    assert four == pytest.approx(one / 4, rel=0.3)


def test_tokens_that_fit() -> None:
    cost = GraphCost(per_token=2**20, besides=2 * GIB)
    assert tokens_within(12 * GIB, cost) == 10 * 1024
    assert tokens_within(GIB, cost) == 0
    assert tokens_within(None, cost) == 8192


def test_what_is_told() -> None:
    cost = GraphCost(per_token=1.2 * 2**20, besides=0)
    assert describe(cost, round(9.4 * GIB), 9000, 8410) == (
        "kept graphs: 1.2 MiB a token, 9.4 GiB free: all 8,410 tokens of the first step in one pass"
    )
    assert describe(cost, 30 * GIB, 20480, 131072) == (
        "kept graphs: 1.2 MiB a token, 30.0 GiB free: 20,480 of the first step's 131,072 tokens; the rest is "
        "encoded twice"
    )
    assert "free memory unknown: 8,192 of" in describe(cost, None, 8192, 10000)


def test_a_number_of_the_machine_file_stays(capsys: pytest.CaptureFixture[str]) -> None:
    encoder = tiny_encoder("lora", dtype=torch.float32)
    optimizer = make_optimizer(encoder.trainable(), tiny_stage())
    machine = Machine(keep_tokens=5)
    budget = Budget.of(machine)
    budget.settle(encoder, texts_of(encoder), optimizer, machine)
    assert (budget.keep_tokens, capsys.readouterr().err) == (5, "")
    budget = Budget.of(Machine())
    budget.settle(encoder, TokenBatch.of([]), optimizer, Machine())
    assert budget.keep_tokens is None, "nothing to measure yet"
    budget.settle(encoder, texts_of(encoder), optimizer, Machine())
    assert budget.keep_tokens is not None
    assert re.fullmatch(
        r"kept graphs: [\d.]+ KiB a token, [\d.]+ GiB free: all \d+ tokens of the first step in one pass\n",
        capsys.readouterr().err,
    )


# --- no result depends on it --------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_kept_is_recomputed_bit_for_bit(tuning: str) -> None:
    """Float32, with dropout."""
    encoder = tiny_encoder(tuning, dropout=0.3, dtype=torch.float32)  # type: ignore[arg-type]
    batch = make_batch(encoder, ragged_rows())
    results = [step_gradients(encoder, batch, chunk_tokens=64, keep_tokens=n) for n in (0, 150, 10**6)]
    for loss, gradients in results[1:]:
        assert loss == results[0][0]
        assert all(np.array_equal(gradients[name], results[0][1][name]) for name in gradients)


def test_a_training_is_the_same_whatever_is_kept(tmp_path: Path) -> None:
    found = []
    for keep_tokens in (0, 150, "auto"):
        machine = Machine.model_validate({"chunk_tokens": 64, "keep_tokens": keep_tokens})
        folder = tmp_path / str(keep_tokens)
        facts, encoder = train_tiny(tiny_folder(), folder, tiny_stage(steps=6), machine=machine)
        assert facts["tokens_per_second"] > 0
        found.append((curve_of(folder), parameters(encoder), read_curve(folder / "curve.jsonl")))
    (curve, trained, none), (_, _, some), (_, _, all_) = found
    for other_curve, other_trained, _ in found[1:]:
        assert other_curve == curve
        assert same(other_trained, trained)
    for nothing, part, everything in zip(none, some, all_, strict=True):
        assert nothing["kept_tokens"] == 0 < part["kept_tokens"] <= 150
        assert everything["kept_tokens"] == everything["tokens"] > 150
        assert 0 <= everything["feed_seconds"] <= everything["seconds"]


def test_warm_up_does_not_count_as_speed() -> None:
    lines = [
        {"tokens": 100, "seconds": 50.0, "feed_seconds": 0.5, "warm_up_seconds": 50.0},
        {"tokens": 100, "seconds": 2.0, "feed_seconds": 0.0},
        {"tokens": 300, "seconds": 2.0, "feed_seconds": 0.25},
    ]
    assert speed(lines) == {
        "step_seconds": 54.0,
        "feed_seconds": 0.75,
        "warm_up_seconds": 50.0,
        "tokens_per_second": 100.0,
    }
    assert speed(lines[:1])["tokens_per_second"] == 0.0
