"""Every term of the config: built, documented, held to a slow twin; and what holds for all of them."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from contrast_settings import SIGMOIDS, infonces
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_reference import random_gathered
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.objective import Objective
from embedtrain.config.terms import (
    CoSENT,
    DistillCE,
    DistillKL,
    EmbedDistill,
    InfoNCE,
    MarginMSE,
    Spread,
    Term,
)
from embedtrain.loss.learned import initial_parameters, values
from embedtrain.loss.objective import TERMS

ROOT = Path(__file__).resolve().parent.parent
KINDS = [get_args(term.model_fields["kind"].annotation)[0] for term in get_args(get_args(Term)[0])]
SOURCES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").glob("test_loss_*.py"))]
TEACHER_DIM = 5
WHOLE_BATCH = ("cosent", "spread")


# --- built, documented, held to a slow twin -----------------------------------------------------------------


def has_row(page: str, kind: str) -> bool:
    """Whether a table of the page has a row for the kind."""
    return re.search(rf"^\| *`{kind}` *\|", page, re.MULTILINE) is not None


def twin_tests(source: str) -> list[set[str]]:
    """Of each test that calls a `slow…` function: all names that it reaches within its file."""
    bodies: dict[str, set[str]] = {}
    for node in ast.parse(source).body:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if isinstance(node, ast.FunctionDef):
            bodies[node.name] = names
        for target in node.targets if isinstance(node, ast.Assign) else ():
            bodies |= {n.id: names for n in ast.walk(target) if isinstance(n, ast.Name)}
    calling = [name for name in bodies if name.startswith("test_")]
    return [reach(bodies, name) for name in calling if any(n.startswith("slow") for n in bodies[name])]


def reach(bodies: Mapping[str, set[str]], start: str) -> set[str]:
    """The names in the body of `start`, in the bodies of those, and so on."""
    reached, left = set[str](), [start]
    while left:
        new = bodies.get(left.pop(), set()) - reached
        reached |= new
        left += new
    return reached


def test_every_kind_is_built_and_no_other() -> None:
    assert len(KINDS) == len(set(KINDS)) >= 8
    assert set(TERMS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_row_in_the_page(kind: str) -> None:
    assert has_row((ROOT / "docs" / "losses.md").read_text(encoding="utf-8"), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_slow_twin(kind: str) -> None:
    assert any(TERMS[kind].__name__ in names for source in SOURCES for names in twin_tests(source))


def test_the_walk_can_fail() -> None:
    assert not has_row("`infonce` is a term\n| `infonces` | no |\n| x | `infonce` |\n", "infonce")
    assert has_row("| kind |\n|---|\n| `infonce` | yes |\n", "infonce")
    twin = "TABLE = {1: term}\ndef run(): TABLE[1]()\ndef test_twin(): assert run() == slow_term()\n"
    assert any("term" in names for names in twin_tests(twin))
    assert not any("term" in names for names in twin_tests(twin.replace("slow_term()", "3")))
    assert not any("term" in names for names in twin_tests(twin.replace("{1: term}", "{}")))


# --- what holds for all of them -----------------------------------------------------------------------------

COMMON = {
    "teacher": st.sampled_from(["scores", "reranker", "vectors"]),
    "teacher_normalization": st.sampled_from(["none", "min_max", "z_score"]),
}
TEMPERATURE = st.sampled_from([0.02, 0.1, 1.0])
DISTILL = COMMON | {"teacher_temperature": TEMPERATURE, "student_temperature": TEMPERATURE}
ON = st.booleans()
SETTINGS: dict[str, st.SearchStrategy[Term]] = {
    "infonce": infonces(),
    "sigmoid": SIGMOIDS,
    "distill_kl": st.builds(DistillKL, kind=st.just("distill_kl"), **DISTILL),
    "distill_ce": st.builds(DistillCE, kind=st.just("distill_ce"), **DISTILL),
    "margin_mse": st.builds(MarginMSE, kind=st.just("margin_mse"), temperature=TEMPERATURE, **COMMON),
    "cosent": st.builds(CoSENT, kind=st.just("cosent"), temperature=TEMPERATURE),
    "spread": st.builds(Spread, kind=st.just("spread"), queries=ON),
    "embed_distill": st.builds(
        EmbedDistill,
        kind=st.just("embed_distill"),
        distance=st.sampled_from(["cosine", "squared_l2"]),
        projection=ON,
        normalize=ON,
        queries=ON,
        positives=ON,
    ),
}
BATCHES = st.builds(
    random_gathered,
    st.integers(0, 2**32 - 1),
    dim=st.just(TEACHER_DIM),
    teacher_dim=st.just(TEACHER_DIM),
    num_keys=st.sampled_from([4, 30]),
    local=st.sampled_from(["all", "part", "none"]),
)
SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(max_examples=60, deadline=None)
every_kind = pytest.mark.parametrize("kind", KINDS)


def result(g: Gathered, term: Term) -> tuple[float, float]:
    """Sum and count; what is learned stands where a training starts."""
    parameters = initial_parameters(Objective(terms=(term,)), g.dim, TEACHER_DIM, seed=1)
    learned = {name: x.double() for name, x in values(parameters, 0, term).items()}
    total, count = TERMS[term.kind](g, term, learned)
    return total.item(), float(count)


def near(results: Sequence[float]) -> object:
    return pytest.approx(results, rel=1e-9, abs=1e-9)


def shuffled(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def take_candidates(g: Gathered, order_C: Tensor) -> Gathered:
    """The same batch with its candidates in another order."""
    assert g.teacher_vectors is not None
    names = ("candidates_CD", "owner_C", "is_positive_C", "document_key_C", "label_C")
    return replace(
        g,
        **{name: getattr(g, name)[order_C] for name in names},
        teacher_scores={name: scores_C[order_C] for name, scores_C in g.teacher_scores.items()},
        teacher_vectors=replace(g.teacher_vectors, documents_CK=g.teacher_vectors.documents_CK[order_C]),
    )


def take_queries(g: Gathered, order_A: Tensor) -> Gathered:
    """The same batch with its queries in another order, the local ones too."""
    assert g.teacher_vectors is not None
    names = ("queries_AD", "query_index_A", "query_key_A", "label_A", "graded_score_A")
    return replace(
        g,
        **{name: getattr(g, name)[order_A] for name in names},
        local_B=torch.argsort(order_A)[g.local_B].flip(0),
        teacher_vectors=replace(g.teacher_vectors, queries_NK=g.teacher_vectors.queries_NK[order_A]),
    )


def looks_at_places(term: Term) -> bool:
    """Whether a row's documents are told apart by their places in it: by draws, or as the first of a text."""
    mixings = term.mixing if isinstance(term, InfoNCE) else ()
    mixes_own_pairs = any(m.kind == "pair" and m.parents == "own_negatives" for m in mixings)
    return mixes_own_pairs or isinstance(term, Spread)


