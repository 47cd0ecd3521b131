"""What is stale, what runs next, what was made from what. No torch here: every stage is its own process."""

import fcntl
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedtrain import __version__
from embedtrain.artifacts import (
    DONE,
    HashCache,
    folder_bytes,
    hash_json,
    is_done,
    mark_done,
    read_json,
    replace_link,
    write_json,
)
from embedtrain.config import check
from embedtrain.config.errors import UserError
from embedtrain.config.load import resolved
from embedtrain.config.mining import Mine, Score
from embedtrain.config.references import inputs_of
from embedtrain.config.retrievers import Pinned, Retriever, Teacher
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import AnyStage, Evaluate, Export, Filter, Train
from embedtrain.show.tables import print_table
from embedtrain.stages.context import STAGE_FILE
from embedtrain.stages.shares import print_shares

FORMATS = {"filter": 1, "train": 2, "mine": 2, "score": 1, "select": 2, "soup": 2, "export": 1, "evaluate": 1}
SECTIONS = {
    "filter": ("seed",),
    "train": ("base", "encoder", "text", "precision", "seed"),
    "mine": ("base", "encoder", "text", "precision", "seed"),
    "score": ("base", "encoder", "text", "precision", "seed"),
    "select": ("seed",),
    "soup": ("base", "encoder", "precision", "seed"),
    "export": ("base", "encoder", "text", "precision", "seed"),
}
PARALLEL = ("train", "mine", "score")
"""Stages that share their work between the machine's processes."""
RESUME_CODE = 75


@dataclass(frozen=True)
class StagePlan:
    """One line of the plan. `parts` holds every value that the result depends on, by dotted name."""

    stage: AnyStage
    parts: dict[str, object]
    folder: Path
    state: str
    why: str
    inputs: dict[str, Path]

    @property
    def partial(self) -> Path:
        """Where the stage works until it is done."""
        return self.folder.with_name(self.folder.name + ".partial")


def sources_of(run: Run, stage: AnyStage) -> list[str]:
    """Names of the sources whose files this stage reads; an export proves itself on texts of all of them."""
    if isinstance(stage, Export):
        return list(run.sources)
    return check.sources_of(run, stage) if isinstance(stage, Train | Mine | Filter) else []


def flatten(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Leaves of nested mappings by dotted name; lists stay whole."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(f"{prefix}.{key}", inner)
    else:
        yield prefix, value


def identify(
    run: Run, stage: AnyStage, identities: Mapping[str, str], hashes: HashCache
) -> dict[str, object]:
    """Every value that the stage's result depends on, by dotted name."""
    config = resolved(run)
    entry = next(s for s in config["stages"] if s["name"] == stage.name)
    parts: dict[str, object] = {"format": FORMATS[stage.kind]}
    parts.update(flatten(f"stages.{stage.name}", entry))
    for section in SECTIONS.get(stage.kind, ()):
        parts.update(flatten(section, config[section]))
    for name in sources_of(run, stage):
        settings = dict(config["sources"][name])
        if not isinstance(stage, Train):
            del settings["weight"]
        parts.update(flatten(f"sources.{name}", settings))
        parts[f"contents of {run.sources[name].rows}"] = hashes.hash(run.sources[name].rows)
    for path in outside_paths(run, stage):
        parts[f"contents of {path}"] = hashes.hash(path)
    for name in inputs_of(run, stage):
        parts[f"stage {name}"] = identities[name]
    return parts


def outside_paths(run: Run, stage: AnyStage) -> list[str]:
    """Local files and folders beside the sources that a stage reads."""
    paths = [run.base.model] if "base" in SECTIONS.get(stage.kind, ()) else []
    paths += [stage.teacher.model] if isinstance(stage, Train) and stage.teacher else []
    paths += stage.test_data if isinstance(stage, Filter) else []
    paths += stage.corpus if isinstance(stage, Mine) else []
    paths += [judge.model for judge in judges_of(stage) if isinstance(judge, Pinned)]
    if isinstance(stage, Evaluate):
        paths += [*stage.models, *stage.intermediate, *stage.data, *stage.in_domain_data]
    names = {s.name for s in run.stages}
    return [p for p in paths if p not in names and Path(p).exists()]


def judges_of(stage: AnyStage) -> Sequence[Retriever | Teacher]:
    """What retrieves or scores in a stage."""
    if isinstance(stage, Mine):
        return stage.judges
    return stage.teachers if isinstance(stage, Score) else ()


def explain(folder: Path, stage: AnyStage, parts: Mapping[str, object]) -> str:
    """Why the newest finished folder of this stage does not serve, or `not made yet`."""
    finished = [p for p in folder.parent.glob(f"{stage.name}-*") if is_done(p) and p.suffix != ".partial"]
    if not finished:
        return "not made yet"
    before = read_json(max(finished, key=lambda p: (p / DONE).stat().st_mtime) / DONE)["parts"]
    changed = sorted(k for k in before.keys() | parts.keys() if before.get(k) != parts.get(k))
    shown = [
        f"{k} changed" if k.startswith(("contents", "stage ")) else f"{k} {before.get(k)} → {parts.get(k)}"
        for k in changed[:2]
    ]
    return "; ".join(shown) + (f" and {len(changed) - 2} more" if len(changed) > 2 else "")


def plan_run(run: Run) -> list[StagePlan]:
    """Every stage with its folder and state, in order. Opens no network and starts nothing."""
    root = Path(run.folder) / run.name
    hashes = HashCache(root / ".hashes.json")
    identities: dict[str, str] = {}
    plans: dict[str, StagePlan] = {}
    for stage in run.stages:
        parts = identify(run, stage, identities, hashes)
        identities[stage.name] = hash_json(parts)
        folder = root / f"{stage.name}-{identities[stage.name][:8]}"
        inputs = {name: plans[name].folder for name in inputs_of(run, stage)}
        if is_done(folder):
            state, why = "done", ""
        elif folder.with_name(folder.name + ".partial").exists():
            state, why = "resumes", "stopped before it was done"
        else:
            why = explain(folder, stage, parts)
            state = "to do" if why == "not made yet" else "stale"
        plans[stage.name] = StagePlan(stage, parts, folder, state, why, inputs)
    hashes.save()
    return list(plans.values())


def print_plan(run: Run, plans: list[StagePlan]) -> None:
    """The plan as a table, and what of each source it trains on."""
    rows = []
    for plan in plans:
        size = f"{folder_bytes(plan.folder) / 1e6:.1f} MB" if plan.state == "done" else ""
        inputs = ", ".join([*plan.inputs, *sources_of(run, plan.stage)]) or "base"
        rows.append([plan.stage.name, plan.stage.kind, plan.state, plan.why, inputs, size])
    done = sum(plan.state == "done" for plan in plans)
    print_table(
        f"{run.name}: {len(plans)} stages, {done} done",
        ["stage", "kind", "state", "why", "reads", "size"],
        rows,
        note=f"folder {Path(run.folder) / run.name}",
    )
    print_shares(run, {plan.stage.name: plan.folder for plan in plans if plan.state == "done"})


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
    with lock(root, config):
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
