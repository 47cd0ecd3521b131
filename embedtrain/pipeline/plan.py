"""What is stale and why, what comes next."""

from dataclasses import dataclass
from pathlib import Path

from embedtrain.artifacts import (
    HashCache,
    folder_bytes,
    hash_json,
    is_done,
)
from embedtrain.config.references import inputs_of
from embedtrain.config.schema import Run
from embedtrain.config.stages import AnyStage
from embedtrain.pipeline.identity import explain, identify, sources_of
from embedtrain.show.tables import print_table
from embedtrain.stages.shares import print_shares

FEW_SOURCES = 3
"""Up to so many are named one by one."""


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


def inputs_text(run: Run, plan: StagePlan) -> str:
    """The stages and sources that a stage reads; many sources as a number."""
    sources = sources_of(run, plan.stage)
    if len(sources) > FEW_SOURCES:
        whole = "all" if len(sources) == len(run.sources) else f"{len(sources)} of"
        sources = [f"{whole} {len(run.sources)} sources"]
    return ", ".join([*plan.inputs, *sources]) or "base"


def print_plan(run: Run, plans: list[StagePlan]) -> None:
    """The plan as a table, and what of each source it trains on."""
    rows = []
    for plan in plans:
        size = f"{folder_bytes(plan.folder) / 1e6:.1f} MB" if plan.state == "done" else ""
        rows.append([plan.stage.name, plan.stage.kind, plan.state, plan.why, inputs_text(run, plan), size])
    done = sum(plan.state == "done" for plan in plans)
    print_table(
        f"{run.name}: {len(plans)} stages, {done} done",
        ["stage", "kind", "state", "why", "reads", "size"],
        rows,
        note=f"folder {Path(run.folder) / run.name}",
    )
    print_shares(run, {plan.stage.name: plan.folder for plan in plans if plan.state == "done"})
