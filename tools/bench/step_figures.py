"""From the rounds of the training-step benchmark to medians, ratios, tables and a verdict: plain values only.

A workload's figures are `{"real_tokens": …, "pairs": …, "contestants": {name: {"rounds": [{"cpu", "wall",
"memory"}, …], "settings", "positions", …}}}`; `clock` says whether speed is by CPU-seconds or by the clock.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tools.bench.contestants import ALL_TOKENS, BARE, CACHED, CONTESTANTS, KEPT, PLAIN, RECOMPUTING

Figures = dict[str, Any]
Table = tuple[list[str], list[list[object]]]
SECONDS = {"cpu": "CPU-s", "wall": "s"}
OURS = (RECOMPUTING, KEPT)
OTHERS = tuple(one.name for one in CONTESTANTS if not one.ours)


@dataclass(frozen=True)
class Bound:
    """Our way must be so many times as fast as the other on a workload, perhaps with no more memory."""

    workload: str
    ours: str
    other: str
    least: float
    within_memory: bool = False


BOUNDS = (
    Bound("W3", RECOMPUTING, CACHED, 1.3, within_memory=True),
    Bound("W4", RECOMPUTING, CACHED, 2.0, within_memory=True),
    Bound("W3", KEPT, CACHED, 1.6),
    Bound("W4", KEPT, CACHED, 2.5),
    Bound("W3", KEPT, PLAIN, 2.0),
    Bound("W4", KEPT, PLAIN, 2.0),
    Bound("W1", KEPT, BARE, 0.95),
)


def summarise(workload: Figures, clock: str, shape: Mapping[str, int]) -> None:
    """Add medians, spreads, speeds and ratios to a workload's figures.

    `shape` has the model's `layers` and `attention` dims.
    """
    for one in workload["contestants"].values():
        for what in ("cpu", "wall", "memory", "loss"):
            values = [taken[what] for taken in one["rounds"]]
            one[what] = {"median": median(values), "least": min(values), "most": max(values)}
        seconds = one[clock]["median"]
        one["speed"] = {
            "real_tokens_per_second": workload["real_tokens"] / seconds,
            "positions_per_second": one["positions"] / seconds,
            "pairs_per_second": workload["pairs"] / seconds,
        }
        useful, done = flops(one, workload, shape)
        ceiling = one["ceiling"][clock]
        one["utilisation"] = {"useful": useful / seconds / ceiling, "hardware": done / seconds / ceiling}
    workload["ratios"] = {
        ours: {
            other: ratios(workload, ours, other, clock)
            for other in OTHERS
            if other in workload["contestants"]
        }
        for ours in OURS
        if ours in workload["contestants"]
    }


def ratios(workload: Figures, ours: str, other: str, clock: str) -> Figures:
    """Their seconds over ours in each round, and the median."""
    rounds = [
        theirs[clock] / own[clock]
        for theirs, own in zip(
            workload["contestants"][other]["rounds"], workload["contestants"][ours]["rounds"], strict=False
        )
    ]
    return {"rounds": rounds, "median": median(rounds)}


def flops(one: Figures, workload: Figures, shape: Mapping[str, int]) -> tuple[float, float]:
    """(useful, done) operations of a step with frozen weights.

    Useful: 4 a weight and real token (forward, and the gradient of activations), 6 a weight of the adapters,
    and attention. Done: on all positions, padding too, with 2 more where a text is encoded twice; a packed
    call's attention is that of its texts.
    """
    linear, lora = one["parameters"]["linear"], one["parameters"]["lora"]
    attention = 4 * shape["attention"] * shape["layers"]
    useful = (4 * linear + 6 * lora) * workload["real_tokens"] + 3 * attention * workload["squares"]
    packed = one["positions"] == workload["real_tokens"] and one["squares"] > workload["squares"]
    squares = workload["squares"] if packed else one["squares"]
    twice = one["repeated"] / one["positions"]
    done = (4 * linear + 6 * lora) * one["positions"] + 3 * attention * squares
    return float(useful), done + twice * (2 * (linear + lora) * one["positions"] + attention * squares)


def judge(workloads: Mapping[str, Figures], bounds: Sequence[Bound] = BOUNDS) -> list[str]:
    """What is below its bound, of the pairs that were measured."""
    faults = []
    for bound in bounds:
        measured = workloads.get(bound.workload, {}).get("contestants", {})
        if bound.ours not in measured or bound.other not in measured:
            continue
        found = workloads[bound.workload]["ratios"][bound.ours][bound.other]["median"]
        if not found >= bound.least:
            faults.append(
                f"{bound.workload}: {bound.ours} has {found:.2f} times the speed of {bound.other}, "
                f"at least {bound.least}"
            )
        memory = [measured[name]["memory"]["median"] / 1e9 for name in (bound.ours, bound.other)]
        if bound.within_memory and not memory[0] <= memory[1]:
            faults.append(
                f"{bound.workload}: {bound.ours} needs {memory[0]:.2f} GB, {bound.other} {memory[1]:.2f}"
            )
    return faults


def unjudged(workloads: Mapping[str, Figures], bounds: Sequence[Bound] = BOUNDS) -> Iterator[str]:
    """Bounds whose workload or contestants were not measured."""
    for bound in bounds:
        measured = workloads.get(bound.workload, {}).get("contestants", {})
        if bound.ours not in measured or bound.other not in measured:
            yield f"not judged: {bound.ours} beside {bound.other} on {bound.workload}"


def step_table(workload: Figures, clock: str) -> Table:
    """A row a contestant: its setting, seconds, memory, and how many times as fast ours are."""
    ways = [ours for ours in OURS if ours in workload["contestants"]]
    columns = ["trainer", "setting", SECONDS[clock], "least, most", "memory, GB"]
    rows: list[list[object]] = []
    for name, one in workload["contestants"].items():
        seconds = one[clock]
        spread = f"{seconds['least']:.2f}, {seconds['most']:.2f}"
        times = [workload["ratios"][ours].get(name) for ours in ways]
        rows.append(
            [name, told(one["settings"]), seconds["median"], spread, one["memory"]["median"] / 1e9]
            + [found and f"{found['median']:.2f}" for found in times]
        )
    return [*columns, *ways], rows


def rate_table(workload: Figures, clock: str) -> Table:
    """A row a contestant: what it does in a second, and how much of the machine's speed that is."""
    each = SECONDS[clock]
    columns = [
        "trainer",
        f"tokens/{each}",
        f"with padding/{each}",
        f"rows/{each}",
        "useful, %",
        "hardware, %",
    ]
    rows: list[list[object]] = []
    for name, one in workload["contestants"].items():
        speed, used = one["speed"], one["utilisation"]
        counts = [round(speed["real_tokens_per_second"]), round(speed["positions_per_second"])]
        shares = [round(100 * used[which], 1) for which in ("useful", "hardware")]
        rows.append([name, *counts, speed["pairs_per_second"], *shares])
    return columns, rows


def told(settings: Mapping[str, int]) -> str | None:
    """`mini 8` for mini_batch_size; what is 0 or all is told by the contestant's name."""
    shown = [f"{name.split('_')[0]} {value}" for name, value in settings.items() if 0 < value < ALL_TOKENS]
    return ", ".join(shown) or None
