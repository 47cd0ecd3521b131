"""Processes: gathering, averaging, and the gradient of a batch shared between two of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contrastive import Tuning, bound, relative_error, share_gradients, tiny_folder
from processes import run_on
from torch import Tensor
from torch.nn import Parameter

from embedtrain.batch import ContrastiveBatch, Gathered
from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row
from embedtrain.dist import (
    Processes,
    average_gradients,
    broadcast_parameters,
    current,
    gather_fields,
    gather_vectors,
    launched,
    mean_over_processes,
    require_processes,
    start_processes,
)
from embedtrain.train.step import gather_batch
from tools.parity_cases import OBJECTIVES, rich_rows, teach

SIZES = ((3, 1), (0, 4), (2, 2), (0, 0))
PLAIN = 10**6
# whose terms need no vectors of other rows, so that any gather does
ROWS_ALONE = ("own negatives", "distill_kl", "distill_ce", "margin_mse", "projected", "embed_distill")
TUNINGS: tuple[Tuning, ...] = ("lora", "full")


def vectors(size: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(size, 5, dtype=torch.float64, generator=generator)


def gather_and_differentiate(sizes: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gathered rows, and the gradient of the local ones under another weight on each process.

    Two tensors travel together: `sizes` rows, and twice as many and one.
    """
    here = current()
    size = sizes[here.rank]
    local = [vectors(n, here.rank).requires_grad_() for n in (size, 2 * size + 1)]
    gathered = gather_vectors(*local)
    ((here.rank + 1) * torch.stack([g.square().sum() for g in gathered]).sum()).backward()
    assert all(x.grad is not None for x in local)
    return [
        (g.detach().numpy(), x.grad.numpy())
        for g, x in zip(gathered, local, strict=True)
        if x.grad is not None
    ]


@pytest.mark.parametrize("sizes", SIZES)
def test_gather_is_ragged_and_differentiable(sizes: tuple[int, int]) -> None:
    """A row's gradient is the sum of what both processes make of it: weights 1 and 2."""
    for rank, pair in enumerate(run_on(2, gather_and_differentiate, sizes)):
        for (gathered, gradient), shares in zip(pair, (sizes, [2 * n + 1 for n in sizes]), strict=True):
            assert np.array_equal(gathered, np.concatenate([vectors(n, r) for r, n in enumerate(shares)]))
            assert np.allclose(gradient, (1 + 2) * 2 * vectors(shares[rank], rank).numpy(), rtol=1e-15)


def fields_of(rank: int, size: int) -> dict[str, Tensor]:
    """Every dtype that travels, bool before wider ones so that their bytes stand at odd places."""
    flags = torch.arange(size + 1) % 2 == rank
    ints = torch.arange(size) - 2**62 * rank
    doubles = torch.tensor([torch.nan, 1 / 3])[: min(size, 2)].double()
    return {"flags": flags, "ints": ints, "doubles": doubles, "floats": vectors(size, rank).float()}


def gather_all(sizes: tuple[int, int]) -> tuple[dict[str, np.ndarray], list[str]]:
    fields = fields_of(current().rank, sizes[current().rank])
    gathered, empty, again = gather_fields(fields, {}, {"again": fields["ints"]})
    assert torch.equal(again["again"], gathered["ints"])
    return {name: x.numpy() for name, x in gathered.items()}, [*empty]


@pytest.mark.parametrize("sizes", SIZES)
def test_fields_of_any_dtype_travel_together(sizes: tuple[int, int]) -> None:
    parts = [fields_of(rank, size) for rank, size in enumerate(sizes)]
    for gathered, empty in run_on(2, gather_all, sizes):
        assert empty == []
        for name in parts[0]:
            expected = torch.cat([part[name] for part in parts]).numpy()
            assert gathered[name].dtype == expected.dtype
            assert np.array_equal(gathered[name], expected, equal_nan=name == "doubles")


def average() -> tuple[float, list[float], list[float], float]:
    rank = current().rank
    parameters = [Parameter(torch.full((2,), 5.0 + rank)), Parameter(torch.full((1,), 7.0 + rank).double())]
    broadcast_parameters(parameters)
    if rank == 1:  # absent on the first process
        parameters[0].grad = torch.tensor([4.0, 8.0])
    parameters[1].grad = torch.tensor([rank], dtype=torch.float64)
    average_gradients(parameters)
    first, second = (p.grad for p in parameters)
    assert first is not None
    assert second is not None
    mean = float(mean_over_processes(torch.tensor(rank * 3.0)))
    return mean, first.tolist(), second.tolist(), float(parameters[1].detach())


def test_means_over_processes() -> None:
    assert run_on(2, average) == [(1.5, [2.0, 4.0], [0.5], 7.0)] * 2
    parameter = Parameter(torch.ones(2))
    average_gradients([parameter])
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [0, 0]  # as on two


