"""Is this machine with a GPU fit for embedtrain? `python tools/gpu_check.py --out benchmarks/gpu.json` says.

1. The tests marked `gpu`: attention on the device, vectors as on the CPU, gradients in chunks and bfloat16.
2. The ceiling: an 8192 x 8192 x 8192 product in bfloat16 on random data, in the same process as the rest.
3. A training run by the loop of every run: a random decoder of about a billion weights, LoRA, bfloat16, the
   gradient cache, shipped rows. The loss must fall, and the arithmetic reach `--min-fraction` of the ceiling;
   tokens a second and peak memory are noted.
4. Encoding: tokens a second.

Writes JSON, prints the verdict last, exits 1 if a bound is missed and 2 where there is no GPU. Nothing is
fetched: the weights are random, the tokenizer is made from the rows. It needs what embedtrain needs, pytest
and pytest-timeout. Where nothing can be installed, carry wheels: beside a usual PyTorch image with
transformers, peft, accelerate, sentence-transformers and pyarrow those of pydantic, pydantic-core,
annotated-types, typing-inspection, gguf and bm25s. Python 3.11 or 3.12, torch from 2.11.

This program has not been run on a GPU yet, only rehearsed: `--rehearse` walks the same path on a CPU with a
tiny decoder and says nothing about a machine. The default of `--min-fraction` is a modest guess.
"""

import argparse
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import read_json, write_json  # noqa: E402
from embedtrain.config.schema import Machine, Run  # noqa: E402
from embedtrain.config.stages import Train  # noqa: E402
from embedtrain.data.rows import Row, read_rows  # noqa: E402
from embedtrain.model.encoder import Encoder  # noqa: E402
from embedtrain.model.load import load_encoder  # noqa: E402
from embedtrain.model.lora import add_lora  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from embedtrain.train.log import read_curve  # noqa: E402
from embedtrain.train.loop import train  # noqa: E402

WARM_STEPS = 5
END = "<|end|>"


@dataclass(frozen=True)
class Size:
    """How much is done."""

    device: str
    precision: str
    matmul: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    batch_size: int
    steps: int
    chunk_tokens: int
    lr: float
    num_encoded: int


FULL = Size("cuda", "bfloat16", 8192, 32_000, 2048, 16, 16, 1024, 40, 32_768, 2e-4, 20_000)
REHEARSAL = Size("cpu", "float32", 256, 600, 32, 2, 4, 16, 30, 512, 5e-3, 64)


@dataclass(frozen=True)
class Check:
    """One bound: what was found, what was asked."""

    name: str
    found: str
    asked: str
    passed: bool


