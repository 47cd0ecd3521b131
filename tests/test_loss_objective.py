"""The objective: weights, views, counts, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from contrastive import mean_count
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.errors import UserError
from embedtrain.config.objective import Objective
from embedtrain.config.terms import InfoNCE, Matryoshka
from embedtrain.loss.infonce import infonce
from embedtrain.loss.objective import build_objective

TERM = InfoNCE(kind="infonce", temperature=0.1)


def random_gathered(num_negatives: int = 1, dim: int = 8) -> Gathered:
    """Four local queries, each with a positive and some negatives."""
    generator = torch.Generator().manual_seed(4)
    group = 1 + num_negatives
    return Gathered(
        queries_AD=torch.randn(4, dim, dtype=torch.float64, generator=generator),
        candidates_CD=torch.randn(4 * group, dim, dtype=torch.float64, generator=generator),
        local_B=torch.arange(4),
        query_index_A=torch.arange(4),
        query_key_A=torch.arange(4),
        label_A=torch.zeros(4, dtype=torch.int64),
        graded_score_A=torch.full((4,), torch.nan, dtype=torch.float64),
        owner_C=torch.arange(4).repeat_interleave(group),
        is_positive_C=torch.arange(4 * group) % group == 0,
        document_key_C=torch.arange(4 * group) + 4,
        label_C=torch.zeros(4 * group, dtype=torch.int64),
        teacher_scores={},
        teacher_vectors=None,
        source="faq",
        draw_seed=1,
    )


def value(settings: Objective, g: Gathered) -> float:
    return build_objective(settings)(g, mean_count, {})[0].item()


def test_weighted_sum_of_terms() -> None:
    g = random_gathered()
    other = TERM.model_copy(update={"temperature": 0.5, "weight": 0.25})
    loss, figures = build_objective(Objective(terms=(TERM, other)))(g, mean_count, {})
    expected = infonce(g, TERM, {})[0] / 4 + 0.25 * infonce(g, other, {})[0] / 4
    assert loss.item() == pytest.approx(expected.item(), rel=1e-14)
    assert figures.keys() == {"infonce", "infonce_2"}
    assert sum(figures.values()).item() == loss.item()
    assert not figures["infonce_2"].requires_grad


@pytest.mark.parametrize(("normalize", "weights"), [(False, (1.0, 0.3)), (True, (1 / 1.3, 0.3 / 1.3))])
def test_matryoshka_cuts_raw_vectors_and_sums(normalize: bool, weights: tuple[float, float]) -> None:
    """Cut first, normalise after: the cosine of the first 3 dims."""
    g = random_gathered()
    view = Matryoshka(dims=(8, 3), weights=(1.0, 0.3), normalize_weights=normalize)
    cut = replace(g, queries_AD=g.queries_AD[:, :3], candidates_CD=g.candidates_CD[:, :3])
    expected = sum(w * infonce(x, TERM, {})[0].item() / 4 for w, x in zip(weights, (g, cut), strict=True))
    assert value(Objective(terms=(TERM,), matryoshka=view), g) == pytest.approx(expected, rel=1e-14)
    ones = Matryoshka(dims=(8, 3))
    expected = sum(infonce(x, TERM, {})[0].item() / 4 for x in (g, cut))
    assert value(Objective(terms=(TERM,), matryoshka=ones), g) == pytest.approx(expected, rel=1e-14)


def test_the_local_sum_is_divided_by_the_mean_count() -> None:
    g = random_gathered()

    def mean_of_two(counts: Tensor) -> Tensor:
        assert counts.tolist() == [4]
        return (counts + 1) / 2  # the other process counts one query

    loss, _ = build_objective(Objective(terms=(TERM,)))(g, mean_of_two, {})
    assert loss.item() == pytest.approx(infonce(g, TERM, {})[0].item() / 2.5, rel=1e-14)


def test_low_precision_vectors_are_scored_in_float32() -> None:
    g = random_gathered()
    low = replace(g, queries_AD=g.queries_AD.bfloat16(), candidates_CD=g.candidates_CD.bfloat16())
    up = replace(low, queries_AD=low.queries_AD.float(), candidates_CD=low.candidates_CD.float())
    loss, _ = build_objective(Objective(terms=(TERM,)))(low, mean_count, {})
    assert loss.dtype == torch.float32
    assert loss.item() == value(Objective(terms=(TERM,)), up)


def test_a_temperature_of_cosines_near_one_stays_finite() -> None:
    g = random_gathered()
    same = replace(
        g, candidates_CD=torch.ones_like(g.candidates_CD), queries_AD=torch.ones_like(g.queries_AD)
    )
    sharp = Objective(terms=(InfoNCE(kind="infonce", temperature=0.001),))
    assert value(sharp, same) == pytest.approx(torch.tensor(8.0).log().item(), rel=1e-6)


def test_no_negative_anywhere_is_refused() -> None:
    term = TERM.model_copy(update={"in_batch_positives": False})
    with pytest.raises(UserError) as error:
        value(Objective(terms=(term,)), random_gathered(num_negatives=0))
    assert str(error.value) == (
        "source 'faq', term infonce: no query of the batch has a negative to be told from; "
        "switch in_batch_positives on, or give the rows negatives and set num_negatives"
    )


@pytest.mark.parametrize("what", ["query", "candidate"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_vectors_that_are_not_numbers_are_refused(what: str, bad: float) -> None:
    g = random_gathered()
    (g.queries_AD if what == "query" else g.candidates_CD)[1, 2] = bad
    with pytest.raises(UserError) as error:
        value(Objective(terms=(TERM,)), g)
    assert str(error.value) == (
        f"source 'faq', term infonce: 1 of {4 if what == 'query' else 8} {what} vectors hold NaN or "
        "infinity; lower lr or max_gradient_norm, or train in float32"
    )


def test_a_dim_above_the_models_is_refused() -> None:
    with pytest.raises(UserError) as error:
        value(Objective(terms=(TERM,), matryoshka=Matryoshka(dims=(1024, 8))), random_gathered())
    assert str(error.value) == "objective.matryoshka.dims: 1024 is more than the model's 8 dims"
