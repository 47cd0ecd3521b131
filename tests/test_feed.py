"""Batches made in the background: in order, few at a time, with their faults, and no thread left behind."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from contrastive import make_batch, ragged_rows, tiny_encoder

from embedtrain.train.feed import feed
from tools.parity_cases import teach


def slow_first(number: int) -> int:
    """Later ones are ready earlier."""
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number * number


def feed_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


@pytest.mark.parametrize(("num_workers", "num_ahead"), [(1, 1), (2, 4), (3, 50)])
def test_in_order_whatever_is_ready_first(num_workers: int, num_ahead: int) -> None:
    with feed(slow_first, range(20), num_workers=num_workers, num_ahead=num_ahead) as made:
        assert list(made) == [number * number for number in range(20)]
    assert not feed_threads()


def test_no_more_than_asked_are_begun_early() -> None:
    asked: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    with feed(slow_first, jobs(), num_ahead=3) as made:
        assert asked == [], "nothing before the first is wanted"
        for number, _ in zip(range(5), made, strict=False):
            assert len(asked) == number + 1 + 3
        assert feed_threads(), "the premise: there were workers"
    assert not feed_threads(), "the rest is dropped"


def test_a_batch_is_made_while_another_is_in_use() -> None:
    made_two = threading.Event()

    def make(number: int) -> int:
        if number == 1:
            made_two.set()
        return number

    with feed(make, range(3)) as made:
        assert next(made) == 0
        assert made_two.wait(timeout=10), "the next one is made without being asked for"


def test_a_fault_comes_through_in_its_turn() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("row 2 is broken")
        return number

    with feed(make, range(10)) as made:
        assert [next(made), next(made)] == [0, 1]
        with pytest.raises(ValueError, match="row 2 is broken"):
            next(made)
    assert not feed_threads()


def test_an_interrupt_of_the_step_stops_the_workers() -> None:
    begun: list[int] = []

    def make(number: int) -> int:
        begun.append(number)
        return number

    def work() -> None:
        with feed(make, range(1000)) as made:
            next(made)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert len(begun) <= 6
    assert not feed_threads()


def test_no_jobs() -> None:
    with feed(slow_first, []) as made:
        assert list(made) == []


def test_a_cpu_gets_what_is_made() -> None:
    made = torch.zeros(3)
    with feed(lambda _: made, range(2), device=torch.device("cpu")) as batches:
        assert all(batch is made for batch in batches)


@pytest.mark.gpu
def test_a_gpu_gets_pinned_memory() -> None:
    """All but texts, which are packed and pinned chunk by chunk."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    encoder = tiny_encoder("lora")
    batch = make_batch(encoder, ragged_rows(), teacher=teach)
    with feed(lambda number: (number, batch), range(2), device=torch.device("cuda", 0)) as batches:
        for number, (place, found) in enumerate(batches):
            assert place == number
            tensors = [found.query_key_B, *found.teacher_scores.values(), found.teacher_vectors.queries_NK]
            assert all(tensor.is_pinned() for tensor in tensors)
            assert found.queries is batch.queries
