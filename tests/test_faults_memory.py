"""A step that finds no memory begins anew with less, on all processes alike; no result depends on it."""

import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
import torch
from contrastive import tiny_folder
from distilling import run_tiny as run_distil
from faulted import state_of
from processes import run_on
from tiny_models import save_tiny
from torch import nn
from training import curve_of, parameters, same, tiny_stage, train_tiny

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Train
from embedtrain.dist import current
from embedtrain.train.budget import is_out_of_memory
from embedtrain.train.log import CURVE, Figures, read_curve

MIB = 2**20
WIDE = 2**15
"""Numbers between the two halves of a layer: a token costs half a megabyte, so that few fill a limit."""


@contextmanager
def at_backbone(call: int, act: str) -> Iterator[None]:
    """From this call of a backbone on, find no memory as torch says it on a GPU, or set a limit once."""
    calls: list[nn.Module] = []

    def look(module: nn.Module, inputs: tuple[object, ...]) -> None:
        if type(module).__name__ not in ("LlamaModel", "BertModel"):
            return
        calls.append(module)
        if act == "limit" and len(calls) == call:
            limit_memory(64 * MIB)
        if (act == "always" and len(calls) >= call) or (act == "once" and len(calls) == call):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert len(calls) >= call, "the premise: it was called so often"


def limit_memory(more: int) -> None:
    """This process gets so many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, resource.RLIM_INFINITY))


def stage_of(**changes: object) -> Train:
    """Without dropout."""
    return tiny_stage(
        steps=5, batch_size=4, lora={"rank": 4, "alpha": 8}, keep_last=9, save_every_steps=1, **changes
    )


def losses_of(curve: list[Figures]) -> list[float]:
    return [float(line["loss"]) for line in curve]


def test_what_torch_says() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55)
    assert is_out_of_memory(error.value), "on a CPU"
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(UserError("out of memory"))


def test_graphs_are_let_go_before_chunks_become_smaller(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With dropout: the numbers are those of a training that had the memory, bit for bit."""
    stage, machine = tiny_stage(steps=4), Machine(chunk_tokens=64)
    _, encoder = train_tiny(tiny_folder(), tmp_path / "whole", stage, machine=machine)
    capsys.readouterr()
    with at_backbone(30, "once"):
        _, again = train_tiny(tiny_folder(), tmp_path / "short", stage, machine=machine)
    said = capsys.readouterr().err
    assert re.search(
        r"\nstep \d: out of memory, begun anew; chunks of 64 tokens, graphs of [\d,]+ are kept\n", said
    )
    assert curve_of(tmp_path / "short") == curve_of(tmp_path / "whole")
    assert same(parameters(again), parameters(encoder))
    assert "chunk_tokens" not in state_of(tmp_path / "short")


def test_no_memory_at_all_is_told_with_what_to_change(tmp_path: Path) -> None:
    machine = Machine(chunk_tokens=4, keep_tokens=10)
    with at_backbone(30, "always"), pytest.raises(UserError) as error:
        train_tiny(tiny_folder(), tmp_path, tiny_stage(), machine=machine)
    assert re.fullmatch(
        r"stage 'tune', step \d: out of memory; a chunk has 1 tokens \(chunk_tokens\): lower them in the "
        r"machine file, switch its activation_checkpointing on, or lower token limits or batch_size in the "
        r"run",
        str(error.value),
    )


def train_short(model: str, folder: str, short: int) -> tuple[list[Figures], str]:
    """A training in which process `short` finds too little memory; its curve, and what the process says."""
    machine, said = Machine(chunk_tokens=512, keep_tokens=0), StringIO()
    with at_backbone(3, "limit" if current().rank == short else "never"), redirect_stderr(said):
        train_tiny(model, Path(folder), stage_of(), machine=machine)
    return curve_of(Path(folder)), said.getvalue()


@pytest.mark.parametrize("world", [1, 2])
def test_chunks_become_smaller_where_memory_is_really_short(tmp_path: Path, world: int) -> None:
    """The kernel refuses the last process's allocations: same losses to rounding; a resume keeps to less."""
    model = str(save_tiny("llama", tmp_path / "wide", num_hidden_layers=1, intermediate_size=WIDE))
    whole, _ = run_on(world, train_short, model, str(tmp_path / "whole"), -1)[0]
    found = run_on(world, train_short, model, str(tmp_path / "short"), world - 1)
    who = " on 1 of 2 processes" if world == 2 else ""
    said = rf"step \d: out of memory{who}, begun anew; chunks of (\d+) tokens, graphs of 0 are kept"
    chunks = [int(size) for size in re.findall(said, found[0][1])]
    assert chunks, "the premise: memory was short"
    assert chunks == [512 >> number for number in range(1, len(chunks) + 1)]
    for curve, _ in found:
        assert losses_of(curve) == pytest.approx(losses_of(whole), rel=1e-5)
    assert state_of(tmp_path / "short")["chunk_tokens"] == chunks[-1]
    assert "chunk_tokens" not in state_of(tmp_path / "whole")
    if world == 1:
        resumes_with_as_little(model, tmp_path)


def test_a_distillation_halves_its_chunks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It keeps no graphs: chunks are all that it has to let go. Same losses to rounding; checkpoints know."""
    settings = {"dropout": False, "save_every_steps": 1, "keep_last": 99}
    whole, _ = run_distil(tmp_path / "whole", **settings)
    capsys.readouterr()
    with at_backbone(12, "once"):
        short, _ = run_distil(tmp_path / "short", **settings)
    said = "out of memory, begun anew; chunks of 32 tokens, graphs of 0 are kept"
    assert re.findall(rf"step \d: {said}", capsys.readouterr().err)
    curves = [read_curve(folder / CURVE) for folder in (short, whole)]
    assert losses_of(curves[0]) == pytest.approx(losses_of(curves[1]), rel=1e-5)
    assert state_of(short)["chunk_tokens"] == 32
    assert "chunk_tokens" not in state_of(whole)


def resumes_with_as_little(model: str, folder: Path) -> None:
    """Bit for bit, though there is memory again, from the first checkpoint after the last shortage."""
    shutil.copytree(folder / "short", folder / "again")
    least = state_of(folder / "short")["chunk_tokens"]
    saved = sorted((folder / "again" / "checkpoints").iterdir())
    as_little = [place for place in saved if read_json(place / "state.json").get("chunk_tokens") == least]
    assert len(as_little) > 1, "the premise: a step without a shortage"
    for place in as_little[1:]:
        shutil.rmtree(place)
    machine = Machine(chunk_tokens=512, keep_tokens=0)
    train_tiny(model, folder / "again", stage_of(), machine=machine)
    assert curve_of(folder / "again") == curve_of(folder / "short")
