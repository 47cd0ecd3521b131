"""docs/ablations.md and the shipped lists: its commands plan, its tables are those of the code."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from embedtrain.ablation.shorthands import SHORTHANDS
from embedtrain.cli import app
from embedtrain.config.ablations import CONTROL, Ablation, read_ablation

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^embedtrain (ablate .*)$", PAGE, re.MULTILINE)
LISTS = sorted(path.name for path in (ROOT / "ablations").glob("*.yaml") if path.name != "micro.yaml")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def plan(command: str, folder: Path) -> str:
    """What a command would do, in a run folder of its own."""
    words = shlex.split(command)
    words += [] if "--plan" in words else ["--plan"]
    words += [] if "--seeds" in words else ["--seeds", "1", "2"]
    done = CliRunner().invoke(app, [*words, "--set", f"folder={folder}"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_plan(command: str, tmp_path: Path) -> None:
    told = plan(command, tmp_path)
    assert "0 of " in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".hashes.json"]


def test_every_list_is_shown_and_keeps_five_seeds() -> None:
    shown = {Path(shlex.split(command)[1]).name for command in COMMANDS}
    assert set(LISTS) <= shown
    for name in LISTS:
        assert len(read_ablation(Path("ablations") / name, {})[0].seeds) == 5


def test_stages_in_common_are_trained_once(tmp_path: Path) -> None:
    told = plan("ablate ablations/soup.yaml", tmp_path)
    assert re.search(r"full recipe +finetune x 2, finetune_again x 2, pretrain x 1 ", told)
    assert re.search(r"no soup +nothing ", told)
    assert re.search(r"slerp +nothing ", told)


def test_the_shorthands_are_those_of_the_code() -> None:
    rows = {name: (one.values, one.meaning) for name, one in SHORTHANDS.items()}
    table = PAGE[PAGE.index("| shorthand |") : PAGE.index("A shorthand writes")]
    shown = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    assert {name: (values, meaning) for name, values, meaning in shown} == rows


def test_the_keys_are_those_of_the_class() -> None:
    table = PAGE[PAGE.index("| key | is |") :]
    keys = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    names = [field.alias or name for name, field in Ablation.model_fields.items()]
    assert keys[: len(names)] == names
    assert CONTROL in PAGE


def test_the_file_shown_is_part_of_the_shipped_one() -> None:
    (shown,) = re.findall(
        r"^```yaml title=\"ablations/finetune.yaml\"\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    part, whole = yaml.safe_load(shown), yaml.safe_load((ROOT / "ablations" / "finetune.yaml").read_text())
    assert part.keys() == whole.keys()
    assert part.pop("vary").items() <= whole.pop("vary").items()
    assert part == whole


def test_the_help_names_its_options() -> None:
    done = CliRunner().invoke(app, ["ablate", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    for option in (
        "--vary",
        "--seeds",
        "--seeded",
        "--control",
        "--model",
        "--out",
        "--keep-models",
        "--plan",
    ):
        assert option in done.output


def test_options_take_all_values_that_follow(tmp_path: Path) -> None:
    command = "ablate configs/tiny.yaml --seeds 3 9 --vary soup=off masks=off --seeded finetune_a finetune_b"
    told = plan(command, tmp_path)
    assert "seeds 3, 9," in told
    assert re.search(r"full recipe +finetune_a x 2, finetune_b x 2, pretrain x 1 ", told)
    assert "soup=off" in told
    assert "masks=off" in told
