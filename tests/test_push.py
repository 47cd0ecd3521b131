"""`embedtrain push` against a stand-in hub: which bytes arrive, and what is refused."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from exports import change_json, tiny_export
from hub_server import OWNER, Hub, running_hub
from huggingface_hub import constants

from embedtrain.artifacts import write_json
from embedtrain.config.errors import UserError
from embedtrain.serving.check import SERVERS
from embedtrain.serving.push import push_folder, shown_bytes

# huggingface_hub itself uploads in a way that the library below it is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A stand-in hub."""
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder, made once."""
    return tiny_export(tmp_path_factory.mktemp("export"))[1]


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy of it with its proof beside it, as a stage leaves it."""
    write_json(tmp_path / "parity.json", {"bound": 1e-6, "max_cosine_distance": 1e-9, "token_ids": "equal"})
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.fixture
def login(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the environment named this hub and a token when huggingface_hub was imported."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", hub.token)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_byte_arrives(hub: Hub, model: Path) -> None:
    """The command in a process of its own, with all that a user sets in the environment."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "embedtrain", "push", str(model), "--repo", "tiny", "--private"]
    env = os.environ | settings | {"HF_TOKEN": hub.token}
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert hub.files == {(f"{OWNER}/tiny", "main"): contents(model)}
    assert hub.repos[f"{OWNER}/tiny"]["visibility"] == "private"
    assert found.stdout.splitlines()[-1] == f"{hub.address}/{OWNER}/tiny/commit/abc"
    size = shown_bytes((model / "model.safetensors").stat().st_size)
    assert re.search(rf"model.safetensors +{size}\s", found.stdout)
    assert hub.token not in found.stdout + found.stderr
    calls = [path for method, path in hub.asked]
    assert calls.index("/api/whoami-v2") < calls.index("/api/repos/create")
    assert sum(path.endswith("/commit/main") for path in calls) == 1  # all or nothing


@pytest.mark.usefixtures("login")
def test_a_branch_and_another_card(hub: Hub, model: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# Mine\n")
    hub.repos["team/tiny"] = {}  # it is there already
    address = push_folder(model, "team/tiny", revision="v2", card=card)
    assert address == f"{hub.address}/team/tiny/commit/abc"
    assert hub.branches == {"team/tiny": {"main", "v2"}}
    assert hub.files == {("team/tiny", "v2"): contents(model) | {"README.md": b"# Mine\n"}}


@pytest.mark.usefixtures("login")
def test_a_refusal_of_the_hub_is_one_line_without_the_token(hub: Hub, model: Path) -> None:
    hub.refusals["/commit/"] = 403
    with pytest.raises(UserError, match=rf"^{hub.address} refused the upload to team/tiny: .*403") as caught:
        push_folder(model, "team/tiny")
    assert "\n" not in str(caught.value)
    assert hub.token not in str(caught.value)
    assert hub.files == {}


@pytest.mark.usefixtures("login")
def test_weights_that_the_hub_does_not_take(hub: Hub, model: Path) -> None:
    hub.refusals["/objects/"] = 403
    start = f"^{hub.address} refused the upload to team/tiny: .*403"
    with pytest.raises(UserError, match=start):
        push_folder(model, "team/tiny")
    assert not any("/commit/" in path for _, path in hub.asked)


@pytest.mark.usefixtures("login")
def test_a_hub_that_cannot_be_reached(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub() as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.address)
    with pytest.raises(UserError, match=f"^{gone.address} cannot be reached: "):
        push_folder(model, "team/tiny")


@pytest.mark.usefixtures("login")
def test_a_name_that_no_hub_takes(model: Path) -> None:
    with pytest.raises(UserError, match=r"^--repo team/ti ny: Repo id must "):
        push_folder(model, "team/ti ny")


def test_nobody_is_logged_in(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError) as caught:
        push_folder(model, "team/tiny")
    assert str(caught.value) == "nobody is logged in: run `hf auth login`, or set HF_TOKEN"


def test_dry_run_sends_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push_folder(model, "team/tiny", dry_run=True) is None
    shown = " ".join(capsys.readouterr().out.split())  # however wide the terminal is
    assert "team/tiny: 11 files, " in shown
    assert "1_Pooling/config.json" in shown


def push(model: Path, **settings: object) -> str | None:
    """With no network asked."""
    return push_folder(model, "team/tiny", dry_run=True, **settings)


def test_foreign_files_are_refused(model: Path, tmp_path: Path) -> None:
    for name in ("optimizer.pt", "notes.log", ".env", "2_Normalize/run.py"):
        (model / name).write_text("x")
    (model / "linked.json").symlink_to(tmp_path / "parity.json")
    with pytest.raises(UserError) as caught:
        push(model)
    assert str(caught.value) == (
        f"{model}: not uploaded: .env (hidden), 2_Normalize/run.py (no file of a model), "
        "linked.json (a link), notes.log (no file of a model), optimizer.pt (a pickle, which can run code "
        "when it is read); remove what does not belong there"
    )


def test_what_servers_would_refuse_is_not_sent(model: Path) -> None:
    change_json(model / "config.json", lambda c: c.pop("use_bidirectional_attention"))
    with pytest.raises(UserError) as caught:
        push(model)
    assert str(caught.value) == (
        f"{model}: TEI, attention: other vectors: causal attention, by use_bidirectional_attention; "
        f"sentence-transformers has bidirectional; see `embedtrain serving {model}`, and name with --server "
        "those that must load it"
    )
    push(model, servers=[server for server in SERVERS if server.key != "tei"])


def test_proof_is_wanted(model: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "parity.json", {"bound": 1e-6, "max_cosine_distance": 1e-3})
    with pytest.raises(UserError, match=r"parity.json: cosine distance 0.001 is not within the bound 1e-06"):
        push(model)
    (tmp_path / "parity.json").unlink()
    with pytest.raises(
        UserError, match=r"no parity.json beside it or in onnx/: that it gives the trained vect"
    ):
        push(model)


def test_cards_and_folders(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder; give an exported model"):
        push(tmp_path / "none")
    with pytest.raises(UserError, match=r"--card .*none.md: no such file"):
        push(model, card=tmp_path / "none.md")
    (model / "README.md").unlink()
    with pytest.raises(UserError, match=r"no README.md; give a model card with --card"):
        push(model)


def test_a_link_of_a_run_is_the_folder_it_leads_to(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "run" / "model"
    link.parent.mkdir()
    link.symlink_to(model)
    assert push(link) is None


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (123_456, "123 kB"), (5e9, "5.00 GB")]
)
def test_sizes(size: int, shown: str) -> None:
    assert shown_bytes(int(size)) == shown
