"""Objectives as formulas, word for word, one case a term and one a setting that shows."""

from pathlib import Path
from typing import Any, get_args

import pytest

from embedtrain.config.denominator import BlockSwitches, Mask
from embedtrain.config.describe import describe_run
from embedtrain.config.formula import FORMULAS, MASKS, objective_formula, switches_line
from embedtrain.config.load import load_run
from embedtrain.config.objective import Objective
from embedtrain.config.terms import Term

VALID = Path(__file__).parent / "broken" / "valid.yaml"
CASES = {
    "plain": (
        {"kind": "infonce", "temperature": 0.03},
        """\
L = 1 · infonce
  infonce = -log p, p = exp(s⁺/τ) / (exp(s⁺/τ) + Σ exp(s/τ)), τ = 0.03
    Σ over own negatives, in-batch positives, in-batch negatives
    hidden: same text""",
    ),
    "all of infonce": (
        {
            "kind": "infonce",
            "weight": 2,
            "sources": ["faq", "notes"],
            "temperature": {"initial": 0.05},
            "in_batch_negatives": False,
            "query_query": True,
            "document_document": True,
            "symmetric": True,
            "masks": [
                {"kind": "same_text"},
                {"kind": "same_label"},
                {"kind": "above_margin", "margin": -0.05},
                {"kind": "above_fraction", "judge": "teacher"},
                {"kind": "teacher_relevant", "threshold": 0.5},
            ],
            "focal": {"gamma": 0.5},
            "hardness": 5,
            "mixing": [
                {"kind": "pair", "count": 2, "shared": True},
                {"kind": "list", "parents": "hardest", "detach": True},
            ],
        },
        """\
L = 2 · infonce
  infonce = -w log p, w = (1 - p)^0.5, p = exp(s⁺/τ) / (exp(s⁺/τ) + Σ exp(s/τ)), \
τ learned from 0.05 in 0.01 to 0.2
    Σ over own negatives, in-batch positives, query–query, document–document, \
2 mixed of own negatives (λ ~ Beta(2, 2), shared), 1 mixed of the 8 hardest (softmax(s/0.05), detached)
    own negatives' s/τ + 5 s, no gradient through the addition
    mean of both directions; from the positive, Σ over other queries
    w without gradient, the sum divided by the number of queries
    hidden: same text; same label; s > s⁺ - 0.05; t > t⁺ - 0.05 |t⁺|; own negatives with scores ≥ 0.5
    batches of faq, notes""",
    ),
    "focal with gradient": (
        {"kind": "infonce", "masks": [], "focal": {"gamma": 2, "detach": False, "normalize": True}},
        """\
L = 1 · infonce
  infonce = -w log p, w = (1 - p)^2, p = exp(s⁺/τ) / (exp(s⁺/τ) + Σ exp(s/τ)), τ = 0.02
    Σ over own negatives, in-batch positives, in-batch negatives
    w with gradient, the sum divided by Σ w""",
    ),
    "sigmoid": (
        {"kind": "sigmoid", "own_negatives": False, "in_batch_negatives": False},
        """\
L = 1 · sigmoid
  sigmoid = -log σ(s⁺/τ + b) - Σ log σ(-s/τ - b), τ learned from 0.1 in 0.01 to 1, \
b learned from -10 in -30 to 10
    Σ over in-batch positives
    hidden: same text""",
    ),
    "distill_kl": (
        {"kind": "distill_kl", "teacher": "vectors", "student_temperature": 0.05},
        """\
L = 1 · distill_kl
  distill_kl = KL(softmax(t/τₜ) ‖ softmax(s/τ)), τₜ = 1, τ = 0.05
    t = cosines of the teacher's vectors""",
    ),
    "distill_ce": (
        {"kind": "distill_ce", "teacher_temperature": 0.1, "teacher_normalization": "z_score"},
        """\
L = 1 · distill_ce
  distill_ce = -Σ softmax(t/τₜ) log softmax(s/τ), τₜ = 0.1, τ = 0.02
    t = the rows' scores, scaled to mean 0, deviation 1 a row""",
    ),
    "margin_mse": (
        {"kind": "margin_mse", "teacher": "bm25", "teacher_normalization": "min_max"},
        """\
L = 1 · margin_mse
  margin_mse = ((s⁺ - s⁻)/τ - (t⁺ - t⁻))², τ = 1
    t = the column 'bm25', scaled to 0 to 1 a row""",
    ),
    "cosent": (
        {"kind": "cosent"},
        """\
L = 1 · cosent
  cosent = log(1 + Σ exp((s_j - s_i)/τ)), τ = 0.05
    Σ over pairs graded i above j""",
    ),
    "embed_distill": (
        {"kind": "embed_distill", "distance": "squared_l2", "projection": True, "negatives": False},
        """\
L = 1 · embed_distill
  embed_distill = |W x + b - t|², both of length 1
    t the teacher's vector of queries, positives
    W and b learned""",
    ),
    "embed_distill by cosine": (
        {"kind": "embed_distill", "queries": False},
        """\
L = 1 · embed_distill
  embed_distill = 1 - cos(x, t)
    t the teacher's vector of positives, negatives""",
    ),
    "spread": (
        {"kind": "spread", "documents": False},
        """\
L = 1 · spread
  spread = mean of cos² over pairs of different queries""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_term_is_a_formula(name: str) -> None:
    term, text = CASES[name]
    assert objective_formula(Objective.model_validate({"terms": [term]})) == text


def test_every_term_and_mask_has_words() -> None:
    """A kind without a formula would fail `show` alone; here it fails by name."""
    assert set(FORMULAS) == set(get_args(get_args(Term)[0]))
    assert set(MASKS) == set(get_args(get_args(Mask)[0]))
    assert {term["kind"] for term, _ in CASES.values()} == {
        get_args(section.model_fields["kind"].annotation)[0] for section in FORMULAS
    }


def test_terms_of_one_kind_are_told_apart_as_in_the_curve_and_views_are_their_own() -> None:
    terms: list[dict[str, Any]] = [
        {"kind": "spread"},
        {"kind": "cosent", "weight": 0.25, "matryoshka": {"dims": [64]}},
        {"kind": "spread", "weight": 0.1},
    ]
    views = {"dims": [576, 256], "weights": [3, 1], "normalize_weights": True}
    assert objective_formula(Objective.model_validate({"terms": terms, "matryoshka": views})) == (
        """\
L = 1 · spread + 0.25 · cosent + 0.1 · spread_2
  spread = mean of cos² over pairs of different queries, documents
    summed over dims {576: 0.75, 256: 0.25}
  cosent = log(1 + Σ exp((s_j - s_i)/τ)), τ = 0.05
    Σ over pairs graded i above j
    summed over dims {64: 1}
  spread_2 = mean of cos² over pairs of different queries, documents
    summed over dims {576: 0.75, 256: 0.25}"""
    )


def test_the_run_shows_teachers_and_switches_below_the_formulas() -> None:
    teacher = "stages.pretrain.teacher={model: owner/name, max_tokens: 16}"
    terms = "stages.pretrain.objective.terms=[{kind: embed_distill}]"
    text = describe_run(load_run(VALID, [teacher, terms, "sources.notes.blocks={query_query: true}"]))
    assert "positives, negatives\n  teacher: owner/name, 16 tokens a text\nfinetune: L = " in text
    assert text.endswith("hidden: same text\n\nbatches of notes: query–query on")


def test_a_sources_own_switches_are_a_line() -> None:
    blocks = BlockSwitches(in_batch_positives=False, symmetric=True)
    assert switches_line("faq", blocks) == "batches of faq: in-batch positives off, both directions on"
    assert switches_line("faq", BlockSwitches()) == ""
