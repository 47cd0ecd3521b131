"""Is the gradient the same on any number of processes? `python tools/gradient_parity.py --processes 1 2 4`.

A tiny random Llama takes one step on ragged rows whose masks reach across processes; some processes hold no
teacher score, one holds no row. For every term alone and for many together, for LoRA and full tuning, in
float64 and float32: loss and gradients on N gloo processes, plain and with the gradient cache, against one
process without the cache. The error is the norm of the difference over the norm, over all parameters, those
that the objective learns among them.

Prints tables, writes JSON, prints the verdict last; exits 1 above 1e-12 in float64 or 1e-5 in float32.
`--wrong-gather` takes the gather that is common and wrong, to see the tool fail.
"""

import argparse
import itertools
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.config.objective import Objective  # noqa: E402
from embedtrain.data.rows import Row  # noqa: E402
from embedtrain.dist import current  # noqa: E402
from embedtrain.loss.objective import build_objective  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from embedtrain.train.step import Gather  # noqa: E402
from tools.launch import on_processes  # noqa: E402
from tools.parity_cases import (  # noqa: E402
    OBJECTIVES,
    TEXTS,
    Gradients,
    Tuning,
    add_learned,
    make_batch,
    own_slot,
    relative_error,
    rich_rows,
    step_gradients,
    teach,
    tiny_encoder,
)

BOUNDS = {"float64": 1e-12, "float32": 1e-5}
CHUNK_TOKENS = {"plain": 10**6, "cached": 100}
TUNINGS: tuple[Tuning, ...] = ("lora", "full")
FEW = "everything, 3 rows"
"""Fewer rows than four processes: the first one holds none."""
Key = tuple[str, Tuning, str, str]
"""Name of the case, tuning, dtype, path."""
Result = tuple[float, Gradients]


@dataclass(frozen=True)
class Compared:
    """One cell: relative errors against one process without cache."""

    case: str
    tuning: Tuning
    dtype: str
    path: str
    processes: int
    loss_error: float
    gradient_error: float

    @property
    def passed(self) -> bool:
        """Whether both are within the bound; a NaN is not."""
        return self.loss_error <= BOUNDS[self.dtype] and self.gradient_error <= BOUNDS[self.dtype]


def main() -> int:
    """Run all cells, show and judge; the exit status."""
    args, started = parse_arguments(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder))
        cells = list(itertools.product(args.cases, TUNINGS, args.dtypes, CHUNK_TOKENS))
        truth = on_processes(1, run_cells, folder, cells)
        asked = (folder, cells, own_slot if args.wrong_gather else None)
        results = {1: truth} | {n: on_processes(n, run_cells, *asked) for n in args.processes if n > 1}
    pairs = itertools.product(args.processes, cells)
    compared = [compare(key, n, results[n], truth) for n, key in pairs if (n, key[-1]) != (1, "plain")]
    faults = [cell for cell in compared if not cell.passed]
    show(compared)
    for cell in faults:
        print(f"above {BOUNDS[cell.dtype]}: {cell}")
    seconds = time.perf_counter() - started
    write_json(args.out, {"cells": [asdict(c) for c in compared], "bounds": BOUNDS, "passed": not faults})
    verdict = f"{len(faults)} of {len(compared)} FAILED" if faults else f"all {len(compared)} passed"
    print(f"gradient_parity: {verdict} in {seconds:.0f} s, JSON in {args.out}")
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    names = [*OBJECTIVES, FEW]
    parser = argparse.ArgumentParser(description="Is the gradient the same on any number of processes?")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="CASE")
    parser.add_argument("--dtypes", nargs="+", choices=list(BOUNDS), default=list(BOUNDS))
    parser.add_argument("--wrong-gather", action="store_true", help="gradient in the own slot alone")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/gradients/gradient_parity.json")
    return parser.parse_args()


def save_tiny(folder: Path) -> None:
    """A tiny random Llama and a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", model_max_length=256
    ).save_pretrained(folder)
    disable_progress_bar()
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.15,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaModel(config).save_pretrained(folder)


def run_cells(folder: str, keys: list[Key], gather: Gather | None = None) -> dict[Key, Result]:
    """Loss and gradients of every cell from this process's share of the rows; run on every process."""
    results = {}
    for (tuning, dtype), group in itertools.groupby(sorted(keys, key=encoder_of), key=encoder_of):
        encoder = tiny_encoder(folder, tuning, dtype=getattr(torch, dtype))
        for key in group:
            settings, rows = case_of(key[0])
            add_learned(encoder, settings, teach)
            batch = make_batch(encoder, rows, current().rank, current().world, teach)
            results[key] = step_gradients(
                encoder, batch, build_objective(settings), chunk_tokens=CHUNK_TOKENS[key[-1]], gather=gather
            )
    return results


def encoder_of(key: Key) -> tuple[Tuning, str]:
    """Cells with the same tuning and dtype share an encoder."""
    return key[1], key[2]


def case_of(name: str) -> tuple[Objective, list[Row]]:
    """The objective and the rows of a case."""
    return (OBJECTIVES["everything"], rich_rows()[4:]) if name == FEW else (OBJECTIVES[name], rich_rows())


def compare(key: Key, processes: int, results: dict[Key, Result], truth: dict[Key, Result]) -> Compared:
    """A cell against one process without cache."""
    loss, gradients = results[key]
    true_loss, true_gradients = truth[*key[:-1], "plain"]
    loss_error = abs(loss - true_loss) / abs(true_loss)
    return Compared(*key, processes, loss_error, relative_error(gradients, true_gradients))


def show(compared: list[Compared]) -> None:
    """One table for each tuning and dtype: a row a case, a column a number of processes and a path."""
    columns = list(dict.fromkeys((c.processes, c.path) for c in compared))
    for dtype, tuning in dict.fromkeys((c.dtype, c.tuning) for c in compared):
        part = [c for c in compared if (c.dtype, c.tuning) == (dtype, tuning)]
        found = {(c.case, c.processes, c.path): f"{c.loss_error:.0e} {c.gradient_error:.0e}" for c in part}
        rows = [
            [case, *(found[case, *column] for column in columns)]
            for case in dict.fromkeys(c.case for c in part)
        ]
        title = f"{dtype}, {tuning}: relative error of loss and gradients, at most {BOUNDS[dtype]:.0e}"
        print_table(title, ["term", *(f"{n} {path}" for n, path in columns)], rows)


if __name__ == "__main__":
    sys.exit(main())
