"""A recipe at the size of the paper, made so small that a test can run all of its stages in one process."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

from paper_models import BASES, save_model
from paper_rows import build

from embedtrain.artifacts import DONE, mark_done, read_json, write_json
from embedtrain.config.check import check_run, read_config
from embedtrain.config.load import load_run, resolved
from embedtrain.config.schema import Machine, Run
from embedtrain.data.counts import count_rows
from embedtrain.pipeline import plan_run
from embedtrain.pipeline.running import publish
from embedtrain.stages.context import STAGE_FILE
from embedtrain.stages.entry import work_on
from embedtrain.stages.probe import probe
from embedtrain.templates import validate_template

ROOT = Path(__file__).parent.parent
RECIPES = ("kalm_v2", "kalm_v2_5", "anna", "leaf_ir", "leaf_mt")
BATCH = 4
# all that `shrink` changes; a * stands for one name or number
SHRUNK = (
    "precision",  # bfloat16 needs a GPU
    "base.model", "base.revision",
    "stages.*.teacher.model", "stages.*.documents.model",
    "stages.*.retrievers.*.model", "stages.*.teachers.*.model",
    "stages.*.models.*", "stages.*.pairs.*.documents",
    "stages.*.batch_size", "stages.*.epochs", "stages.*.steps", "stages.*.max_rows",
    "stages.*.epochs_per_cycle", "stages.*.max_texts", "stages.*.held_out_texts",
    "stages.*.objective.matryoshka.dims.*", "stages.*.truncation.*",
    "stages.*.precision", "stages.*.num_parity_texts", "stages.*.max_tokens_per_model",
)  # fmt: skip
SMALLER = {
    "train": {"batch_size": BATCH, "epochs": None, "steps": 3},
    "mine": {"max_rows": 24},
    "distil": {"batch_size": BATCH, "epochs_per_cycle": 0.25, "max_texts": 96, "held_out_texts": 16},
    "export": {"precision": "float32", "num_parity_texts": 8},
    "evaluate": {"max_tokens_per_model": 2000},
}
FULL_DIM = {"Qwen/Qwen2-0.5B": 896, "mistralai/Mistral-7B-v0.1": 4096, "nreimers/MiniLM-L6-H384-uncased": 768}


def page(recipe: str) -> str:
    """The recipe's page."""
    return (ROOT / "docs" / "recipes" / f"{recipe}.md").read_text(encoding="utf-8")


def shown(recipe: str, program: str) -> list[list[str]]:
    """The commands of this program on the recipe's page, as words behind the program's."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page(recipe), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix(program)) for line in lines if line.startswith(program + " ")]


def overrides(words: Sequence[str]) -> list[str]:
    """What a command sets."""
    return [word for before, word in pairwise(words) if before == "--set"]


@contextmanager
def working_place(folder: Path) -> Iterator[Path]:
    """A working directory with the shipped rows, in which sets are built and recipes run."""
    (folder / "rows").symlink_to(ROOT / "rows")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


def ask_for_sets(recipe: str) -> tuple[set[str], list[str]]:
    """Build the sets of the recipe's page in the working directory; their folders, and what its run sets."""
    built = {build(words) for words in shown(recipe, "python -m data_recipes build")}
    (command,) = (words for words in shown(recipe, "embedtrain run") if words[0].endswith("paper.yaml"))
    assert command[0] == f"configs/recipes/{recipe}/paper.yaml"
    return built, overrides(command)


def path_of(recipe: str) -> Path:
    """The recipe's file at the size of the paper."""
    return ROOT / "configs" / "recipes" / recipe / "paper.yaml"


def read(recipe: str, changes: Sequence[str] = ()) -> Run:
    """The paper's run, once nothing is wrong with it."""
    checks = {"count_rows": count_rows, "validate_template": validate_template}
    return read_config(path_of(recipe), changes, **checks)[0]


def small_run(recipe: str, models: Path) -> Run:
    """The run of the recipe's page on the sets that its commands build, made small, with nothing wrong."""
    _, sets = ask_for_sets(recipe)
    run = shrink(load_run(path_of(recipe), sets), models)
    assert not check_run(run, recipe, count_rows=count_rows, validate_template=validate_template)
    return run


def shrink(run: Run, models: Path) -> Run:
    """The same run on tiny models, below `models`, and for a few steps; `SHRUNK` names all that changes."""
    small = deepcopy(resolved(run))
    dims = FULL_DIM[run.base.model]
    small["precision"] = "float32"
    small["base"] = {**small["base"], "model": local(run.base.model, models), "revision": None}
    for stage in small["stages"]:
        stage |= SMALLER.get(stage["kind"], {})
        for named in (stage.get("teacher"), stage.get("documents"), *judges(stage)):
            if named and "model" in named:
                named["model"] = local(named["model"], models)
        if stage["kind"] == "evaluate":
            stage["models"] = [local(name, models) if "/" in name else name for name in stage["models"]]
            for pair in stage["pairs"]:
                pair["documents"] = local(pair["documents"], models)
        tiny = BASES[run.base.model][1] if stage["kind"] == "train" else 32
        view = stage.get("objective", {}).get("matryoshka")
        for holder, key in ((view, "dims"), (stage, "truncation")):
            if holder and holder.get(key):
                holder[key] = [max(1, dim * tiny // dims) for dim in holder[key]]
    return Run.model_validate(small)


def judges(stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What retrieves or scores in a stage."""
    return [*stage.get("retrievers", ()), *stage.get("teachers", ())]


def local(model: str, models: Path) -> str:
    """The tiny stand-in's folder, made when it is first asked for."""
    folder = models / model
    return str(folder if folder.exists() else save_model(model, models))


def leaves(value: object, prefix: str = "") -> dict[str, object]:
    """Every single value of a run by its dotted name; stages go by name."""
    if isinstance(value, Mapping) and value:
        return {k: v for key, inner in value.items() for k, v in leaves(inner, f"{prefix}.{key}").items()}
    if isinstance(value, list | tuple) and value:
        named = {one["name"] if isinstance(one, Mapping) and "kind" in one and one.get("name") else n: one
                 for n, one in enumerate(value)}  # fmt: skip
        return leaves(named, prefix)
    return {prefix.removeprefix("."): value}


def run_here(run: Run) -> Path:
    """Do all stages as `embedtrain run` does, but in this process; returns the run's folder."""
    root = Path(run.folder) / run.name
    root.mkdir(parents=True)
    probe(write_json(root / ".probe.json", resolved(run)))
    for plan in plan_run(run):
        plan.partial.mkdir()
        context = {
            "run": resolved(run),
            "stage": plan.stage.name,
            "machine": Machine().model_dump(mode="json"),
            "inputs": {name: str(path) for name, path in plan.inputs.items()},
        }
        write_json(plan.partial / STAGE_FILE, context)
        work_on(plan.partial)
        record = read_json(plan.partial / DONE) | {"parts": plan.parts, "kind": plan.stage.kind}
        mark_done(plan.partial, record)
        plan.partial.rename(plan.folder)
        publish(plan)
    return root


def folder_of(root: Path, stage: str) -> Path:
    """The folder of a finished stage."""
    (found,) = root.glob(f"{stage}-????????")
    return found
