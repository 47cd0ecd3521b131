"""Starts each stage as its own process, and puts its folder in place."""

import fcntl
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from embedtrain import __version__
from embedtrain.artifacts import (
    BEST,
    CHECKPOINTS,
    DONE,
    WORK,
    flush,
    is_done,
    mark_done,
    read_json,
    replace_link,
    write_json,
)
from embedtrain.config.errors import UserError, disk_full_is_an_error
from embedtrain.config.load import resolved
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Evaluate, Export
from embedtrain.pipeline.identity import SECTIONS
from embedtrain.pipeline.launching import PARALLEL, Node, launch_command, this_node
from embedtrain.pipeline.plan import StagePlan, plan_run, print_plan
from embedtrain.pipeline.stopping import at_work, stop_between
from embedtrain.places import (
    FOLDER,
    Patience,
    Stalled,
    begin,
    end,
    first_failure,
    has_told,
    here,
    read_places,
)
from embedtrain.show.stage_lines import finished, started
from embedtrain.stages.context import STAGE_FILE
from embedtrain.stops import INTERRUPTED, RESUME_CODE, SIGNALS, STOP, hearing

FOLLOW_SECONDS = 1.0
"""Between two looks of a node at what the first one has done."""


def work(plan: StagePlan, run: Run, machine: Machine, node: Node | None = None) -> None:
    """Run one stage in a process of its own and move its folder into place when it is done."""
    if not is_done(plan.partial):
        plan.partial.mkdir(parents=True, exist_ok=True)
        context = {
            "run": resolved(run),
            "stage": plan.stage.name,
            "machine": machine.model_dump(mode="json"),
            "inputs": {name: str(path) for name, path in plan.inputs.items()},
        }
        shutil.rmtree(plan.partial / FOLDER, ignore_errors=True)
        write_json(plan.partial / STAGE_FILE, context)  # other nodes begin when they see it
        launch(plan, machine, node)
    record = read_json(plan.partial / DONE)
    record.update(parts=plan.parts, embedtrain=__version__, kind=plan.stage.kind)
    mark_done(plan.partial, record)
    for name in (CHECKPOINTS, BEST, WORK, FOLDER):  # of use only to an unfinished stage
        shutil.rmtree(plan.partial / name, ignore_errors=True)
    (plan.partial / STOP).unlink(missing_ok=True)
    plan.partial.rename(plan.folder)
    flush(plan.folder.parent)


def quiet(command: list[str], folder: Path) -> list[str]:
    """The command with what a launcher says of itself kept in a file of the stage folder."""
    python, option, module, *arguments = command
    if module == "embedtrain":
        return command
    log = folder / FOLDER / "launcher.log"
    log.parent.mkdir(exist_ok=True)
    return [python, option, "embedtrain.pipeline.launcher", str(log), module, *arguments]


def launch(plan: StagePlan, machine: Machine, node: Node | None) -> None:
    """Do a stage's work in processes of its own."""
    command = quiet(launch_command(plan, machine, node), plan.partial)
    with at_work(command, plan.partial, follows=node is not None and node.rank > 0) as launched:
        code = launched.wait()
    if code != 0 or launched.was_asked():
        raise StageFailed(plan, RESUME_CODE if launched.was_asked() else code)


def follow(plan: StagePlan, machine: Machine, node: Node, leader: Patience) -> None:
    """Wait for the first node to finish a stage, and work with it where the stage is shared."""
    launched = plan.stage.kind not in PARALLEL
    while not is_done(plan.folder):
        try:
            leader.check(plan.folder)
        except Stalled as error:
            if is_done(plan.folder):
                return
            raise UserError(f"node {node.rank} follows node 0, whose {error}") from None
        if not launched and (plan.partial / STAGE_FILE).is_file() and not is_done(plan.partial):
            print(f"\n▶ {plan.stage.name} ({plan.stage.kind}), node {node.rank}", flush=True)
            launch(plan, machine, node)
            launched = True
        time.sleep(FOLLOW_SECONDS)


@contextmanager
def telling(root: Path, machine: Machine, node: Node | None) -> Iterator[None]:
    """One of several nodes says meanwhile that it lives, and then that it has ended."""
    if node is not None:
        begin(root, node.rank, machine.timeout_seconds)
    try:
        yield
    finally:
        end()


def follow_stages(plans: Sequence[StagePlan], machine: Machine, node: Node, until: str | None) -> None:
    """Follow the first node from stage to stage, as long as it gives signs of life."""
    own = here()
    assert own is not None
    leader = Patience(own, [0], needed=True)
    for plan in plans:
        follow(plan, machine, node, leader)
        if plan.stage.name == until:
            return


def probe(run: Run, root: Path) -> None:
    """Ask what needs torch, the base's layout and dims among it, before the first stage starts."""
    question = write_json(root / ".probe.json", resolved(run))
    if subprocess.run([sys.executable, "-m", "embedtrain", "probe", str(question)], check=False).returncode:
        raise UserError(f"run '{run.name}' cannot start: see above")


class StageFailed(UserError):
    """A stage's process ended with `code`; one that has left a failure has told the user already."""

    def __init__(self, plan: StagePlan, code: int) -> None:
        """Say what happened and what to do."""
        name = f"stage '{plan.stage.name}' ({plan.stage.kind})"
        failure = None if code == RESUME_CODE else first_failure(plan.partial)
        code = failure.code if failure else code
        is_stopped = code in (RESUME_CODE, INTERRUPTED, *(-number for number in SIGNALS))
        if is_stopped:
            text = f"{name} stopped; the same command goes on from where it was"
        elif code < 0:
            text = f"{name} was killed by {signal.Signals(-code).name}; the same command resumes it"
        elif failure or has_told(plan.partial):
            text = f"{name} failed, see above; its folder is {plan.partial}"
        else:
            places = [f"process {place.rank} at {place.describe()}" for place in read_places(plan.partial)]
            last = f"; last seen: {', '.join(places)}" if places else ""
            text = f"{name} ended with exit code {code} and no word why{last}; its folder is {plan.partial}"
        super().__init__(text)
        self.code = RESUME_CODE if is_stopped else 2


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

    `until` stops after the stage of that name; `again` throws unfinished work away first. Of several nodes,
    which share the folder, the first one leads and the others follow it from stage to stage.
    """
    root, node = Path(run.folder) / run.name, this_node(machine)
    if node is not None and node.rank > 0:
        with hearing(stop_between), telling(root, machine, node):
            follow_stages(plan_run(run), machine, node, until)
        return root
    with (
        lock(root, config),
        hearing(stop_between),
        disk_full_is_an_error(root),
        telling(root, machine, node),
    ):
        plans = plan_run(run)
        for plan in plans:
            if not is_done(plan.partial):  # other nodes wait until it is written anew
                (plan.partial / STAGE_FILE).unlink(missing_ok=True)
        print_plan(run, plans)
        if any(p.state != "done" and "base" in SECTIONS.get(p.stage.kind, ()) for p in plans):
            probe(run, root)
        stages = [(plan.stage.name, plan.stage.kind) for plan in plans]
        for number, plan in enumerate(plans):
            if again and plan.partial.exists():
                shutil.rmtree(plan.partial)
            if plan.state != "done":
                print(f"\n{started(stages, number, waiting(plans[number + 1 :], until))}", flush=True)
                work(plan, run, machine, node)
                print(finished(*stages[number], read_json(plan.folder / DONE)), flush=True)
            publish(plan)
            if plan.stage.name == until:
                break
    return root