def is_of_cosines(term: Term) -> bool:
    """Whether the length of a vector is nothing to the term."""
    if not isinstance(term, EmbedDistill):
        return True
    return not term.projection and (term.normalize or term.distance == "cosine")


def test_every_kind_has_settings_to_try() -> None:
    assert SETTINGS.keys() == set(KINDS)


@every_kind
@PROPERTY
@given(g=BATCHES, seed=SEEDS, data=st.data())
def test_the_order_of_candidates_does_not_matter(
    kind: str, g: Gathered, seed: int, data: st.DataObject
) -> None:
    """Where places in a row count: as long as each row's own stay in their order."""
    term = data.draw(SETTINGS[kind])
    order_C = shuffled(len(g.owner_C), seed)
    if looks_at_places(term):
        for owner in g.owner_C.unique():
            places = (g.owner_C[order_C] == owner).nonzero().flatten()
            order_C[places] = order_C[places].sort().values
    assert result(take_candidates(g, order_C), term) == near(result(g, term))


@every_kind
@PROPERTY
@given(g=BATCHES, seed=SEEDS, data=st.data())
def test_the_order_of_queries_does_not_matter(kind: str, g: Gathered, seed: int, data: st.DataObject) -> None:
    term = data.draw(SETTINGS[kind])
    moved = take_queries(g, shuffled(len(g.query_index_A), seed))
    assert result(moved, term) == near(result(g, term))


@every_kind
@PROPERTY
@given(g=BATCHES, seed=SEEDS, data=st.data())
def test_the_length_of_vectors_does_not_matter(
    kind: str, g: Gathered, seed: int, data: st.DataObject
) -> None:
    """Each vector is scaled by a number of its own."""
    term = data.draw(SETTINGS[kind].filter(is_of_cosines))
    generator = torch.Generator().manual_seed(seed)

    def scaled(x_ND: Tensor) -> Tensor:
        return x_ND * torch.rand(len(x_ND), 1, dtype=torch.float64, generator=generator).add(0.1)

    assert g.teacher_vectors is not None
    teacher = replace(
        g.teacher_vectors,
        queries_NK=scaled(g.teacher_vectors.queries_NK),
        documents_CK=scaled(g.teacher_vectors.documents_CK),
    )
    changed = replace(
        g, queries_AD=scaled(g.queries_AD), candidates_CD=scaled(g.candidates_CD), teacher_vectors=teacher
    )
    assert result(changed, term) == near(result(g, term))


@every_kind
@PROPERTY
@given(g=BATCHES, seed=SEEDS, data=st.data())
def test_parts_of_the_local_queries_add_up(kind: str, g: Gathered, seed: int, data: st.DataObject) -> None:
    """Any parts, empty ones too; a term of the whole batch is the same on every part."""
    term = data.draw(SETTINGS[kind])
    part_B = torch.randint(0, 3, g.local_B.shape, generator=torch.Generator().manual_seed(seed))
    parts = [result(replace(g, local_B=g.local_B[part_B == part]), term) for part in range(4)]
    if kind in WHOLE_BATCH:
        assert parts == [result(g, term)] * 4
    else:
        totals, counts = zip(*parts, strict=True)
        assert (sum(totals), sum(counts)) == near(result(g, term))
