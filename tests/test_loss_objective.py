"""The objective: weights, views, counts, and what it refuses."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from contrastive import add_learned, make_batch, mean_count, tiny_encoder
from loss_reference import with_gradient
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import BlockSwitches
from embedtrain.config.errors import UserError
from embedtrain.config.objective import Objective
from embedtrain.config.terms import (
    CoSENT,
    DistillCE,
    DistillKL,
    InfoNCE,
    MarginMSE,
    Matryoshka,
    Sigmoid,
    Spread,
    Term,
)
from embedtrain.loss.infonce import infonce
from embedtrain.loss.learned import initial_parameters
from embedtrain.loss.objective import TERMS, build_objective
from embedtrain.train.step import gather_batch
from tools.parity_cases import OBJECTIVES, objective, rich_rows, teach

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


def test_every_kind_has_a_function() -> None:
    kinds = {term.model_fields["kind"].annotation for term in get_args(get_args(Term)[0])}
    assert {get_args(kind)[0] for kind in kinds} == set(TERMS)


def test_a_term_counts_its_sources_alone() -> None:
    g = random_gathered()
    other = TERM.model_copy(update={"temperature": 0.5, "sources": ("manual",)})
    both = build_objective(Objective(terms=(TERM, other)))
    loss, figures = both(g, mean_count, {})
    assert figures.keys() == {"infonce"}
    assert loss.item() == value(Objective(terms=(TERM,)), g)
    assert both(replace(g, source="manual"), mean_count, {})[1].keys() == {"infonce", "infonce_2"}
    with pytest.raises(UserError) as error:
        value(Objective(terms=(other,)), g)
    assert str(error.value) == (
        "source 'faq': no term of the objective counts its batches; mend the terms' sources"
    )


def test_a_sources_switches_win_over_every_terms() -> None:
    """Those that it names; the other source keeps the term's."""
    g = random_gathered(num_negatives=2)
    spread = Spread(kind="spread", weight=0.1)
    switches = BlockSwitches(in_batch_positives=False, in_batch_negatives=False, query_query=True)
    shared = build_objective(Objective(terms=(TERM, spread)), {"faq": switches, "manual": None})
    own = TERM.model_copy(update=switches.model_dump(exclude_none=True))
    for source, term in (("faq", own), ("manual", TERM)):
        expected = value(Objective(terms=(term, spread)), g)
        assert shared(replace(g, source=source), mean_count, {})[0].item() == expected
    assert value(Objective(terms=(own,)), g) != value(Objective(terms=(TERM,)), g)


def test_a_terms_view_wins_over_the_objectives() -> None:
    g = random_gathered()
    wide, narrow = Matryoshka(dims=(8, 4)), Matryoshka(dims=(3,))
    viewed = TERM.model_copy(update={"matryoshka": narrow})
    expected = value(Objective(terms=(TERM,), matryoshka=wide), g) + value(
        Objective(terms=(TERM,), matryoshka=narrow), g
    )
    assert value(Objective(terms=(TERM, viewed), matryoshka=wide), g) == pytest.approx(expected, rel=1e-14)
    too_wide = viewed.model_copy(update={"matryoshka": Matryoshka(dims=(9,))})
    with pytest.raises(UserError) as error:
        value(Objective(terms=(TERM, too_wide)), g)
    assert str(error.value) == "objective.terms[1].matryoshka.dims: 9 is more than the model's 8 dims"


@pytest.mark.parametrize(
    "term",
    [
        DistillKL(kind="distill_kl"),
        DistillCE(kind="distill_ce"),
        MarginMSE(kind="margin_mse"),
        CoSENT(kind="cosent"),
    ],
)
def test_a_batch_without_anything_to_learn_from_adds_nothing(term: Term) -> None:
    """No grades and no teacher scores at all: 0, and a gradient of 0, not of NaN."""
    g = with_gradient(random_gathered())
    g = replace(g, teacher_scores={"scores": torch.full((8,), torch.nan, dtype=torch.float64)})
    loss, _ = build_objective(Objective(terms=(TERM, term)))(g, mean_count, {})
    assert loss.item() == value(Objective(terms=(TERM,)), g)
    alone, _ = build_objective(Objective(terms=(term,)))(g, mean_count, {})
    assert alone.item() == 0
    alone.backward()
    assert g.queries_AD.grad is not None
    assert not g.queries_AD.grad.any()


def test_no_negative_anywhere_is_refused_by_sigmoid_too() -> None:
    term = Sigmoid(kind="sigmoid", temperature=0.1, bias=-10.0, in_batch_positives=False)
    with pytest.raises(UserError, match=r"source 'faq', term sigmoid: no query of the batch has a negative"):
        value(Objective(terms=(term,)), random_gathered(num_negatives=0))


def test_learned_numbers_are_shown() -> None:
    config = objective("learned temperature", "sigmoid")
    raw = initial_parameters(config, 8, None, seed=1)
    _, figures = build_objective(config)(random_gathered(), mean_count, raw)
    learned = {name: round(float(x), 6) for name, x in figures.items() if name not in ("infonce", "sigmoid")}
    assert learned == {"infonce_temperature": 0.1, "sigmoid_temperature": 0.1, "sigmoid_bias": -10}


@pytest.mark.parametrize("name", ["all blocks", "own mixing", "shared mixing"])
def test_every_mask_and_mixing_of_the_test_objectives_does_something(name: str) -> None:
    """Or the tests of the step and of the processes would hold for less than they say."""
    encoder = tiny_encoder("lora")
    add_learned(encoder, OBJECTIVES[name], teach)
    batch = make_batch(encoder, rich_rows(), teacher=teach)
    with torch.no_grad():
        g = gather_batch(batch, encoder(batch.queries), encoder(batch.documents))
    (term,) = OBJECTIVES[name].terms
    assert isinstance(term, InfoNCE)

    def loss(term: InfoNCE) -> float:
        raw = dict(encoder.learned.items())
        return build_objective(Objective(terms=(term,)))(g, mean_count, raw)[0].item()

    for field in ("masks", "mixing"):
        parts = getattr(term, field)
        for left_out in range(len(parts)):
            rest = parts[:left_out] + parts[left_out + 1 :]
            less = term.model_copy(update={field: rest})
            assert loss(less) != pytest.approx(loss(term), rel=1e-6), parts[left_out]
