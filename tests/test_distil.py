"""The distil stage: what it learns, what it leaves, and that nothing but the texts decides its numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import (
    all_texts,
    collect,
    context_of,
    curve_of,
    faq,
    held_out_texts,
    make_context,
    make_run,
    run_tiny,
    stage_of,
    vector_of,
    write_vectors,
)
from endpoint_server import Server
from endpoint_server import vector_of as served
from exports import PREFIXED, tiny_export

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.checkpoint import all_tensors, read_saved
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.projection import RIDGE, draw_projection, fit_projection
from embedtrain.model.st import open_sentence_transformer
from embedtrain.stages import distil as distil_stage
from embedtrain.stages.distil_teacher import teach

QUERIES, DOCUMENTS = all_texts(faq())


def cosines(encoder: Encoder) -> float:
    """Mean cosine of the student's vectors of all texts and the teacher's."""
    found = np.concatenate([encoder.encode(QUERIES, "query"), encoder.encode(DOCUMENTS, "document")])
    targets = np.stack([vector_of(text) for text in (*QUERIES, *DOCUMENTS)])
    return float((found * targets).sum(axis=1).mean())


# --- what it learns -----------------------------------------------------------------------------------------


def test_the_student_comes_nearer_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, facts = run_tiny(tmp_path, epochs_per_cycle=4.0)
    student, curve = open_encoder(folder / "encoder"), curve_of(folder)
    assert student.dim == 24
    assert student.spec.normalize
    assert cosines(student) > 0.4
    assert facts["cycles"][1]["validation/loss"] < 0.8 * curve[0]["loss"]
    assert [end["cycle"] for end in facts["cycles"]] == [1, 2]
    assert facts["cycles"][1]["validation/loss"] < facts["cycles"][0]["validation/loss"]
    assert facts["cycles"][1]["step"] == facts["steps"] == facts["steps_planned"] == len(curve)
    assert facts["texts"] + facts["held_out_texts"] == len({*QUERIES, *DOCUMENTS})
    assert facts["tokens"] == sum(int(line["tokens"]) for line in curve)
    assert (facts["teacher_dims"], facts["teacher_is_normalised"]) == (24, True)
    assert facts["student_macs_per_token"] == 3 * (4 * 32 * 32 + 2 * 32 * 64)
    assert facts["teacher_macs_per_token"] is None
    assert sum("validation/cosine" in line for line in curve) == 8
    for line in curve:  # of unit vectors |a - b|^2 = 2 - 2 cos
        if "validation/loss" in line:
            assert line["validation/loss"] == pytest.approx(2 - 2 * line["validation/cosine"], rel=1e-4)
    said = capsys.readouterr().err
    assert f"distil leaf: {facts['texts']} texts, 16 more to validate on," in said
    assert "vectors of 24 dims and length 1\n" in said
    left = {path.name for path in folder.iterdir()}
    assert left == {"encoder", "curve.jsonl", "checkpoints"}


def test_the_validation_is_that_of_the_texts_held_out(tmp_path: Path) -> None:
    """Encoded one by one by the finished student."""
    context = make_context(tmp_path)
    facts = distil_stage.run_stage(context)
    student, written = open_encoder(context.folder / "encoder"), collect(make_context(tmp_path, "again"))
    found = [student.encode([text], side)[0] @ vector_of(text) for side, text in held_out_texts(written)]
    assert facts["cycles"][-1]["validation/cosine"] == pytest.approx(np.mean(found), abs=1e-6)


@pytest.mark.parametrize("distance", ["squared_l2", "cosine"])
def test_a_teacher_of_any_length(tmp_path: Path, distance: str) -> None:
    """Its lengths are learned by squared L2, and the student's vectors are left as they are."""
    make_context(tmp_path)
    write_vectors(tmp_path / "vectors", QUERIES, DOCUMENTS, scale=3.0)
    folder, facts = run_tiny(tmp_path, distance=distance, projection="fitted")
    student, written = open_encoder(folder / "encoder"), collect(make_context(tmp_path, "again"))
    assert not student.spec.normalize
    assert not facts["teacher_is_normalised"]
    losses = []
    for side, text in held_out_texts(written):
        raw, target = student.encode([text], side, normalize=False)[0], 3 * vector_of(text)
        cosine = raw @ target / np.linalg.norm(raw) / 3
        losses.append(1 - cosine if distance == "cosine" else np.square(raw - target).sum())
    assert facts["cycles"][-1]["validation/loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_fitted_projection_starts_nearer_than_a_drawn_one(tmp_path: Path) -> None:
    starts = {}
    for kind in ("drawn", "fitted"):
        folder, _ = run_tiny(tmp_path, f"{kind}.partial", projection=kind, lr=1e-9)
        starts[kind] = curve_of(folder)[0]["loss"]
        assert (folder / "encoder" / "dense_0").is_dir()
    assert starts["fitted"] < 0.7 * starts["drawn"]


def test_the_fit_is_the_least_of_its_sum(tmp_path: Path) -> None:
    """Against the normal equations of the augmented problem, and every nudged neighbour."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, dims, generator=generator, dtype=torch.float64) + 2 for dims in (7, 5))
    linear = fit_projection(x, y)
    weight, bias = linear.weight.detach().double(), linear.bias.detach().double()
    centred = x - x.mean(dim=0)
    ridge = RIDGE * centred.square().sum(dim=0).mean()

    def total(weight: torch.Tensor, bias: torch.Tensor) -> float:
        return float((x @ weight.T + bias - y).square().sum() + ridge * weight.square().sum())

    best = total(weight, bias)
    for _ in range(50):
        nudge = 1e-2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        assert total(weight + nudge, bias) > best
        assert total(weight, bias + nudge[:, 0]) > best


def test_a_drawn_projection_is_the_seeds(tmp_path: Path) -> None:
    one, same, other = draw_projection(9, 4, 1), draw_projection(9, 4, 1), draw_projection(9, 4, 2)
    assert torch.equal(one.weight, same.weight)
    assert torch.equal(one.bias, same.bias)
    assert not torch.equal(one.weight, other.weight)
    assert float(one.weight.detach().abs().max()) <= 1 / 3
    assert float(one.bias.detach().abs().max()) > 0


def test_other_dims_without_a_projection_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_tiny(tmp_path, projection="none")
    assert str(caught.value) == (
        "stage 'leaf': projection is 'none', the student's vectors have 32 dims and the teacher's 24; set "
        "projection to drawn or fitted"
    )


# --- what it leaves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", ["drawn", "none"])
def test_adapters_are_merged_where_a_projection_is_saved(tmp_path: Path, projection: str) -> None:
    make_context(tmp_path)
    if projection == "none":
        same_dims(tmp_path)
    lora = {"rank": 2, "alpha": 4}
    folder, _ = run_tiny(tmp_path, tuning="lora", lora=lora, projection=projection)
    saved, student = read_saved(folder / "encoder"), open_encoder(folder / "encoder")
    assert (saved.lora is None) == (projection == "drawn")
    run = make_run(tmp_path, {"faq": {}})
    before = dict(all_tensors(load_encoder(run.base, run.encoder, run.text)))
    after = dict(all_tensors(student))
    embeddings = "embeddings.word_embeddings.weight"
    assert torch.equal(before[embeddings], after[embeddings])
    query = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before[query], after[query])
    assert student.dim == (24 if projection == "drawn" else 32)


def same_dims(folder: Path) -> None:
    """A teacher with as many dims as the student."""
    for side in ("query", "document"):
        vectors = np.load(folder / "vectors" / f"{side}.npy")
        np.save(folder / "vectors" / f"{side}.npy", np.pad(vectors, ((0, 0), (0, 8))))


def test_its_export_gives_its_vectors(tmp_path: Path) -> None:
    """Dense module, Normalize and all, in sentence-transformers."""
    folder, _ = run_tiny(tmp_path)
    student = open_encoder(folder / "encoder")
    export_encoder(student, tmp_path / "model")
    model = open_sentence_transformer(tmp_path / "model").model
    kinds = [module["type"] for module in read_json(tmp_path / "model" / "modules.json")]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert kinds[2] == "sentence_transformers.models.Dense"
    np.testing.assert_allclose(
        model.encode_document(DOCUMENTS), student.encode(DOCUMENTS, "document"), atol=1e-5
    )


def test_a_student_learns_on_from_another(tmp_path: Path) -> None:
    """Its projection is kept; none is put behind it."""
    first, _ = run_tiny(tmp_path)
    (first / "stages").mkdir()
    run = make_run(tmp_path, {"faq": {}}, projection="none", **{"from": "taught"})
    context = context_of(run, "more-1.partial", taught=first)
    facts = distil_stage.run_stage(context)
    student = open_encoder(context.folder / "encoder")
    assert student.dim == 24
    assert len(list((context.folder / "encoder").glob("dense_*"))) == 1
    assert facts["cycles"][-1]["validation/loss"] < curve_of(first)[-1]["validation/loss"]


# --- teachers -----------------------------------------------------------------------------------------------


def test_a_model_teaches_with_its_own_prompts(tmp_path: Path) -> None:
    make_context(tmp_path)
    tiny_export(tmp_path / "taught", text=PREFIXED)
    run = make_run(tmp_path, {"faq": {}}, teacher={"kind": "model", "model": "taught"})
    context = context_of(run, taught=tmp_path / "taught")
    written = collect(context)
    lectures = teach(context, stage_of(context), written)
    model = open_sentence_transformer(tmp_path / "taught" / "model").model
    assert model.prompts["query"] != model.prompts["document"]
    queries, documents = list(written.texts("query")), list(written.texts("document"))
    raw = {"normalize_embeddings": False}
    for side, expected in (
        ("query", model.encode_query(queries, **raw)),
        ("document", model.encode_document(documents, **raw)),
    ):
        np.testing.assert_allclose(lectures.vectors[side], expected, rtol=1e-5, atol=1e-6)
    assert lectures.facts["macs_per_token"] == 3 * (32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 64)
    shards = {path: path.stat().st_mtime_ns for path in context.vector_store.glob("*/*.npy")}
    assert shards
    again = context_of(run, "again.partial", taught=tmp_path / "taught")
    teach(again, stage_of(again), written)
    assert {path: path.stat().st_mtime_ns for path in context.vector_store.glob("*/*.npy")} == shards


def test_a_server_teaches(tmp_path: Path) -> None:
    make_context(tmp_path)
    server = Server()
    try:
        endpoint = {"kind": "endpoint", "protocol": "tei", "url": server.url, "document_prompt": "text: "}
        context = context_of(make_run(tmp_path, {"faq": {}}, teacher=endpoint, vector_precision="float16"))
        written = collect(context)
        lectures = teach(context, stage_of(context), written)
    finally:
        server.stop()
    for side, prompt in (("query", ""), ("document", "text: ")):
        expected = np.array([served(prompt + text) for text in written.texts(side)], np.float16)
        assert lectures.vectors[side].tolist() == expected.tolist()
