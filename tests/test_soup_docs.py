"""docs/soup.md: its commands work on tiny models, its stage is valid, its table has every method."""

import re
import shlex
import typing
from pathlib import Path

import pytest
import yaml
from souped import export_of, lora_checkpoints, soup_json, write_examples, write_held_out
from typer.testing import CliRunner

from embedtrain.cli import app
from embedtrain.config.schema import Run
from embedtrain.config.soups import Soup, SoupMethod
from embedtrain.data.rows import read_rows
from embedtrain.model.load import open_encoder

PAGE = (Path(__file__).parent.parent / "docs" / "soup.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^embedtrain (.*)$", PAGE, re.MULTILINE)
(STAGE,) = re.findall(r"^```yaml title=\"stages\"\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name: three exports, their base, held-out data and a few rows."""
    folder = tmp_path_factory.mktemp("docs")
    for name, checkpoint in zip("abc", lora_checkpoints(folder), strict=True):
        (folder / "runs" / name).mkdir(parents=True)
        export_of(checkpoint, folder / "runs" / name / "model")
    (folder / "my_base").symlink_to(folder / "base")
    write_held_out(folder / "held-out.jsonl")
    rows = read_rows(write_examples(folder / "few.parquet"))
    lines = [f'{{"query": "{row.query}", "positives": ["{row.positives[0]}"]}}' for row in rows]
    (folder / "few.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_commands_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMMANDS) == 6
    monkeypatch.chdir(place)
    for command in COMMANDS:
        result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        out = Path(shlex.split(command)[shlex.split(command).index("--out") + 1])
        weights = [one["weight"] for one in soup_json(out)["ingredients"]]
        assert None in weights or sum(weights) == pytest.approx(1.0)
        assert open_encoder(out).dim == 32


def test_the_stage_is_valid() -> None:
    train = {"kind": "train", "objective": {"terms": [{"kind": "infonce", "temperature": 0.1}]}}
    train |= {"batch_size": 2, "steps": 200, "lr": 0.1, "snapshot_steps": [150]}
    stages = [train | {"name": "finetune_a"}, train | {"name": "finetune_b"}, *yaml.safe_load(STAGE)]
    sources = {"faq": {"rows": "x.jsonl"}}
    run = Run.model_validate({"name": "r", "base": {"model": "m"}, "sources": sources, "stages": stages})
    assert isinstance(run.stages[-1], Soup)


def test_every_method_is_told_of() -> None:
    kinds = [typing.get_args(one.model_fields["kind"].annotation)[0] for one in methods()]
    rows = PAGE[PAGE.index("| `kind` |") :].split("\n\n")[0].splitlines()[2:]
    assert sorted(re.findall(r"^\| `(\w+)`", "\n".join(rows), re.MULTILINE)) == sorted(kinds)


def methods() -> tuple[type, ...]:
    """The config classes of the methods."""
    found: tuple[type, ...] = typing.get_args(typing.get_args(SoupMethod)[0])
    return found
