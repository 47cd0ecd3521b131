"""What the serving check says of exports, of a default save, and of folders broken on purpose."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_folders import BROKEN, config, pickle_only
from exports import PLAIN, change_json, tiny_encoder, tiny_export
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny_models import DECODERS, ENCODERS
from torch import nn
from typer.testing import CliRunner

from embedtrain.artifacts import write_json
from embedtrain.cli import app
from embedtrain.config.errors import UserError
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.serving.answers import Outcome
from embedtrain.serving.check import SERVERS, as_json, check_folder, is_bad, worst
from embedtrain.serving.served import read_shapes

BAD = (Outcome.OTHER, Outcome.REFUSES)
OUTSIDE = PLAIN.model_copy(update={"query": "Find the answer:{text}"})


def faults(folder: Path) -> dict[tuple[str, str], tuple[Outcome, str]]:
    """What is bad, by server and rule."""
    return {
        (f.server.key, f.rule.name): (f.answer.outcome, f.answer.text)
        for f in check_folder(folder)
        if f.answer.outcome in BAD
    }


Copy = Callable[..., Path]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Copies of exports, each made once: families and settings recur."""
    made: dict[str, Path] = {}

    def copy(place: Path, family: str = "llama", **settings: object) -> Path:
        key = repr((family, sorted(settings.items())))
        if key not in made:
            made[key] = tiny_export(tmp_path_factory.mktemp("export"), family, **settings)[1]
        return Path(shutil.copytree(made[key], place / "model"))

    return copy


@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_exports_are_clean(tmp_path: Path, export: Copy, family: str) -> None:
    folder = export(tmp_path, family)
    assert faults(folder) == {}
    found = check_folder(folder)
    assert {f.server.key for f in found} == {server.key for server in SERVERS}
    assert worst(found, SERVERS[0]) is Outcome.FINE


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_causal_exports_are_clean(tmp_path: Path, family: str) -> None:
    _, folder = tiny_export(tmp_path, family, attention="causal", pooling="last_token", append_eos=True)
    assert faults(folder) == {}
    said = {f.server.key: f.answer.text for f in check_folder(folder) if f.rule.name == "attention"}
    assert {text.split(",")[0] for text in said.values()} == {"causal"}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_caught_by_the_right_rule(tmp_path: Path, export: Copy, name: str) -> None:
    family, settings, damage, expected = BROKEN[name]
    folder = export(tmp_path, family, **settings)
    before = set(faults(folder)) - {(server, rule) for server, rule, _, _ in expected}
    damage(folder)
    found = faults(folder)
    for server, rule, outcome, start in expected:
        assert found[server, rule][0] is outcome
        assert found[server, rule][1].startswith(start)
    assert before == set()  # the premise: the export itself had no other fault


def test_default_save_of_sentence_transformers_6(tmp_path: Path, export: Copy) -> None:
    """A real save: what TEI requires is gone, and nothing else is wrong."""
    folder = export(tmp_path)
    assert faults(folder) == {}
    SentenceTransformer(str(folder)).save(str(tmp_path / "saved"))
    found = faults(tmp_path / "saved")
    assert found["tei", "pooling"] == (
        Outcome.REFUSES,
        "1_Pooling/config.json: pooling_mode_cls_token is missing; --pooling must name the pooling",
    )
    assert found["tei", "limit"] == (
        Outcome.REFUSES,
        "sentence_bert_config.json: max_seq_length is missing",
    )
    assert {server for server, _ in found} == {"tei"}


def test_prompt_outside_the_pool(tmp_path: Path) -> None:
    _, folder = tiny_export(tmp_path, text=OUTSIDE, pool_instruction=False)
    text = "prompts are pooled with the text; sentence-transformers leaves them out (include_prompt)"
    assert faults(folder) == {
        ("tei", "include_prompt"): (Outcome.OTHER, text),
        ("vllm", "include_prompt"): (Outcome.OTHER, text),
    }


