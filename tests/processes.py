"""Runs a function on N gloo processes. One group of each size serves the whole pytest run."""

import multiprocessing as mp
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from embedtrain.dist import start_processes

SECONDS = 120


@dataclass
class Group:
    """Processes that wait for work."""

    workers: list[BaseProcess]
    pipes: list[Connection]

    def kill(self) -> None:
        """End the processes of this group."""
        for worker in self.workers:
            worker.kill()
            worker.join()


def run_on(num_processes: int, function: Callable[..., Any], *args: object) -> list[Any]:
    """`function(*args)` on every process at once; what each returned, by rank.

    The function must stand at the top of a module; it and what it returns are pickled. A failure on any
    process fails the call with its traceback, and the next call gets a fresh group.
    """
    group = start_group(num_processes)
    for pipe in group.pipes:
        pipe.send((function, args))
    results: dict[int, Any] = {}
    while len(results) < num_processes:
        waiting = [pipe for rank, pipe in enumerate(group.pipes) if rank not in results]
        ready = wait(waiting, SECONDS)
        for pipe in ready or waiting[:1]:
            rank = group.pipes.index(pipe)
            ok, results[rank] = pipe.recv() if ready else (False, f"no answer in {SECONDS} s")
            if not ok:
                group.kill()
                start_group.cache_clear()
                raise AssertionError(f"process {rank} of {num_processes}:\n{results[rank]}")
    return [results[rank] for rank in range(num_processes)]


@cache
def start_group(num_processes: int) -> Group:
    """Start N processes that share one process group; they end with this process."""
    context = mp.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = Group([], [])
    for rank in range(num_processes):
        here, there = context.Pipe()
        worker = context.Process(target=serve, args=(there, rank, num_processes, port), daemon=True)
        worker.start()
        there.close()
        group.workers.append(worker)
        group.pipes.append(here)
    return group


def serve(pipe: Connection, rank: int, world: int, port: int) -> None:
    """Join the group as the launcher would have it, then do what comes through the pipe."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    start_processes("cpu")
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                pipe.send((True, function(*args)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
