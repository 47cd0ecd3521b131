"""Kills a run again and again and compares what it ends in: `python tools/torture.py --kills 50`.

A tiny run of two train stages (LoRA, then all weights; dropout, mixing, validation with the best kept), an
export, and a distillation from it into the base, on gloo processes, is done once undisturbed. Then it is
started, killed with SIGKILL with all its processes, and started again until it is done; where it is done
before it was killed often enough, it begins anew. The moments are drawn with `--seed`: after some steps,
while a checkpoint is written, when a stage has just ended, or at any time. Every launch but the latter gets
somewhere first, so that the run ends.

Losses and all other figures of the curves, but for those that only tell of the machine, and all weights must
be the undisturbed run's bit for bit. Prints kills by place, launches and losses, the verdict last; exits 1
where a bit differs, or where no kill hit the writing of a checkpoint.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from tools.killed import WRITING, Attempt, How, require, say, write_inputs  # noqa: E402

FEW_KILLS = 10
"""Fewer need not hit the writing of a checkpoint."""


def main() -> int:
    """Run, kill, compare; the exit status."""
    args = parse_arguments()
    how = How(args.processes, args.steps, args.stages)
    with tempfile.TemporaryDirectory() as place:
        found = torture(Path(place), how, args.kills, args.seed)
    if args.out:
        write_json(args.out, found)
    tell(found)
    return 0 if found["passed"] else 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of each train stage")
    parser.add_argument("--stages", type=int, default=4, help="the first so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    return parser.parse_args()


def torture(place: Path, how: How, most: int, seed: int) -> dict[str, Any]:
    """All figures, and whether they passed."""
    write_inputs(place)
    start = time.monotonic()
    whole = Attempt(place, "whole", how)
    whole.start()
    require(whole.wait(lambda: False) == 0, whole)
    seconds = time.monotonic() - start
    expected = whole.results()
    say(f"undisturbed: {seconds:.0f} s, {len(expected['weights'])} files of weights")
    draw, kills, different = random.Random(seed), Counter[str](), set[str]()
    launches = runs = 0
    while kills.total() < most:
        attempt = Attempt(place, f"run{runs}", how)
        launches += attempt.until_done(draw, kills, most, seconds)
        different |= differences(attempt.results(), expected)
        runs += 1
    hit = kills[WRITING] > 0 or most < FEW_KILLS
    return {
        "kills": kills.total(),
        "kills_by_place": dict(kills.most_common()),
        "launches": launches,
        "runs": runs,
        "processes": how.processes,
        "seed": seed,
        "seconds": round(time.monotonic() - start, 1),
        "undisturbed_seconds": round(seconds, 1),
        "losses": expected["losses"],
        "different": sorted(different),
        "passed": not different and hit,
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> set[str]:
    """Files and curves that are not the same, or are not there."""
    return {
        name
        for kind in ("weights", "curves")
        for name in found[kind].keys() | expected[kind].keys()
        if found[kind].get(name) != expected[kind].get(name)
    }


def tell(found: dict[str, Any]) -> None:
    """The figures as tables, the verdict last."""
    rows = [[place, str(count)] for place, count in found["kills_by_place"].items()]
    print_table(f"{found['kills']} kills", ["while it was", "kills"], rows)
    ends = [[name, repr(losses[0]), repr(losses[-1])] for name, losses in found["losses"].items()]
    print_table("losses of the undisturbed run", ["stage", "first", "last"], ends)
    print(f"{found['launches']} launches of {found['runs']} runs in {found['seconds']:.0f} s")
    same = "weights and curves are the undisturbed run's, bit for bit"
    missed = f"DIFFERENT: {', '.join(found['different'])}" if found["different"] else f"no kill hit {WRITING}"
    print(same if found["passed"] else missed)


if __name__ == "__main__":
    sys.exit(main())
