"""The recipes at the size of the papers: every stage of each runs, from the commands of its own page.

Changed are the models, the records of the published sets, and the length (`paper_runs.SHRUNK`). CI runs the
recipe whose turn it is, by the commit; `make test-all` runs all.
"""

import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from paper_runs import RECIPES, ROOT, folder_of, run_here, small_run, working_place
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from test_export import first_state_moves
from test_serving_snippet import run_block

from embedtrain.artifacts import read_json
from embedtrain.config.mining import Select
from embedtrain.config.schema import Run
from embedtrain.config.soups import Soup
from embedtrain.config.stages import Evaluate, Export, Train
from embedtrain.data.store import open_rows
from embedtrain.mining.tables import read_corpus, read_mined
from embedtrain.model.onnx import export_onnx
from embedtrain.model.onnx_proof import Runner
from embedtrain.model.st import open_sentence_transformer
from embedtrain.serving.check import as_json, check_folder, choose_servers, is_bad
from embedtrain.train.log import read_curve

TEXTS = ["How do I list the files in a folder?", "The ls command lists files and folders."]


def in_turn() -> str:
    """The recipe that CI runs for this commit; the first where there is no git."""
    asked = ["git", "rev-parse", "HEAD"]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return RECIPES[zlib.crc32(told.strip().encode()) % len(RECIPES)]


IN_TURN = in_turn()


@dataclass(frozen=True)
class Done:
    """A recipe's run with its page's sets, made small, and the folder it filled."""

    recipe: str
    run: Run
    root: Path

    def stages(self, kind: type) -> list:
        return [stage for stage in self.run.stages if isinstance(stage, kind)]


@pytest.fixture(
    scope="module",
    params=[pytest.param(one, marks=() if one == IN_TURN else pytest.mark.slow) for one in RECIPES],
)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A recipe with all its stages done, in this process."""
    with working_place(tmp_path_factory.mktemp(request.param)) as place:
        run = small_run(request.param, place / "models")
        return Done(request.param, run, place / run_here(run))


def test_every_stage_is_done(done: Done) -> None:
    for stage in done.run.stages:
        record = read_json(folder_of(done.root, stage.name) / "done.json")
        assert record["stage"] == stage.name
    assert (done.root / "report.html").is_file()


def test_exports_load_and_attend_as_they_should(done: Done) -> None:
    for stage in done.stages(Export):
        folder = folder_of(done.root, stage.name) / "model"
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        vectors = model.encode_query(TEXTS)
        assert np.isfinite(vectors).all()
        assert vectors.std(axis=0).max() > 0
        assert first_state_moves(folder, "sdpa", "none") == (done.run.encoder.attention == "bidirectional")
        assert read_json(folder.parent / "parity.json")["max_cosine_distance"] < 1e-5


def test_every_server_takes_the_exports(done: Done) -> None:
    """`model/` and `router/` by the servers' rules; plain transformers by the block of the card."""
    for stage in done.stages(Export):
        folder = folder_of(done.root, stage.name) / "model"
        assert not is_bad(check_folder(folder)), as_json(folder, check_folder(folder))
        prompts = read_json(folder / "config_sentence_transformers.json")["prompts"]
        encode, theirs = run_block(folder / "README.md", folder)["encode"], open_sentence_transformer(folder)
        for side in ("query", "document"):
            expected = theirs.encode(TEXTS, side=side, normalize=False)
            np.testing.assert_allclose(encode(TEXTS, prompts[side]).numpy(), expected, atol=1e-5, rtol=0)
        if stage.documents:
            (own,) = choose_servers(["sentence-transformers"])
            assert not is_bad(check_folder(folder.parent / "router", [own]))


