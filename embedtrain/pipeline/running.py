"""Starts each stage as its own process, and puts its folder in place."""

import fcntl
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedtrain import __version__
from embedtrain.artifacts import (
    BEST,
    CHECKPOINTS,
    DONE,
    flush,
    is_done,
    mark_done,
    read_json,
    replace_link,
    write_json,
)
from embedtrain.config.errors import UserError
from embedtrain.config.load import resolved
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Evaluate, Export
from embedtrain.pipeline.identity import SECTIONS
from embedtrain.pipeline.plan import StagePlan, plan_run, print_plan
from embedtrain.pipeline.stopping import RESUME_CODE, SIGNALS, at_work, hearing, stop_between
from embedtrain.stages.context import STAGE_FILE

PARALLEL = ("train", "distil", "mine", "score", "evaluate")
"""Stages that share their work between the machine's processes."""
INTERRUPTED = 130


def launch_command(plan: StagePlan, machine: Machine) -> list[str]:
    """The process that works on a stage: plain, torch.distributed.run (CPU) or accelerate launch (GPUs)."""
    module = ["-m", "embedtrain", "stage", str(plan.partial)]
    if plan.stage.kind not in PARALLEL or machine.num_processes == 1:
        return [sys.executable, *module]
    count = str(machine.num_processes)
    if machine.device == "cuda":
        config = ["--config_file", machine.accelerate_config] if machine.accelerate_config else []
        return [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            *config,
            "--num_processes",
            count,
            *module,
        ]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count]
    return [sys.executable, *launcher, *module]


def work(plan: StagePlan, run: Run, machine: Machine) -> None:
    """Run one stage in a process of its own and move its folder into place when it is done."""
    if not is_done(plan.partial):
        plan.partial.mkdir(parents=True, exist_ok=True)
        context = {
            "run": resolved(run),
            "stage": plan.stage.name,
            "machine": machine.model_dump(mode="json"),
            "inputs": {name: str(path) for name, path in plan.inputs.items()},
        }
        write_json(plan.partial / STAGE_FILE, context)
        with at_work(launch_command(plan, machine), plan.partial) as started:
            code = started.child.wait()
        if started.asked or code != 0:
            raise StageFailed(plan, RESUME_CODE if started.asked else code)
    record = read_json(plan.partial / DONE)
    record.update(parts=plan.parts, embedtrain=__version__, kind=plan.stage.kind)
    mark_done(plan.partial, record)
    for name in (CHECKPOINTS, BEST):  # of use only to an unfinished stage
        shutil.rmtree(plan.partial / name, ignore_errors=True)
    plan.partial.rename(plan.folder)
    flush(plan.folder.parent)


def probe(run: Run, root: Path) -> None:
    """Ask what needs torch, the base's layout and dims among it, before the first stage starts."""
    question = write_json(root / ".probe.json", resolved(run))
    if subprocess.run([sys.executable, "-m", "embedtrain", "probe", str(question)], check=False).returncode:
        raise UserError(f"run '{run.name}' cannot start: see above")


class StageFailed(UserError):
    """A stage's process ended with `code`; 2 means it has told the user already."""

    def __init__(self, plan: StagePlan, code: int) -> None:
        """Say what happened and what to do."""
        name = f"stage '{plan.stage.name}' ({plan.stage.kind})"
        if code in (RESUME_CODE, INTERRUPTED, *(-number for number in SIGNALS)):
            text = f"{name} stopped; the same command goes on from where it was"
        elif code < 0:
            text = f"{name} was killed by {signal.Signals(-code).name}; the same command resumes it"
        else:
            text = f"{name} failed with exit code {code}; its folder is {plan.partial}"
        super().__init__(text)
        self.code = RESUME_CODE if "stopped" in text else 2


def publish(plan: StagePlan) -> None:
    """Links in the run's folder to what a person looks for: the model, the report."""
    root = plan.folder.parent
    if isinstance(plan.stage, Export) and plan.stage.link:
        replace_link(root / plan.stage.link, plan.folder / "model")
        if plan.stage.documents:
            replace_link(root / f"{plan.stage.link}-router", plan.folder / "router")
    if isinstance(plan.stage, Evaluate):
        for name in ("report.json", "report.md", "report.html"):
            if (plan.folder / name).exists():
                replace_link(root / name, plan.folder / name)


@contextmanager
def lock(root: Path, config: str) -> Iterator[None]:
    """One run at a time in a folder, and one config file a folder."""
    root.mkdir(parents=True, exist_ok=True)
    owner = root / "run.json"
    if owner.exists() and (made_by := read_json(owner)["config"]) != config:
        raise UserError(
            f"{root} was made by {made_by}, not by {config}: give the run another name, "
            f"or remove {owner} to go on in this folder"
        )
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{root} is in use by another embedtrain process; wait for it or stop it"
            ) from None
        write_json(owner, {"config": config})
        yield


def run_stages(
    run: Run, machine: Machine, config: str, *, until: str | None = None, again: bool = False
) -> Path:
    """Do what is left to do, in order; returns the run's folder.

    `until` stops after the stage of that name; `again` throws unfinished work away first.
    """
    root = Path(run.folder) / run.name
    with lock(root, config), hearing(stop_between):
        plans = plan_run(run)
        print_plan(run, plans)
        if any(p.state != "done" and "base" in SECTIONS.get(p.stage.kind, ()) for p in plans):
            probe(run, root)
        for plan in plans:
            if again and plan.partial.exists():
                shutil.rmtree(plan.partial)
            if plan.state != "done":
                print(f"\n▶ {plan.stage.name} ({plan.stage.kind})", flush=True)
                work(plan, run, machine)
            publish(plan)
            if plan.stage.name == until:
                break
    return root
