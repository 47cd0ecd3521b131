"""Runs a function on N new gloo processes: what the tools that compare process counts share."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def on_processes(num_processes: int, function: Callable[..., Any], *args: object) -> Any:
    """`function(*args)` on every process of a new group; what the first one returned.

    The function must stand at the top of a module. Each process has one thread, and a warning is an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(serve, (num_processes, folder, function, args), nprocs=num_processes)
        return torch.load(Path(folder) / "result.pt", weights_only=False)


def serve(rank: int, world: int, folder: str, function: Callable[..., Any], args: tuple[object, ...]) -> None:
    """One process: join the group, do the work, and on the first process keep what it gave."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = function(*args)
    if rank == 0:
        torch.save(result, Path(folder) / "result.pt")
    dist.barrier()
    dist.destroy_process_group()