def test_dense(tmp_path: Path) -> None:
    plain = tiny_encoder(tmp_path / "base")
    dense = nn.Sequential(nn.Linear(32, 16), nn.Tanh())
    export_encoder(Encoder(plain.backbone, plain.tokenizer, plain.spec, dense), tmp_path / "model")
    assert faults(tmp_path / "model") == {}
    modules = tmp_path / "model/modules.json"
    new = modules.read_text().replace(".models.Dense", ".base.modules.dense.Dense")
    assert new != modules.read_text()
    modules.write_text(new)
    assert faults(tmp_path / "model") == {
        ("tei", "Dense"): (
            Outcome.OTHER,
            "modules.json holds sentence_transformers.base.modules.dense.Dense, which it does not know: "
            "Dense is left out",
        )
    }
    change_json(
        tmp_path / "model/2_Dense/config.json", lambda c: c.update(activation_function="torch.nn.Mish")
    )
    assert faults(tmp_path / "model")["vllm", "Dense"][1].endswith("is not known: all Dense are left out")


def test_router_package_is_for_sentence_transformers_alone(tmp_path: Path) -> None:
    kind = "sentence_transformers.sentence_transformer.modules.router.Router"
    write_json(tmp_path / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    assert faults(tmp_path) == {
        (server, "model"): (
            Outcome.REFUSES,
            "a Router package of several models; load them one by one",
        )
        for server in ("transformers", "tei", "vllm")
    }


def test_pickles_are_named(tmp_path: Path, export: Copy) -> None:
    folder = export(tmp_path)
    pickle_only(folder)
    found = {f.rule.name: f.answer for f in check_folder(folder) if f.server.key == "sentence-transformers"}
    assert found["pickles"].text == "pytorch_model.bin: pickles, which can run code when they are read"
    assert found["weights"].text == "only pytorch_model.bin, a pickle; its names are not checked"


def test_headers_are_read_without_weights(tmp_path: Path, export: Copy) -> None:
    folder = export(tmp_path)
    expected = {name: tuple(value.shape) for name, value in load_file(folder / "model.safetensors").items()}
    assert read_shapes(folder / "model.safetensors") == expected
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match=r"model.safetensors: no safetensors file: its header would hold "):
        check_folder(folder)


def test_every_rule_names_its_source() -> None:
    for server in SERVERS:
        assert any(part[:1].isdigit() for part in server.read_from.replace("v", " ").split())
        assert all(rule.source for rule in server.rules)
        assert len({rule.name for rule in server.rules}) == len(server.rules)


def test_command(tmp_path: Path, export: Copy) -> None:
    folder = export(tmp_path)
    runner = CliRunner()
    clean = runner.invoke(app, ["serving", str(folder)])
    assert clean.exit_code == 0
    assert "not run" in clean.output
    told = runner.invoke(app, ["serving", str(folder), "--json"])
    assert json.loads(told.output) == as_json(folder, check_folder(folder))
    assert json.loads(told.output)["basis"] == "by the rules in the server's source, not run"
    config(lambda c: c.pop("use_bidirectional_attention"))(folder)
    assert runner.invoke(app, ["serving", str(folder)]).exit_code == 1
    assert runner.invoke(app, ["serving", str(folder), "--server", "vllm"]).exit_code == 0
    sources = runner.invoke(app, ["serving", str(folder), "--all", "--server", "tei"])
    assert "router/src/lib.rs" in sources.output
    assert is_bad(check_folder(folder))


def test_errors(tmp_path: Path, export: Copy) -> None:
    with pytest.raises(UserError, match="no such folder; give an exported model"):
        check_folder(tmp_path / "none")
    with pytest.raises(UserError, match=r"neither config\.json nor modules.json, so this is no model folder"):
        check_folder(tmp_path)
    folder = export(tmp_path)
    shutil.copy(folder / "README.md", folder / "config.json")
    with pytest.raises(UserError, match=r"config.json: not JSON: "):
        check_folder(folder)
    found = CliRunner().invoke(app, ["serving", str(folder), "--server", "ollama"])
    assert str(found.exception) == (
        "--server ollama: expected one of sentence-transformers, transformers, tei, vllm"
    )
