"""A tiny training, in this process, or as a program to be killed: `python training.py MODEL FOLDER`."""

import sys
from pathlib import Path

import numpy as np
from contrastive import ragged_rows

from embedtrain.config.schema import Base, EncoderConfig, Machine, Run, TextFormat
from embedtrain.config.sources import Source
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora, tune_all
from embedtrain.train.log import OF_MACHINE, Figures, read_curve
from embedtrain.train.loop import train
from embedtrain.train.prepare import Teachers
from embedtrain.train.validation import Validate

STEPS, SAVE_EVERY = 18, 4
Curve = list[Figures]


def tiny_stage(**changes: object) -> Train:
    """LoRA with dropout, mixed negatives, a learned temperature, a schedule: all that must go on exactly."""
    term = {
        "kind": "infonce",
        "temperature": {"initial": 0.1, "minimum": 0.05, "maximum": 0.2},
        "mixing": [{"kind": "pair"}],
    }
    settings = {
        "kind": "train",
        "name": "tune",
        "objective": {"terms": [term], "matryoshka": {"dims": [32, 8]}},
        "diagnostics_every_steps": 5,
        "batch_size": 6,
        "num_negatives": 2,
        "steps": STEPS,
        "lr": 3e-3,
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "weight_decay": 0.01,
        "save_every_steps": SAVE_EVERY,
    }
    return Train.model_validate(settings | changes)


def sources() -> dict[str, list[Row]]:
    """Two sources of ragged rows, no text in both."""
    rows = ragged_rows(40)
    return {"faq": rows[:20], "manual": rows[20:]}


def train_tiny(
    model: str,
    folder: Path,
    stage: Train,
    *,
    teachers: Teachers | None = None,
    validate: Validate | None = None,
    machine: Machine | None = None,
) -> tuple[dict[str, object], Encoder]:
    """Facts and the trained encoder."""
    encoder = load_encoder(Base(model=model), EncoderConfig(), TextFormat())
    if stage.tuning == "lora":
        add_lora(encoder, stage.lora, seed=5)
    else:
        tune_all(encoder)
    run = Run(
        name="tiny",
        base=Base(model="tiny"),
        sources={
            "faq": Source(rows="faq.parquet", weight=2, instruction="Find"),
            "manual": Source(rows="manual.parquet", max_document_tokens=16),
        },
        stages=(stage,),
    )
    machine = machine or Machine(chunk_tokens=256)
    return train(
        encoder, sources(), stage, run, machine, folder, teachers=teachers, validate=validate
    ), encoder


def fail_at(folder: Path, step: int) -> Validate:
    """A validation that ends the training in a step, before its checkpoint."""

    def validate(encoder: Encoder) -> dict[str, float]:
        if len(curve_of(folder)) == step - 1:
            raise InterruptedError
        return {}

    return validate


def parameters(encoder: Encoder) -> dict[str, np.ndarray]:
    """Trained parameters by name."""
    return {name: p.detach().numpy().copy() for name, p in encoder.trainable()}


def curve_of(folder: Path) -> Curve:
    """The curve without what the machine decides."""
    return [
        {k: v for k, v in line.items() if k not in OF_MACHINE} for line in read_curve(folder / "curve.jsonl")
    ]


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    """Bit for bit."""
    return found.keys() == expected.keys() and all(
        found[name].tobytes() == expected[name].tobytes() for name in expected
    )


def shared_losses(model: str, folder: str, tuning: str) -> Curve:
    """Run on any number of processes, without dropout: the curve that the first one wrote."""
    stage = tiny_stage(steps=6, lora={"rank": 4, "alpha": 8}) if tuning == "lora" else full_stage()
    train_tiny(model, Path(folder), stage)
    return curve_of(Path(folder))


def full_stage() -> Train:
    """Full tuning, 6 steps."""
    settings = tiny_stage(steps=6).model_dump(by_alias=True, exclude={"lora"})
    return Train.model_validate(settings | {"tuning": "full", "lr": 1e-3})


if __name__ == "__main__":
    train_tiny(sys.argv[1], Path(sys.argv[2]), tiny_stage())
