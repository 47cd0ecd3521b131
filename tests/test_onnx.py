"""ONNX graphs of exported folders: their vectors, their attention, their files, and what is refused."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import DOCUMENTS, PLAIN, QUERIES, tiny_encoder, tiny_export
from torch import nn
from typer.testing import CliRunner

from embedtrain.artifacts import read_json
from embedtrain.cli import app
from embedtrain.config.errors import UserError
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.load import open_encoder
from embedtrain.model.onnx import GRAPH, export_onnx, write_graph
from embedtrain.model.onnx_proof import Runner, probe_attention, prove_graph
from embedtrain.model.st import open_sentence_transformer
from embedtrain.serving.check import check_folder, is_bad

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

OUTSIDE = PLAIN.model_copy(update={"query": "Find the answer:{text}", "document": "A text:{text}"})


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An exported folder that attends in both directions, and the folder of its graph."""
    place = tmp_path_factory.mktemp("onnx")
    tiny_export(place)
    export_onnx(place / "model", place / "graph", [*QUERIES, *DOCUMENTS])
    return place / "model", place / "graph"


def test_graph_gives_the_vectors_to_a_client_that_knows_only_its_folder(both: tuple[Path, Path]) -> None:
    model, folder = both
    texts = [*QUERIES, "short", "a text far over the limit " * 60]
    theirs = open_sentence_transformer(model)
    client = Runner(folder)
    prompt = read_json(folder / "config_sentence_transformers.json")["prompts"]["query"]
    found = client.vectors(client.rows([prompt + text for text in texts]))
    np.testing.assert_allclose(found, theirs.encode(texts, side="query"), atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_client_of_the_page(both: tuple[Path, Path]) -> None:
    page = (Path(__file__).parent.parent / "docs/serving.md").read_text()
    (code,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    assert "torch" not in code
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(both[1].parent)
        Path("quickstart-onnx").symlink_to("graph")
        exec(code, names)
    expected = open_sentence_transformer(both[0]).encode(
        ["How do I remove a package?", "What time is it?"], side="query"
    )
    np.testing.assert_allclose(names["vectors"], expected, atol=1e-5, rtol=0)


def test_facts(both: tuple[Path, Path]) -> None:
    facts = read_json(both[1] / "onnx/parity.json")
    assert facts["attention"] == "bidirectional"
    assert facts["compared"].keys() == {"prompt 'query'", "prompt 'document'", "every length"}
    assert facts["compared"]["every length"]["num_texts"] >= 17
    assert facts["max_cosine_distance"] <= 1e-6
    assert facts["inputs"] == ["input_ids", "attention_mask"]


def test_files_stand_where_servers_look(both: tuple[Path, Path]) -> None:
    """TEI's ort backend opens onnx/model.onnx and takes `sentence_embedding`; optimum `last_hidden_state`."""
    model, folder = both
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    copied = {str(p.relative_to(model)) for p in model.rglob("*") if p.is_file()} - {"model.safetensors"}
    assert names == copied | {"onnx/model.onnx", "onnx/parity.json"}
    session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])
    assert [(x.name, x.shape[:1]) for x in session.get_inputs()] == [
        ("input_ids", ["batch"]),
        ("attention_mask", ["batch"]),
    ]
    assert [x.name for x in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    assert not (folder.with_name("graph.partial")).exists()
    assert not is_bad([f for f in check_folder(folder) if f.server.key == "tei" and f.rule.name != "weights"])


def test_a_folder_of_other_attention_is_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    """The same weights, the same pooling: only the attention is another."""
    _, model = tiny_export(tmp_path, attention="causal")
    with pytest.raises(
        UserError, match="the graph's attention is bidirectional, the folder's causal; nothing"
    ):
        prove_graph(open_encoder(model), model, both[1], QUERIES)


@pytest.mark.slow
def test_a_causal_graph_is_called_causal_and_takes_no_other_folder(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    _, model = tiny_export(tmp_path, attention="causal")
    shutil.copytree(model, tmp_path / "graph")
    write_graph(open_encoder(model).eval(), tmp_path / "graph" / GRAPH)
    runner = Runner(tmp_path / "graph")
    assert probe_attention(runner) == "causal"
    facts = prove_graph(open_encoder(model), model, tmp_path / "graph", QUERIES)
    assert facts["attention"] == "causal"
    assert facts["max_cosine_distance"] <= 1e-6
    with pytest.raises(
        UserError, match="the graph's attention is causal, the folder's bidirectional; nothing"
    ):
        prove_graph(open_encoder(both[0]), both[0], tmp_path / "graph", QUERIES)


def test_a_graph_of_other_vectors_is_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    """The folder pools the last token, the graph the mean."""
    _, model = tiny_export(tmp_path, pooling="last_token")
    with pytest.raises(
        UserError, match=r"gives other vectors than sentence-transformers: cosine distance \d"
    ):
        prove_graph(open_encoder(model), model, both[1], QUERIES)


def test_errors(both: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is there already; an export never overwrites a model"):
        export_onnx(*both)
    with pytest.raises(
        UserError, match="none: no such folder; give an exported model, for example runs/NAME"
    ):
        export_onnx(tmp_path / "none", tmp_path / "graph")
    (tmp_path / "plain").mkdir()
    with pytest.raises(UserError, match=r"no modules\.json, so this is not a sentence-transformers folder"):
        export_onnx(tmp_path / "plain", tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "embedtrain.model.onnx.find_spec", lambda name: None if name == "onnxscript" else name
    )
    found = CliRunner().invoke(app, ["onnx", "model", "--out", str(tmp_path / "graph")])
    assert str(found.exception) == (
        "an ONNX graph needs onnxscript, not installed here: pip install 'embedtrain[onnx]'"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"pooling": "weighted_mean"}),
        ("qwen2", {"pooling": "last_token", "append_eos": True, "attention": "causal"}),
        ("qwen3", {"pooling": "last_token", "append_eos": True}),
        ("gemma3_text", {}),
        ("bert", {"pooling": "cls"}),
        ("xlm-roberta", {}),
        ("modernbert", {}),
    ],
)
def test_every_family(tmp_path: Path, family: str, settings: dict[str, object]) -> None:
    tiny_export(tmp_path, family, **settings)
    facts = export_onnx(tmp_path / "model", tmp_path / "graph", [*QUERIES, *DOCUMENTS])
    assert facts["attention"] == settings.get("attention", "bidirectional")
    assert facts["max_cosine_distance"] <= 1e-6


