"""An ablation from its command to its table: what is trained once, kept, removed, resumed."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ablated import ask_here, work_here, write_run
from killed_runs import PATIENCE_SECONDS, kill

from embedtrain.ablation.setup import Asked, Setup, prepare
from embedtrain.ablation.table import ablate
from embedtrain.artifacts import read_json
from embedtrain.cli import main
from embedtrain.config.ablations import read_ablation
from embedtrain.config.schema import Machine, Run
from embedtrain.pipeline import StagePlan

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ("ablation.json", "ablation.md", "ablation.svg", "ablation.html")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    write_run(folder)
    return folder


def asked(place: Path, runs: str, vary: Sequence[str], seeds: Sequence[int], **given: object) -> Setup:
    """An ablation of the tiny run in a run folder of its own."""
    given |= {"vary": {name: [name] for name in vary}, "seeds": list(seeds)}
    given["set"] = [f"folder={place / runs}"]
    ablation, name = read_ablation(place / "run.yaml", given)
    return prepare(Asked(ablation, name, "run.yaml", None))


class Counted:
    """Does stages here and counts them; stops, as a killed program does, before the `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.done: list[str] = []
        self.last = last

    def __call__(self, plan: StagePlan, run: Run, machine: Machine) -> None:
        if len(self.done) == self.last:
            raise KeyboardInterrupt
        self.done.append(plan.stage.name)
        work_here(plan, run, machine)


def fill(setup: Setup, start: Counted, *, keep_models: bool = False) -> Path:
    machine = Machine(threads=1)
    return ablate(setup, machine, None, keep_models=keep_models, start=start, ask=ask_here)


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def test_twice_and_stopped_and_resumed_are_one_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, start = asked(place, "whole", ["focal=off"], [1, 2], seeded=["second"]), Counted()
    folder = fill(whole, start)
    # the control has a first stage of its own, the others share one; what was measured is removed
    assert Counter(start.done) == {"first": 2, "second": 6, "tuned": 6}
    assert sorted({path.name[:-9] for path in whole.root.glob("*-????????")}) == ["first", "second"]
    first, again = files(folder), Counted()
    fill(whole, again)
    assert again.done == []
    assert files(folder) == first

    stopped = asked(place, "stopped", ["focal=off"], [1, 2], seeded=["second"])
    for last in (1, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            fill(stopped, Counted(last))
    assert read_json(stopped.tables / "ablation.json")["seeds"] == [1]  # as far as it came
    assert files(fill(stopped, Counted())) == first
    told = capsys.readouterr().out
    assert "▶ cell 1 of 6: full recipe, seed 1\n" in told
    assert "▶ cell 3 of 6: control, seed 1; about " in told


def test_a_variant_that_comes_later_adds_its_own_cells_alone(place: Path) -> None:
    """On the folder that the test above leaves, or a new one."""
    fill(asked(place, "whole", ["focal=off"], [1], seeded=["second"]), Counted())
    more, start = (
        asked(place, "whole", ["focal=off", "stages.second.lr=0.5"], [1], seeded=["second"]),
        Counted(),
    )
    saved = read_json(fill(more, start, keep_models=True) / "ablation.json")
    assert start.done == ["second", "tuned"]
    assert len(list(more.root.glob("tuned-????????/model"))) == 1
    assert set(saved["tables"][0]["differences"]) == {"focal=off", "stages.second.lr=0.5", "control"}
    assert {one["verdict"] for one in saved["tables"][0]["differences"].values()} == {"one seed"}
    assert [table["title"] for table in saved["tables"]] == ["all tasks", "similarity", "retrieval"]


@dataclass
class Command:
    """`embedtrain ablate` as a process of its own, in a run folder of its own."""

    words: Sequence[str]
    folder: Path

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "embedtrain", "ablate", *self.words, "--set", f"folder={self.folder}"]
        with self.log.open("ab") as log:
            return subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log, env=environment)

    def kill_at(self, pattern: str) -> None:
        """Start, and kill as soon as there is one more file or folder of the pattern."""
        known = set(self.root.glob(pattern))
        child = self.start()
        while not set(self.root.glob(pattern)) - known and child.poll() is None:
            time.sleep(0.002)
        assert child.poll() is None, self.log.read_text()[-4000:]
        kill(child)

    def finish(self) -> dict[str, bytes]:
        """Start, wait for the end; the table's files."""
        assert self.start().wait(PATIENCE_SECONDS) == 0, self.log.read_text()[-4000:]
        return files(self.root / "tables" / "tiny")

    @property
    def root(self) -> Path:
        return self.folder / "ablations" / "tiny"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_the_command_goes_on_to_the_same_bytes(place: Path) -> None:
    words = [str(place / "run.yaml"), "--vary", "focal=off", "--seeds", "1", "2", "--seeded", "second"]
    killed = Command(words, place / "killed")
    killed.kill_at("first-*.partial/stage.json")
    killed.kill_at("tuned-*/done.json")
    killed.kill_at("cells/*.json")
    killed.kill_at("cells/*-alike-*.json")
    assert killed.finish() == Command(words, place / "unharmed").finish()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shipped_tiny_run_gives_one_table_killed_or_not(tmp_path: Path) -> None:
    """Real weights and texts; also asked for twice in one folder, where nothing is left to do."""
    words = ["configs/tiny.yaml", "--vary", "soup=off", "--seeds", "1", "--max-tokens", "3000"]
    whole, killed = Command(words, tmp_path / "whole"), Command(words, tmp_path / "killed")
    killed.kill_at("finetune_a-*/done.json")
    table = killed.finish()
    assert whole.finish() == table
    cells = {cell: cell.stat().st_mtime_ns for cell in whole.root.rglob("cells/*.json")}
    assert whole.finish() == table
    assert cells == {cell: cell.stat().st_mtime_ns for cell in whole.root.rglob("cells/*.json")} != {}
    assert read_json(killed.root / "tables" / "tiny" / "ablation.json")["seeds"] == [1]


def test_a_mistake_is_one_message(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["embedtrain", "ablate", str(place / "run.yaml"), "--vary", "foccal=off", "--plan"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told == "embedtrain: variant 'foccal=off': no shorthand 'foccal'; did you mean 'focal'?\n"
