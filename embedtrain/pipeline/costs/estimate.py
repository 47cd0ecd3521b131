"""All stages' costs, their sums, and what does not fit this computer."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path

from embedtrain.artifacts import DONE, read_json
from embedtrain.config.costs import ASSUMED_GPU, CPU_FLOPS, GPUS, SMALL_UTILISATION, UTILISATION
from embedtrain.config.distilling import Distil
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.schema import Machine, Run
from embedtrain.config.soups import Soup
from embedtrain.config.stage import Stage
from embedtrain.config.stages import Evaluate, Export, Filter, Train
from embedtrain.pipeline.costs.finishing import evaluate_cost, export_cost, soup_cost
from embedtrain.pipeline.costs.mining import filter_cost, mine_cost, score_cost, select_cost
from embedtrain.pipeline.costs.setting import Cost, Setting
from embedtrain.pipeline.costs.training import distil_cost, train_cost
from embedtrain.pipeline.plan import StagePlan

GB = 1e9
HOST_KINDS = ("filter", "select", "soup")
"""Stages that need main memory and no GPU."""


@singledispatch
def cost_of(stage: Stage, setting: Setting) -> Cost:
    """What a stage costs, by its class."""
    raise TypeError(f"no estimate for stages of {type(stage)}")


cost_of.register(Train, lambda stage, setting: train_cost(setting, stage))
cost_of.register(Distil, lambda stage, setting: distil_cost(setting, stage))
cost_of.register(Mine, lambda stage, setting: mine_cost(setting, stage))
cost_of.register(Score, lambda stage, setting: score_cost(setting, stage))
cost_of.register(Select, lambda stage, setting: select_cost(setting, stage))
cost_of.register(Filter, lambda stage, setting: filter_cost(setting, stage))
cost_of.register(Soup, lambda stage, setting: soup_cost(setting, stage))
cost_of.register(Export, lambda stage, setting: export_cost(setting, stage))
cost_of.register(Evaluate, lambda stage, setting: evaluate_cost(setting, stage))


@dataclass(frozen=True, slots=True)
class Line:
    """A stage's estimate; `took` are the seconds of one that is done."""

    name: str
    kind: str
    cost: Cost
    took: float | None = None
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum over what is known; `is_whole` says that all is."""

    value: float
    is_whole: bool


@dataclass(frozen=True)
class Estimate:
    """All stages in order, what was assumed, and what will not fit."""

    lines: Sequence[Line]
    setting: Setting
    free_disk: float | None

    @property
    def waiting(self) -> list[Line]:
        """The stages that are not done."""
        return [line for line in self.lines if not line.is_done]

    @property
    def seconds(self) -> Sum:
        """Until all that is left is done."""
        return summed([line.cost.seconds for line in self.waiting])

    @property
    def tokens(self) -> Sum:
        """Of all that is left."""
        return summed([line.cost.tokens for line in self.waiting])

    @property
    def disk(self) -> Sum:
        """Most that stands on the disk at a time: what stages leave, and what one needs for a while."""
        most = left = 0.0
        for cost in (line.cost for line in self.waiting):
            most = max(most, left + (cost.disk or 0.0))
            left += (cost.disk or 0.0) - cost.passing
        return Sum(most, all(line.cost.disk is not None for line in self.waiting))

    @property
    def memory(self) -> Sum:
        """Most that a device needs in any stage that is left."""
        known = [line.cost.memory.low for line in self.waiting if line.cost.memory]
        return Sum(max(known, default=0.0), len(known) == len(self.waiting))

    def faults(self) -> list[str]:
        """What does not fit this computer's disk or the device's memory."""
        found = self.memory_faults()
        if self.free_disk is not None and self.disk.value > self.free_disk:
            found.append(
                f"needs ~{self.disk.value / GB:,.0f} GB on disk; {self.free_disk / GB:,.0f} GB are free"
            )
        return found

    def memory_faults(self) -> list[str]:
        """What is said of the stage that needs most memory, where that is more than its device has."""
        has, machine = self.setting.memory, self.setting.machine
        waiting = [one for one in self.waiting if machine.device == "cpu" or one.kind not in HOST_KINDS]
        needs = {line.name: line.cost.memory.low for line in waiting if line.cost.memory}
        over = [line for line in waiting if has is not None and needs.get(line.name, 0.0) > has]
        if has is None or not over:
            return []
        worst = max(over, key=lambda line: needs[line.name])
        more = (
            f"; {len(over) - 1} more stages need too much"
            if len(over) > 2
            else "; one more stage needs too much"
            if over[1:]
            else ""
        )
        where = f"an {machine.gpu} has" if machine.gpu else "here a process has"
        switch = "" if machine.activation_checkpointing else " or use activation_checkpointing"
        advice = (
            f"lower chunk_tokens{switch}" if worst.kind in ("train", "distil") else "take a larger device"
        )
        need = f"stage '{worst.name}' needs ~{needs[worst.name] / GB:,.0f} GB on each device"
        return [f"{need}; {where} {has / GB:,.0f}: {advice}{more}"]

    def assumptions(self) -> list[str]:
        """What the figures rest on."""
        machine = self.setting.machine
        return [*speed_assumption(machine, self.setting.threads), "texts: a sample, 4 bytes a token"]


def speed_assumption(machine: Machine, threads: int) -> list[str]:
    """How fast the device is taken to be."""
    if machine.device == "mps":
        return ["no speed is known for device mps"]
    if machine.device == "cpu":
        one = f"{machine.num_processes} x " if machine.num_processes > 1 else ""
        return [f"{one}{threads} CPU thread{'s' * (threads > 1)} of {CPU_FLOPS / GB:.0f} GFLOP/s in float32"]
    name = machine.gpu or ASSUMED_GPU
    board, count = GPUS[name], machine.num_processes
    how = "" if machine.gpu else " (no gpu is named in the machine file)"
    share = (
        f"{UTILISATION:.0%} of its peak, {SMALL_UTILISATION:.0%} below 2,048 hidden: assumed, not measured"
    )
    return [f"{count} x {name}{how}, {board.bfloat16 / 1e12:,.0f} TFLOP/s in bfloat16, {share}"]


def summed(values: Sequence[float | None]) -> Sum:
    """The sum of what is known."""
    return Sum(sum(value for value in values if value is not None), None not in values)


def estimate_run(run: Run, machine: Machine, plans: Sequence[StagePlan]) -> Estimate:
    """What every stage of a plan will cost on a machine."""
    finished = {plan.stage.name: plan.folder for plan in plans if plan.state == "done"}
    setting = Setting.here(run, machine, finished)
    lines = []
    for plan in plans:
        cost, folder = cost_of(plan.stage, setting), finished.get(plan.stage.name)
        took = read_json(folder / DONE).get("seconds") if folder else None
        lines.append(Line(plan.stage.name, plan.stage.kind, cost, took, folder is not None))
    return Estimate(lines, setting, free_disk(Path(run.folder)))


def free_disk(folder: Path) -> float | None:
    """Bytes that are free where the run will be written."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), None)
    try:
        return float(shutil.disk_usage(there).free) if there else None
    except OSError:
        return None