@pytest.mark.slow
def test_prompt_outside_the_pool(tmp_path: Path) -> None:
    tiny_export(tmp_path, text=OUTSIDE, pool_instruction=False, append_eos=True)
    facts = export_onnx(tmp_path / "model", tmp_path / "graph", [*QUERIES, *DOCUMENTS])
    assert facts["inputs"] == ["input_ids", "attention_mask", "pool_mask"]
    assert facts["max_cosine_distance"] <= 1e-6


@pytest.mark.slow
def test_dense_half_precision_and_command(tmp_path: Path) -> None:
    plain = tiny_encoder(tmp_path / "base")
    dense = nn.Sequential(nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 16, bias=False), nn.Identity())
    encoder = Encoder(plain.backbone, plain.tokenizer, plain.spec, dense)
    export_encoder(encoder, tmp_path / "model", precision="bfloat16")
    (tmp_path / "texts.txt").write_text("\n".join(QUERIES) + "\n")
    arguments = ["onnx", str(tmp_path / "model"), "--out", str(tmp_path / "graph")]
    found = CliRunner().invoke(app, [*arguments, "--texts", str(tmp_path / "texts.txt")])
    assert found.exit_code == 0, found.output
    facts = read_json(tmp_path / "graph/onnx/parity.json")
    assert (facts["bound"], facts["attention"]) == (1e-3, "bidirectional")
    assert Runner(tmp_path / "graph").run([[5, 6, 7]])[1].shape == (1, 16)
    assert "bidirectional" in found.output
