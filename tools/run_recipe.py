"""Runs a recipe and keeps what it gave: `python tools/run_recipe.py configs/recipes/leaf_ir/small.yaml`.

Writes NAME.json and NAME.md into `--out`: the table of the run's evaluate stage, on `--data` too, what each
stage took in seconds and training tokens, and with which machine, versions and seed. A stopped run goes on.
Exits 1 where the stages took longer than `--max-minutes`, without what `--data` took.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import read_json, write_atomic, write_json  # noqa: E402
from embedtrain.cli.ending import end  # noqa: E402
from embedtrain.config.load import load_machine, load_run  # noqa: E402
from embedtrain.config.schema import Run  # noqa: E402
from embedtrain.config.stages import Evaluate  # noqa: E402
from embedtrain.evaluation.sets import read_tasks  # noqa: E402
from embedtrain.pipeline import StagePlan, plan_run  # noqa: E402
from embedtrain.show.tables import markdown_table, print_table  # noqa: E402
from embedtrain.train.log import read_curve  # noqa: E402
from tools.bench.machine import machine  # noqa: E402

COLUMNS = ["stage", "kind", "seconds", "training tokens"]


def main() -> int:
    """Run, measure, write; the exit status."""
    args = parse_arguments()
    overrides = [f"folder={args.folder}"] if args.folder else []
    (*_, report) = [stage for stage in load_run(args.config).stages if isinstance(stage, Evaluate)]
    if args.data:
        overrides.append(f"stages.{report.name}.data={json.dumps([*report.data, *args.data])}")
    options = [word for override in overrides for word in ("--set", override)]
    options += ["--machine", str(args.machine)] if args.machine else []
    command = [sys.executable, "-m", "embedtrain", "run", str(args.config), *options]
    if status := subprocess.run(command, check=False).returncode:
        return status
    run = load_run(args.config, overrides)
    plans = {plan.stage.name: plan for plan in plan_run(run)}
    folder = plans[report.name].folder
    measured = read_json(folder / "report.json")
    content = facts(args, run, list(plans.values()))
    content["seconds of more data"] = seconds_of(measured, args.data)
    write_json(args.out / f"{run.name}.json", content | {"report": measured})
    rows = [[stage[column] for column in COLUMNS] for stage in content["stages"]]
    table = f"**Stages**\n\n{markdown_table(COLUMNS, rows)}\n\n{told(content)}\n"
    report_text = (folder / "report.md").read_text(encoding="utf-8")
    write_atomic(args.out / f"{run.name}.md", f"{report_text}\n{table}")
    print_table("stages", COLUMNS, rows, note=told(content))
    in_time = minutes(content) - content["seconds of more data"] / 60 <= args.max_minutes
    verdict = "in time" if in_time else f"TOO SLOW, at most {args.max_minutes:g} minutes were asked"
    print(f"figures in {args.out / run.name}.json and .md: {verdict}")
    return 0 if in_time else 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="run file")
    parser.add_argument("--data", nargs="*", default=[], help="more test data for its last evaluate stage")
    parser.add_argument("--machine", type=Path, help="machine file")
    parser.add_argument("--folder", help="where run folders are made; absent: as the run file says")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/recipes"), help="folder to write")
    parser.add_argument("--max-minutes", type=float, default=30, help="of all stages together")
    return parser.parse_args()


def facts(args: argparse.Namespace, run: Run, plans: list[StagePlan]) -> dict[str, Any]:
    """What was run, where, and what it took."""
    stages = [
        {
            "stage": plan.stage.name,
            "kind": plan.stage.kind,
            "seconds": read_json(plan.folder / "done.json")["seconds"],
            "training tokens": trained_tokens(curve := read_curve(plan.folder / "curve.jsonl")),
            "validation": [step for step in curve if any(key.startswith("validation/") for key in step)],
        }
        for plan in plans
    ]
    threads = load_machine(args.machine).threads or torch.get_num_threads()
    return {
        "config": args.config.as_posix(),
        "seed": run.seed,
        "machine": machine(threads),
        "stages": stages,
    }


def trained_tokens(curve: Sequence[Mapping[str, Any]]) -> int | None:
    """Tokens of all steps; none where nothing was trained."""
    return sum(step.get("tokens", 0) for step in curve) if curve else None


def seconds_of(measured: dict[str, Any], data: list[str]) -> float:
    """What the models of a report took on the test sets in `data`."""
    more = {task.name for task in read_tasks(data)}
    return sum(result["seconds"] for result in measured["results"] if result["task"] in more)


def minutes(content: dict[str, Any]) -> float:
    """Of all stages."""
    return float(sum(stage["seconds"] for stage in content["stages"])) / 60


def told(content: dict[str, Any]) -> str:
    """The sums and the machine, in a sentence."""
    tokens = sum(stage["training tokens"] or 0 for stage in content["stages"])
    where = content["machine"]
    more = content["seconds of more data"] / 60
    further = f" ({more:.1f} of them on test sets that the run file does not name)" if more else ""
    return (
        f"{minutes(content):.1f} minutes in stages{further}, {tokens:,} training tokens, "
        f"seed {content['seed']}; {where['processor']}, {where['threads']} of {where['cores']} cores."
    )


if __name__ == "__main__":
    end(main)