@pytest.mark.slow
def test_a_graph_of_the_last_export_gives_its_vectors(done: Done, tmp_path: Path) -> None:
    """To a client that knows only its folder; `export_onnx` itself refuses where attention differs."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    *_, last = done.stages(Export)
    folder = folder_of(done.root, last.name) / "model"
    export_onnx(folder, tmp_path / "graph", TEXTS)
    client = Runner(tmp_path / "graph")
    found = client.vectors(client.rows(TEXTS))
    expected = open_sentence_transformer(folder).encode(TEXTS, side="", normalize=False)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_instructions_are_prompts_of_the_exports(done: Done) -> None:
    instructed = {name: s.instruction for name, s in done.run.sources.items() if s.instruction}
    for stage in done.stages(Export):
        model = folder_of(done.root, stage.name) / "model"
        prompts = read_json(model / "config_sentence_transformers.json")["prompts"]
        for name, instruction in instructed.items():
            assert instruction in prompts[name], name
            symmetric = done.run.sources[name].symmetric
            assert (f"{name}_document" in prompts) <= (not symmetric)
        for source in done.run.sources.values():
            for task in source.tasks:
                assert source.instruction in prompts[f"{task}-query"]
        for name, number in stage.few_shot_examples.items():
            shots = prompts[f"{name}_{number}_shot"]
            assert shots.count("\nResponse: ") == number
            assert (prompts[name] == shots) == stage.few_shot_by_default
            assert done.run.text.query.startswith("{examples}Instruct: ")
    if done.recipe.startswith("leaf"):
        assert not instructed
        assert prompts["query"] == "Represent this sentence for searching relevant passages: "


def test_training_saw_every_term(done: Done) -> None:
    """A term writes a column of its kind; the sources take turns, so each is seen in the first steps."""
    for stage in done.stages(Train):
        curve = read_curve(folder_of(done.root, stage.name) / "curve.jsonl")
        assert len(curve) == stage.steps
        assert all(np.isfinite(line["loss"]) for line in curve)
        seen = {key for line in curve for key in line}
        assert {term.kind for term in stage.objective.terms} <= seen, stage.name


def test_the_soup_is_the_mean_of_its_ingredients(done: Done) -> None:
    for stage in done.stages(Soup):
        told = read_json(folder_of(done.root, stage.name) / "soup.json")["ingredients"]
        assert [one["name"] for one in told] == list(stage.from_)
        assert [one["weight"] for one in told] == [pytest.approx(1 / len(stage.from_))] * len(stage.from_)
        names = (*stage.from_, stage.name)
        *parts, soup = (
            load_file(folder_of(done.root, name) / "encoder" / "model.safetensors") for name in names
        )
        moved = 0.0
        for name, tensor in soup.items():
            mean = torch.stack([part[name] for part in parts]).double().mean(0)
            torch.testing.assert_close(tensor, mean.to(tensor.dtype), rtol=1e-6, atol=1e-7)
            moved += float((parts[0][name] - parts[-1][name]).norm())
        assert moved > 0  # the premise: the fine-tunings differ


def test_selected_rows_keep_the_rules(done: Done) -> None:
    for stage in done.stages(Select):
        folder, mined_in = (folder_of(done.root, name) for name in (stage.name, stage.candidates))
        for place in sorted((folder / "rows").iterdir()):
            rows, mined = open_rows(place), read_mined(mined_in, place.name)
            _, texts = read_corpus(mined_in, place.name)
            lists = {tuple(texts[id] for id in ids[ids >= 0]) for ids in mined.ids_QK}
            num_negatives = 0
            for row in rows:
                num_negatives += len(row.negatives)
                assert len(row.negatives) <= stage.num_negatives
                assert not set(row.negatives) & {row.query, *row.positives}
                if stage.soft_labels:
                    assert row.positive_scores is not None
                    assert row.negative_scores is not None
                    assert all(0 <= score <= 1 for score in (*row.positive_scores, *row.negative_scores))
                    bound = 0.95 * min(row.positive_scores)
                    assert max(row.negative_scores, default=0.0) < bound
                else:
                    first, last = stage.first_rank - 1, stage.last_rank
                    assert any(
                        set(row.negatives) <= set(one[first:last]) and set(row.positives) <= set(one[:50])
                        for one in lists
                    )
            assert num_negatives >= len(rows), place.name  # the premise: there is something to look at


def test_leaves_stand_in_their_teachers_space(done: Done) -> None:
    if not done.recipe.startswith("leaf"):
        assert not list(done.root.glob("*-router"))
        return
    facts = read_json(folder_of(done.root, "distilled") / "done.json")["facts"]
    assert len(facts["cycles"]) == 3
    router = SentenceTransformer(str(done.root / "leaf-router"), device="cpu", local_files_only=True)
    leaf = SentenceTransformer(str(done.root / "leaf"), device="cpu", local_files_only=True)
    (export,) = done.stages(Export)
    teacher = SentenceTransformer(export.documents.model, device="cpu", local_files_only=True)
    np.testing.assert_allclose(router.encode_query(TEXTS), leaf.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(router.encode_document(TEXTS), teacher.encode_document(TEXTS), atol=1e-5)
    assert np.abs(leaf.encode_query(TEXTS) - teacher.encode_query(TEXTS)).max() > 1e-3


def test_the_report_has_every_model(done: Done) -> None:
    (stage,) = done.stages(Evaluate)
    results = read_json(folder_of(done.root, stage.name) / "report.json")["results"]
    assert {one["model"] for one in results} >= {*stage.models, *stage.intermediate}
