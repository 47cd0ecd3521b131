"""Keys and tokens stand in the environment and nowhere else: in no file of a run, on no screen."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from endpoint_server import Server
from killed_runs import rows
from tiny_models import save_tiny

from embedtrain.config.errors import hide_passwords
from embedtrain.data.rows import write_rows

CANARY = "canary-7f3a91c2"
SECRETS = {
    "TINY_KEY": CANARY,
    "HF_TOKEN": f"hf_{CANARY}",
    "WANDB_API_KEY": f"{CANARY}-wandb",
    "WANDB_MODE": "offline",
    "HF_ENDPOINT": f"https://me:{CANARY}@127.0.0.1:9",
}
TRAIN = {
    "kind": "train",
    "objective": {"terms": [{"kind": "infonce", "temperature": 0.05}]},
    "batch_size": 4,
    "steps": 2,
    "lr": 1e-3,
}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def write_run(folder: Path, url: str, model: str) -> Path:
    """A run that mines through an endpoint with a key, trains, and exports."""
    write_rows(folder / "rows.parquet", rows(12, 0))
    endpoint = {"kind": "endpoint", "url": url, "protocol": "tei", "key_variable": "TINY_KEY"}
    stages = [
        {"name": "mined", "kind": "mine", "from": "base", "retrievers": [endpoint], "top_k": 3},
        {"name": "tuned", **TRAIN},
        {"name": "out", "kind": "export", "from": "tuned", "link": "model"},
    ]
    content = {
        "name": "r",
        "folder": str(folder / "runs"),
        "base": {"model": model},
        "sources": {"one": {"rows": str(folder / "rows.parquet")}},
        "stages": stages,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def embedtrain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command with all secrets in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "embedtrain", *words],
        env=os.environ | SECRETS | {"EMBEDTRAIN_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def holding(folder: Path, secret: str) -> list[str]:
    """Files below a folder that hold a secret, in their names or contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if secret.encode() in path.read_bytes() or secret in str(path)]


@pytest.mark.slow
def test_no_secret_is_written_or_printed(tmp_path: Path, server: Server) -> None:
    config = write_run(tmp_path, server.url, str(save_tiny("llama", tmp_path / "base")))
    (tmp_path / "machine.yaml").write_text("trackers: [tensorboard, wandb]\n")
    done = embedtrain(tmp_path, "run", str(config), "--machine", str(tmp_path / "machine.yaml"))
    assert done.returncode == 0, done.stderr
    assert "dropped" not in done.stderr
    assert list((tmp_path / "runs/r").glob("tuned-*/wandb/offline-run-*/*.wandb"))
    assert {one.key for one in server.asked if "info" not in one.path} == {f"Bearer {CANARY}"}  # it was used
    report = embedtrain(tmp_path, "report", str(config))
    shown = [done.stdout, done.stderr, report.stdout, report.stderr]
    assert (tmp_path / "runs/r/model/model.safetensors").is_file()
    assert len(list(tmp_path.rglob("*.json"))) > 10
    assert holding(tmp_path, CANARY) == []
    assert not [text for text in shown if CANARY in text]
    (tmp_path / "runs/r/run.json").write_text(CANARY)
    assert holding(tmp_path, CANARY) == [str(tmp_path / "runs/r/run.json")]  # it would be found


def test_a_refusal_of_the_hub_shows_no_password(tmp_path: Path) -> None:
    """The address of a hub may hold a password, and huggingface_hub says the address."""
    config = write_run(tmp_path, "http://127.0.0.1:9", "somebody/model")
    done = embedtrain(tmp_path, "run", str(config))
    assert done.returncode == 2
    assert "somebody/model: " in done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert holding(tmp_path, CANARY) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("for url https://me:word@host/a?b: 401", "for url https://[hidden]@host/a?b: 401"),
        ("'http://token@[::1]:80'", "'http://[hidden]@[::1]:80'"),
        ("https://host/a@b and me@host", "https://host/a@b and me@host"),
        ("https://me:a@b@host", "https://[hidden]@host"),
    ],
)
def test_what_stands_before_a_host_is_hidden(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown


def test_the_command_hides_them(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: r\n")
    done = embedtrain(
        tmp_path, "check", str(tmp_path / "run.yaml"), "--set", f"base=https://me:{CANARY}@host"
    )
    assert done.returncode == 2
    assert "--set base=https://[hidden]@host: base: holds an address with a user or password" in done.stderr
    assert CANARY not in done.stdout + done.stderr
