"""Starts each stage as its own process, and puts its folder in place."""

import fcntl
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from embedtrain import __version__
from embedtrain.artifacts import (
    DONE,
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
from embedtrain.show.stage_lines import finished, started
from embedtrain.stages.context import STAGE_FILE

PARALLEL = ("train", "distil", "mine", "score", "evaluate")
"""Stages that share their work between the machine's processes."""
RESUME_CODE = 75


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


@contextmanager
def forward_signals(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass SIGTERM on to the child, and leave Ctrl-C, which reaches it already, to the child."""
    terminate = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)


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
        child = subprocess.Popen(launch_command(plan, machine))
        with forward_signals(child):
            code = child.wait()
        if code != 0:
            raise StageFailed(plan, code)
    record = read_json(plan.partial / DONE)
    record.update(parts=plan.parts, embedtrain=__version__, kind=plan.stage.kind)
    mark_done(plan.partial, record)
    plan.partial.rename(plan.folder)


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
        if code in (RESUME_CODE, 130, -signal.SIGTERM, -signal.SIGINT):
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


def waiting(plans: Sequence[StagePlan], until: str | None) -> list[str]:
    """Names of the stages that are to be done yet, up to `until`."""
    names = [plan.stage.name for plan in plans]
    last = names.index(until) + 1 if until in names else 0 if until else len(names)
    return [plan.stage.name for plan in plans[:last] if plan.state != "done"]


def run_stages(
    run: Run, machine: Machine, config: str, *, until: str | None = None, again: bool = False
) -> Path:
    """Do what is left to do, in order; returns the run's folder.

    `until` stops after the stage of that name; `again` throws unfinished work away first.
    """
    root = Path(run.folder) / run.name
    with lock(root, config):
        plans = plan_run(run)
        print_plan(run, plans)
        if any(p.state != "done" and "base" in SECTIONS.get(p.stage.kind, ()) for p in plans):
            probe(run, root)
        stages = [(plan.stage.name, plan.stage.kind) for plan in plans]
        for number, plan in enumerate(plans):
            if again and plan.partial.exists():
                shutil.rmtree(plan.partial)
            if plan.state != "done":
                print(f"\n{started(stages, number, waiting(plans[number + 1 :], until))}", flush=True)
                work(plan, run, machine)
                print(finished(*stages[number], read_json(plan.folder / DONE)), flush=True)
            publish(plan)
            if plan.stage.name == until:
                break
    return root
