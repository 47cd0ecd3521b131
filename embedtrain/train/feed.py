"""Makes the next batches in the background while a step runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, TeacherVectors

Job = TypeVar("Job")
Made = TypeVar("Made")
NUM_WORKERS = 2  # threads: the tokenizer works outside Python's lock, and cached tokens are only copied
NUM_AHEAD = 4  # batches made or in the making besides the one in use


@contextmanager
def feed(
    make: Callable[[Job], Made],
    jobs: Iterable[Job],
    *,
    device: torch.device | None = None,
    num_workers: int = NUM_WORKERS,
    num_ahead: int = NUM_AHEAD,
) -> Iterator[Iterator[Made]]:
    """`with feed(make_batch, plan) as batches: for batch in batches: ...`: what `make` makes, in order.

    `make` must be a pure function: then nothing depends on the workers. `jobs` are asked for in the caller's
    own thread, at most `num_ahead` early. What `make` raises for a job is raised where its turn comes. When
    the block is left, what has not begun is dropped, and what has is waited for.

    For a `device` that is a GPU, tensors come in pinned memory, from where copies make nobody wait.
    """
    on_gpu = device is not None and device.type == "cuda"
    begin = (torch.cuda.set_device, (device,)) if on_gpu else (None, ())
    workers = ThreadPoolExecutor(num_workers, "feed", *begin)
    try:
        yield in_order(workers, partial(make_pinned, make) if on_gpu else make, iter(jobs), num_ahead)
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def in_order(
    workers: ThreadPoolExecutor, make: Callable[[Job], Made], jobs: Iterator[Job], num_ahead: int
) -> Iterator[Made]:
    """Each job's result as its turn comes; one more job begins for each that is taken."""
    begun: deque[Future[Made]] = deque(workers.submit(make, job) for job in islice(jobs, num_ahead))
    while begun:
        made = begun.popleft().result()
        begun.extend(workers.submit(make, job) for job in islice(jobs, 1))
        yield made


def make_pinned(make: Callable[[Job], Made], job: Job) -> Made:
    """What `make` makes, pinned."""
    made: Made = pinned(make(job))
    return made


def pinned(value: Any) -> Any:
    """The same with its tensors in pinned memory, but for texts: a chunk of them is pinned once packed."""
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, ContrastiveBatch | TeacherVectors):
        return replace(value, **{f.name: pinned(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, tuple):
        return tuple(map(pinned, value))
    return {name: pinned(one) for name, one in value.items()} if isinstance(value, dict) else value
