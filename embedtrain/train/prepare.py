"""What a training needs before its first step: the parts, the plan of all batches, where to go on from."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from torch.nn import Parameter, ParameterDict
from torch.optim import Optimizer

from embedtrain.artifacts import hash_json
from embedtrain.collate import Collation, TeacherLookup
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row
from embedtrain.dist import barrier, broadcast_parameters, current
from embedtrain.loss.diagnostics import Diagnose, build_diagnostics
from embedtrain.loss.learned import initial_parameters
from embedtrain.loss.objective import ObjectiveFunction, build_objective
from embedtrain.mixture import PlannedBatch, plan_batches, row_keys
from embedtrain.model.encoder import Encoder
from embedtrain.train.checkpoint import State, load_checkpoint, newest_checkpoint
from embedtrain.train.log import cut_curve
from embedtrain.train.schedule import make_optimizer

Rows = Mapping[str, Sequence[Row]]
Teachers = Mapping[str, TeacherLookup]
"""By source."""


@dataclass(frozen=True)
class Training:
    """All that a step needs."""

    encoder: Encoder
    stage: Train
    machine: Machine
    accelerator: Accelerator
    named: list[tuple[str, Parameter]]
    optimizer: Optimizer
    objective: ObjectiveFunction
    diagnose: Diagnose
    rows: Rows
    collations: dict[str, Collation]
    plan: list[PlannedBatch]
    seed: int


def prepare(
    encoder: Encoder, rows: Rows, stage: Train, run: Run, machine: Machine, teachers: Teachers
) -> Training:
    """Put the encoder on its device and plan every batch of the run."""
    accelerator = Accelerator(cpu=machine.device == "cpu")
    seed = run.seed if stage.seed is None else stage.seed
    if not encoder.trainable():
        raise UserError(f"stage '{stage.name}': the encoder has no trainable parameter")
    add_learned(encoder, stage, seed, teachers)
    encoder.to(accelerator.device).train()
    if machine.activation_checkpointing:
        encoder.checkpoint_activations()
    named = encoder.trainable()
    broadcast_parameters(p for _, p in named)
    weights = {name: run.sources[name].weight for name in rows}
    keys = {name: row_keys(source) for name, source in rows.items()}
    blocks = {name: run.sources[name].blocks for name in rows}
    how = {name: make_collation(name, encoder, stage, run, seed, teachers.get(name)) for name in rows}
    return Training(
        encoder=encoder,
        stage=stage,
        machine=machine,
        accelerator=accelerator,
        named=named,
        optimizer=make_optimizer(named, stage),
        objective=build_objective(stage.objective, blocks),
        diagnose=build_diagnostics(stage.objective, blocks),
        rows=rows,
        collations=how,
        plan=plan_batches(keys, weights, stage.batch_size, stage.steps, seed),
        seed=seed,
    )


def add_learned(encoder: Encoder, stage: Train, seed: int, teachers: Teachers) -> None:
    """Give the encoder what the objective learns besides the weights; every training starts it anew."""
    dims = {name: lookup([], "query").shape[1] for name, lookup in teachers.items()}
    if len(set(dims.values())) > 1:
        found = ", ".join(f"{dim} of source '{name}'" for name, dim in dims.items())
        raise UserError(f"stage '{stage.name}': the teachers' vectors have other dims: {found}; expected one")
    teacher_dim = next(iter(dims.values()), None)
    encoder.learned = ParameterDict(initial_parameters(stage.objective, encoder.dim, teacher_dim, seed))


def make_collation(
    name: str, encoder: Encoder, stage: Train, run: Run, seed: int, teacher: TeacherLookup | None
) -> Collation:
    """How the source's rows become batches; the stage's token limits win over the run's."""
    return Collation(
        name=name,
        source=run.sources[name],
        fmt=encoder.spec.text,
        tokenizer=encoder.tokenizer,
        pool_instruction=encoder.spec.pool_instruction,
        max_query_tokens=stage.max_query_tokens or encoder.spec.text.max_query_tokens,
        max_document_tokens=stage.max_document_tokens or encoder.spec.text.max_document_tokens,
        num_negatives=stage.num_negatives,
        seed=seed,
        teacher=teacher,
    )


def identify(job: Training, run: Run) -> str:
    """A hash of what the numbers depend on: a training never goes on from a checkpoint of another."""
    return hash_json(
        {
            "stage": job.stage.model_dump(mode="json"),
            "seed": job.seed,
            "sources": {name: run.sources[name].model_dump(mode="json") for name in job.rows},
            "num_rows": {name: len(rows) for name, rows in job.rows.items()},
            "encoder": job.encoder.spec.to_json(),
            "parameters": {name: list(p.shape) for name, p in job.named},
        }
    )


def resume(job: Training, identity: str, folder: Path) -> State:
    """The newest whole checkpoint's state, or that of step 0."""
    checkpoint, messages = newest_checkpoint(folder / "checkpoints")
    state: State = {"step": 0, "identity": identity}
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, identity, job.named, job.optimizer)
    if current().rank == 0:
        print("".join(f"{message}\n" for message in messages), end="", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        cut_curve(folder / "curve.jsonl", int(state["step"]))
    barrier()
    return state
