"""Batches of several sources in the loop, sources' own batch sizes and negatives, epochs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contrastive import tiny_folder
from processes import run_on
from training import STEPS, Curve, curve_of, parameters, same, sources, tiny_stage, train_tiny

from embedtrain.batch import TokenBatch
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, Machine, Run, TextFormat
from embedtrain.config.sources import Source
from embedtrain.config.stages import Train
from embedtrain.data.store.writing import store_rows
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import tune_all
from embedtrain.train.loop import local_batch
from embedtrain.train.prepare import Rows, Training, make_plan, prepare

BLENDED = {"batches": {"kind": "blended"}}
HALF = {"batches": {"kind": "semi_homogeneous", "main_fraction": 0.5}}


def blended_losses(model: str, folder: str, mixture: dict[str, object]) -> Curve:
    train_tiny(model, Path(folder), tiny_stage(steps=4, lora={"rank": 4, "alpha": 8}, mixture=mixture))
    return curve_of(Path(folder))


@pytest.mark.parametrize("mixture", [BLENDED, HALF])
def test_batches_of_several_sources_are_one_on_any_number_of_processes(
    tmp_path: Path, mixture: dict[str, object]
) -> None:
    """Of 6 rows, the second process holds some of one source alone, and says `several` like the first."""
    expected = blended_losses(tiny_folder(), str(tmp_path / "one"), mixture)
    found, other = run_on(2, blended_losses, tiny_folder(), str(tmp_path / "two"), mixture)
    assert found == other
    assert {line["source"] for line in expected} == {"several"}
    for line, reference in zip(found, expected, strict=True):
        counts = {name: line[name] for name in line if name.startswith("rows/")}
        assert counts == {name: reference[name] for name in counts}
        assert sum(map(int, counts.values())) == 6
        assert (line["tokens"], line["swapped"]) == (reference["tokens"], reference["swapped"])
        for name in ("loss", "gradient_norm"):
            assert line[name] == pytest.approx(reference[name], rel=1e-4)
    assert {"rows/faq", "rows/manual"} <= expected[0].keys() | expected[1].keys()


def test_a_blended_run_goes_on_exactly(tmp_path: Path) -> None:
    """Ended by a fault between two checkpoints, planned again from the last of them."""
    stage = tiny_stage(steps=6, mixture=BLENDED, save_every_steps=2)
    _, whole = train_tiny(tiny_folder(), tmp_path / "whole", stage)
    calls = []

    def fail_later(encoder: Encoder) -> dict[str, float]:
        calls.append(encoder)
        if len(calls) == 2:
            raise UserError("a fault")
        return {}

    with pytest.raises(UserError, match="a fault"):
        train_tiny(tiny_folder(), tmp_path / "cut", stage, validate=fail_later)
    assert len(curve_of(tmp_path / "cut")) == 3
    _, again = train_tiny(tiny_folder(), tmp_path / "cut", stage)
    assert same(parameters(again), parameters(whole))
    assert curve_of(tmp_path / "cut") == curve_of(tmp_path / "whole")


def run_of(stage: Train, **changes: object) -> Run:
    """A run whose source `manual` has settings of its own."""
    own = {"rows": "manual.parquet", **changes}
    both = {"faq": Source(rows="faq.parquet"), "manual": Source.model_validate(own)}
    return Run(name="tiny", base=Base(model="tiny"), sources=both, stages=(stage,))


def prepared(stage: Train, rows: Rows | None = None, **changes: object) -> Training:
    encoder = load_encoder(Base(model=tiny_folder()), EncoderConfig(), TextFormat())
    tune_all(encoder)
    return prepare(encoder, rows or sources(), stage, run_of(stage, **changes), Machine(), {})


def test_a_source_has_a_batch_size_and_negatives_of_its_own() -> None:
    job = prepared(tiny_stage(), batch_size=9, num_negatives=0)
    assert {(batch.source, len(batch)) for batch in job.plan} == {("faq", 6), ("manual", 9)}
    assert {name: how.num_negatives for name, how in job.collations.items()} == {"faq": 2, "manual": 0}
    assert job.steps == len(job.plan) == STEPS


def test_epochs_count_all_rows() -> None:
    job = prepared(tiny_stage(steps=None, epochs=1.5))
    assert job.steps == 10  # 60 rows, 6 a batch
    assert sum(share.drawn for share in job.plan.shares().values()) == 60


def test_a_plan_that_cannot_be_kept_is_refused_before_the_first_step() -> None:
    with pytest.raises(UserError) as error:
        prepared(tiny_stage(), batch_size=21)
    assert str(error.value) == "source 'manual': a batch holds 21 of its rows, and it has only 20"
    term = {"kind": "infonce"}
    alike = [replace(row, positives=("yes",), positive_scores=None) for row in sources()["faq"]]
    with pytest.raises(UserError, match="source 'faq', step 1: none of its 20 rows completes a batch of 6"):
        make_plan({"faq": alike}, tiny_stage(objective={"terms": [term]}), run_of(tiny_stage()), 7)


def test_rows_on_disk_train_as_rows_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cached tokens and without: every batch, bit for bit."""
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    stored = {name: store_rows(rows, tmp_path / name) for name, rows in sources().items()}
    stage = tiny_stage(mixture=HALF)
    memory, disk = prepared(stage), prepared(stage, stored)
    assert {how.tokens is not None for how in disk.collations.values()} == {True}
    seldom = prepared(tiny_stage(steps=1), stored)
    assert {how.tokens is not None for how in seldom.collations.values()} == {False}
    for one, two in zip(memory.plan, disk.plan, strict=True):
        (planned, expected), (_, found) = local_batch(memory, one), local_batch(disk, two)
        assert planned.swapped == two.swapped
        for name in ("queries", "documents"):
            for field in TokenBatch.__dataclass_fields__:
                texts, others = getattr(found, name), getattr(expected, name)
                assert torch.equal(getattr(texts, field), getattr(others, field)), (name, field)
        assert torch.equal(found.document_key_C, expected.document_key_C)
        assert torch.equal(found.owner_C, expected.owner_C)