def require(expected: int) -> str:
    try:
        require_processes(expected)
    except UserError as error:
        return str(error)
    return "right"


def test_number_of_processes_is_the_machine_files() -> None:
    assert start_processes() == current()
    assert current().world == 1
    assert require(1) == "right"
    assert run_on(2, require, 2) == ["right"] * 2
    assert require(2) == (
        "the machine file says num_processes: 2, but the number of running processes is 1 (WORLD_SIZE 1); "
        "start stages with `embedtrain run`, which launches them"
    )
    assert "num_processes: 1, but the number of running processes is 2" in run_on(2, require, 1)[0]


def test_processes_that_share_files_know_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched(1) == Processes(0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched(2) == Processes(1, 2)
    with pytest.raises(UserError, match="num_processes: 4, but the number of running processes is 2; start"):
        launched(4)


def assert_as_one(num_processes: int, rows: list[Row], name: str, tuning: Tuning, dtype: torch.dtype) -> None:
    """Loss and gradients on several processes, plain and cached, are those of one."""
    case = (OBJECTIVES[name], gather_batch, teach)
    loss, gradients = share_gradients(tiny_folder(), tuning, dtype, PLAIN, rows, *case)
    for chunk_tokens in (PLAIN, 64):
        for shared_loss, shared in run_on(
            num_processes, share_gradients, tiny_folder(), tuning, dtype, chunk_tokens, rows, *case
        ):
            assert shared_loss == pytest.approx(loss, rel=bound(dtype))
            assert relative_error(shared, gradients) < bound(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_are_one(name: str, tuning: Tuning, dtype: torch.dtype) -> None:
    """7 ragged rows: 3 on one process, 4 on the other; teacher scores and grades on the second alone."""
    rows = rich_rows()
    assert {row.positive_scores is None for row in rows[:3]} == {True}
    assert {row.positive_scores is None for row in rows[3:]} == {False}
    assert rows[0].positives[0] in rows[6].negatives
    assert rows[0].label == rows[3].label is not None
    assert len({len(row.negatives) for row in rows}) > 2
    assert_as_one(2, rows, name, tuning, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["everything", "shared mixing", "both directions"])
def test_four_processes_are_one(name: str) -> None:
    assert_as_one(4, rich_rows(), name, "lora", torch.float64)


@pytest.mark.parametrize("name", ["own negatives", "everything"])
@pytest.mark.parametrize("case", ["counts differ", "count 0 on one", "no rows on one"])
def test_two_processes_are_one_where_counts_differ(case: str, name: str) -> None:
    """The processes hold other numbers of rows with own negatives, which alone count for the first name."""
    rows = rich_rows(8)
    if case == "count 0 on one":
        rows = [replace(row, negatives=(), negative_scores=None) for row in rows[:4]] + rows[4:]
    if case == "no rows on one":
        rows = rows[7:]
    halves = (rows[: len(rows) // 2], rows[len(rows) // 2 :])
    counts = [sum(bool(row.negatives) for row in half) for half in halves]
    assert counts[0] != counts[1]
    assert_as_one(2, rows, name, "lora", torch.float64)


def local_slot_only(batch: ContrastiveBatch, queries_AD: Tensor, candidates_CD: Tensor) -> Gathered:
    """The common wrong gather: all candidates, but gradient for this process's alone."""
    right = gather_batch(batch, queries_AD, candidates_CD)
    own_C = torch.isin(right.owner_C, batch.query_index_B)
    candidates_CD = torch.where(own_C[:, None], right.candidates_CD, right.candidates_CD.detach())
    own_A = torch.isin(right.query_index_A, batch.query_index_B)
    queries_AD = torch.where(own_A[:, None], right.queries_AD, right.queries_AD.detach())
    return replace(right, queries_AD=queries_AD, candidates_CD=candidates_CD)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ROWS_ALONE])
def test_a_wrong_gather_does_not_pass(name: str) -> None:
    """What the tests above would say of it: the loss is right, the gradient is not."""
    rows = rich_rows()
    arguments = (tiny_folder(), "lora", torch.float64, PLAIN, rows, OBJECTIVES[name])
    loss, gradients = share_gradients(*arguments, gather_batch, teach)
    wrong = run_on(2, share_gradients, *arguments, local_slot_only, teach)
    assert wrong[0][0] == pytest.approx(loss, rel=1e-12)
    assert relative_error(wrong[0][1], gradients) > 1e-3


def gather_deprecated() -> None:
    torch.distributed.all_gather_into_tensor(torch.empty(2), torch.ones(1))


def test_the_harness_tells_of_failures_and_warnings() -> None:
    """So the tests above would see a deprecated call, and a failure on one process ends the others."""
    with pytest.raises(AssertionError, match=r"process . of 2:(.|\n)*(FutureWarning|has no attribute)"):
        run_on(2, gather_deprecated)
    assert run_on(2, require, 2) == ["right"] * 2