def main() -> int:
    """Run all checks; the exit status."""
    args = parse_arguments()
    size = REHEARSAL if args.rehearse else FULL
    if not args.rehearse and not torch.cuda.is_available():
        print(f"gpu_check: no CUDA device is visible to torch {torch.__version__}; nothing was checked")
        return 2
    tests = run_tests()
    rows = read_rows(args.rows)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(size, rows, args.rows, Path(folder))
    checks = judge(tests, figures, size, args.min_fraction)
    report(args.out, size, tests, figures, checks, args.rehearse)
    return 0 if all(check.passed for check in checks) else 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Is this machine with a GPU fit for embedtrain?")
    parser.add_argument("--rows", default="rows/debian/train.parquet", help="rows to train on")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu.json"), help="JSON to write")
    parser.add_argument(
        "--min-fraction", type=float, default=0.2, help="of the ceiling that training reaches"
    )
    parser.add_argument("--rehearse", action="store_true", help="walk the same path on a CPU, tiny")
    return parser.parse_args()


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


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(call: Callable[[], object], device: str, repeats: int = 20) -> float:
    """Median time of a call after three to warm up, the device waited for."""
    seconds = []
    for number in range(3 + repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_ceiling(size: Size) -> float:
    """TFLOP/s of a square product in the run's precision, on random data."""
    dtype = getattr(torch, size.precision)
    one, other = (torch.randn(size.matmul, size.matmul, device=size.device, dtype=dtype) for _ in range(2))
    seconds = median_seconds(lambda: one @ other, size.device)
    return 2 * size.matmul**3 / seconds / 1e12


def measure(size: Size, rows: list[Row], path: str, folder: Path) -> dict[str, float]:
    """The ceiling, the training run and encoding, in this process."""
    figures = {"ceiling_tflops": measure_ceiling(size)}
    run = make_run(size, path, str(make_base(size, rows, folder / "base")))
    encoder = load_encoder(run.base, run.encoder, run.text, precision=run.precision, device=size.device)
    return (
        figures | measure_training(encoder, rows, run, size, folder) | measure_encoding(encoder, rows, size)
    )


def make_base(size: Size, rows: list[Row], folder: Path) -> Path:
    """A random Llama decoder, and a tokenizer made from the rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for row in rows for text in (row.query, *row.positives)), trainer)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    transformers.LlamaModel(config).to(torch.bfloat16).save_pretrained(folder)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    wrapped.save_pretrained(folder)
    return folder


def make_run(size: Size, rows: str, base: str) -> Run:
    """A run of one train stage."""
    stage = {
        "name": "lora",
        "kind": "train",
        "lora": {"rank": 16, "alpha": 32},
        "objective": {"terms": [{"kind": "infonce", "temperature": 0.05}]},
        "batch_size": size.batch_size,
        "steps": size.steps,
        "lr": size.lr,
        "save_every_steps": size.steps,
    }
    values = {"name": "gpu_check", "precision": size.precision, "base": {"model": base}, "stages": [stage]}
    return Run.model_validate(values | {"sources": {"rows": {"rows": rows}}})


def measure_training(
    encoder: Encoder, rows: list[Row], run: Run, size: Size, folder: Path
) -> dict[str, float]:
    """Loss at both ends, tokens a second after the first steps, peak memory, and the rate of arithmetic."""
    stage = run.stages[0]
    assert isinstance(stage, Train)
    add_lora(encoder, stage.lora, run.seed)
    machine = Machine.model_validate({"device": size.device, "chunk_tokens": size.chunk_tokens})
    if size.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    facts = train(encoder, {"rows": rows}, stage, run, machine, folder / "train")
    steps = read_curve(folder / "train" / "curve.jsonl")[WARM_STEPS:]
    rate = sum(float(s["tokens"]) for s in steps) / sum(float(s["seconds"]) for s in steps)
    weights = sum(p.numel() for p in encoder.backbone.layers.parameters())
    # forward without and with graph, and the gradient by the activations; frozen weights need no more
    flops_per_token = 3 * 2 * weights
    peak = torch.cuda.max_memory_allocated() / 2**30 if size.device == "cuda" else 0.0
    return {
        "first_loss": float(str(facts["first_loss"])),
        "last_loss": float(str(facts["last_loss"])),
        "train_tokens_per_second": rate,
        "train_tflops": rate * flops_per_token / 1e12,
        "train_peak_gib": peak,
        "layer_weights": weights,
    }


def measure_encoding(encoder: Encoder, rows: list[Row], size: Size) -> dict[str, float]:
    """Tokens a second through `encode`, tokenising included."""
    texts = [row.positives[0] for row in rows[: size.num_encoded]]
    limit = encoder.spec.text.max_document_tokens
    tokens = encoder.tokenize(encoder.format(texts, "document"), limit).num_tokens
    encoder.encode(texts[:256], "document")
    start = time.perf_counter()
    encoder.encode(texts, "document", tokens_per_batch=4 * size.chunk_tokens)
    return {"encode_tokens_per_second": tokens / (time.perf_counter() - start)}


def judge(tests: dict[str, int], figures: dict[str, float], size: Size, min_fraction: float) -> list[Check]:
    """Each bound, met or missed. Speed and skipped tests count on a GPU only."""
    on_gpu = size.device == "cuda"
    first, last = figures["first_loss"], figures["last_loss"]
    fraction = figures["train_tflops"] / figures["ceiling_tflops"]
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
