"""A tiny distillation, in this process, or as a program to be killed: `python distilling.py FOLDER STAGE`."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
from tiny_models import TEXTS, save_tiny
from tiny_runs import tiny_context, tiny_run

from embedtrain.config.distilling import Distil
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, text_key, write_rows
from embedtrain.stages import distil as distil_stage
from embedtrain.stages.context import StageContext
from embedtrain.stages.distil_texts import collect_texts
from embedtrain.stages.opening import open_start
from embedtrain.train.log import OF_MACHINE, Figures, read_curve
from embedtrain.train.taught import SIDES, Written
from embedtrain.vectors import Side

DIMS = 24
WORDS = " ".join(TEXTS).split()
SETTINGS = {
    "name": "leaf",
    "kind": "distil",
    "held_out_texts": 16,
    "batch_size": 8,
    "cycles": 2,
    "epochs_per_cycle": 1.5,
    "lr": 3e-3,
    "save_every_steps": 5,
}
OUTPUTS = ("encoder/model.safetensors", "encoder/encoder.json", "encoder/dense_0/model.safetensors")


def vector_of(text: str) -> np.ndarray:
    """A stand-in for a teacher: the mean of random vectors of the words, of length 1, float32."""
    words = [np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIMS) for word in text.split()]
    mean = np.mean(words, axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def faq(num: int = 40) -> list[Row]:
    """Rows of a few words each; every third query is a positive too."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(4, 10))) for _ in range(2 * num)]
    return [
        Row(texts[2 * n], (texts[2 * n + 1], texts[2 * n + 2] if n % 3 == 0 else texts[2 * n + 1] + " so"))
        for n in range(num - 1)
    ]


def write_vectors(folder: Path, queries: list[str], documents: list[str], scale: float = 1.0) -> Path:
    """What `teacher: vectors` reads: the stand-in's vectors, queries as lines and documents as objects."""
    folder.mkdir(parents=True, exist_ok=True)
    for side, texts in (("query", queries), ("document", documents)):
        np.save(folder / f"{side}.npy", scale * np.stack([vector_of(text) for text in texts]))
    (folder / "query.txt").write_text("".join(f"{text}\n" for text in queries))
    lines = (json.dumps({"text": text}) for text in documents)
    (folder / "document.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def all_texts(rows: list[Row]) -> tuple[list[str], list[str]]:
    """Different queries, and different positives and negatives."""
    documents = {text: None for row in rows for text in (*row.positives, *row.negatives)}
    return list({row.query: None for row in rows}), list(documents)


def make_context(folder: Path, name: str = "leaf-1.partial", **stage: object) -> StageContext:
    """A stage that learns the stand-in's vectors of the texts of one source; `stage` overrides settings."""
    if not (folder / "base").exists():
        save_tiny("bert", folder / "base", seed=3, hidden_dropout_prob=0.1)
        write_rows(folder / "faq.parquet", faq())
        write_vectors(folder / "vectors", *all_texts(faq()))
    return context_of(make_run(folder, {"faq": {}}, **stage), name)


def make_run(folder: Path, sources: dict[str, dict], **stage: object) -> Run:
    """A run of one distil stage on the sources' files in the folder."""
    teacher = {"teacher": {"kind": "vectors", "folder": str(folder / "vectors")}}
    return tiny_run(folder, sources, SETTINGS | teacher | stage)


def context_of(
    run: Run, name: str = "leaf-1.partial", num_processes: int = 1, **inputs: Path
) -> StageContext:
    """The stage as the pipeline would start it."""
    machine = Machine(num_processes=num_processes, chunk_tokens=64)
    return tiny_context(run, "leaf", name, machine, **inputs)


def stage_of(context: StageContext) -> Distil:
    assert isinstance(context.stage, Distil)
    return context.stage


def collect(context: StageContext, seed: int = 7) -> Written:
    """The texts that the stage learns."""
    return Written(collect_texts(context, stage_of(context), open_start(context), seed))


def run_tiny(folder: Path, name: str = "leaf-1.partial", **stage: object) -> tuple[Path, dict]:
    """The stage's folder and its facts."""
    context = make_context(folder, name, **stage)
    return context.folder, distil_stage.run_stage(context)


def held_out_texts(written: Written) -> list[tuple[Side, str]]:
    """Side and text of everything that is validated on."""
    sides = [SIDES[number] for number in written.arrays["sides"][written.held_out]]
    rows = written.arrays["rows"][written.held_out].tolist()
    return [(side, written.texts(side)[row]) for side, row in zip(sides, rows, strict=True)]


def curve_of(folder: Path) -> list[Figures]:
    """The curve without what the machine decides."""
    return [
        {k: v for k, v in line.items() if k not in OF_MACHINE} for line in read_curve(folder / "curve.jsonl")
    ]


def outputs(folder: Path) -> dict[str, bytes]:
    """The bytes of what the stage leaves."""
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def keys_of(texts: list[str]) -> set[int]:
    return {text_key(text) for text in texts}


if __name__ == "__main__":
    distil_stage.run_stage(make_context(Path(sys.argv[1]), **json.loads(sys.argv[2])))
