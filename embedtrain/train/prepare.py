"""What a training needs before its first step: the parts, the plan of all batches, where to go on from."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator
from torch.nn import Parameter, ParameterDict
from torch.optim import Optimizer

from embedtrain.artifacts import cache_folder, hash_json
from embedtrain.collate import Collation, TeacherLookup
from embedtrain.config.errors import UserError
from embedtrain.config.fitting import num_negatives
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row
from embedtrain.data.store import RowStore
from embedtrain.data.tokens.cache import open_tokens
from embedtrain.data.tokens.entries import Entries
from embedtrain.loss.diagnostics import Diagnose, build_diagnostics
from embedtrain.loss.learned import initial_parameters
from embedtrain.loss.objective import ObjectiveFunction, build_objective
from embedtrain.mixture import Plan, batch_sizes, num_steps, row_keys
from embedtrain.model.encoder import Encoder
from embedtrain.text import source_text
from embedtrain.train.budget import Budget
from embedtrain.train.checkpoint import State, first_state, resume_training
from embedtrain.train.place import place_encoder
from embedtrain.train.schedule import make_optimizer

Rows = Mapping[str, Sequence[Row]]
Teachers = Mapping[str, TeacherLookup]
"""By source."""
LIMITS = {"max_query_tokens", "max_document_tokens"}
FORESEEN_ROWS = 1 << 18
"""Rows planned before the first step, to see that the plan can be kept."""
CACHED_PASSES = 0.5
"""A source that a run sees less of is tokenised batch by batch."""


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
    plan: Plan
    seed: int
    budget: Budget

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return len(self.plan)


def prepare(
    encoder: Encoder, rows: Rows, stage: Train, run: Run, machine: Machine, teachers: Teachers
) -> Training:
    """Put the encoder on its device and plan every batch of the run."""
    accelerator = Accelerator(cpu=machine.device == "cpu")
    seed = run.seed if stage.seed is None else stage.seed
    if not encoder.trainable():
        raise UserError(f"stage '{stage.name}': the encoder has no trainable parameter")
    add_learned(encoder, stage, seed, teachers)
    named = place_encoder(encoder, accelerator.device, machine, sharded=machine.sharding == "full")
    blocks = {name: run.sources[name].blocks for name in rows}
    plan = make_plan(rows, stage, run, seed)
    how = {
        name: make_collation(name, rows[name], encoder, stage, run, seed, teachers.get(name)) for name in rows
    }
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
        collations={name: cache_tokens(how[name], share.passes) for name, share in plan.shares().items()},
        plan=plan,
        seed=seed,
        budget=Budget.of(machine),
    )


def make_plan(rows: Rows, stage: Train, run: Run, seed: int) -> Plan:
    """The plan of the stage's batches, the first of them made: so a plan that cannot be kept is told now."""
    sources = {name: run.sources[name] for name in rows}
    plan = Plan(
        {name: row_keys(source) for name, source in rows.items()},
        {name: source.weight for name, source in sources.items()},
        stage.mixture,
        batch_sizes(stage, sources),
        num_steps(stage, {name: len(source) for name, source in rows.items()}),
        seed,
    )
    deque(plan.batches(0, max(1, FORESEEN_ROWS // stage.batch_size)), maxlen=0)
    return plan


def add_learned(encoder: Encoder, stage: Train, seed: int, teachers: Teachers) -> None:
    """Give the encoder what the objective learns besides the weights; every training starts it anew."""
    dims = {name: lookup([], "query", []).shape[1] for name, lookup in teachers.items()}
    if len(set(dims.values())) > 1:
        found = ", ".join(f"{dim} of source '{name}'" for name, dim in dims.items())
        raise UserError(f"stage '{stage.name}': the teachers' vectors have other dims: {found}; expected one")
    teacher_dim = next(iter(dims.values()), None)
    encoder.learned = ParameterDict(initial_parameters(stage.objective, encoder.dim, teacher_dim, seed))


def make_collation(
    name: str,
    rows: Sequence[Row],
    encoder: Encoder,
    stage: Train,
    run: Run,
    seed: int,
    teacher: TeacherLookup | None,
) -> Collation:
    """How the source's rows become batches; the stage's token limits win over the run's."""
    source, limits = run.sources[name], stage.model_dump(include=LIMITS, exclude_none=True)
    fmt = encoder.spec.text.model_copy(update=limits)
    return Collation(
        name=name,
        rows=rows,
        text=source_text(fmt, source, run.seed),
        tokenizer=encoder.tokenizer,
        pool_instruction=encoder.spec.pool_instruction,
        num_negatives=num_negatives(run, stage, name),
        seed=seed,
        teacher=teacher,
    )


def cache_tokens(how: Collation, passes: float) -> Collation:
    """The same with its tokens on disk, where its rows are there too and the run sees enough of them."""
    if passes < CACHED_PASSES or not isinstance(how.rows, RowStore):
        return how
    entries, folder = Entries(how.rows, how.text, how.num_negatives > 0), cache_folder("tokens")
    tokens = open_tokens(entries, how.tokenizer, how.pool_instruction, folder, how.name)
    return replace(how, tokens=tokens)


def identify(job: Training, run: Run) -> str:
    """A hash of what the numbers depend on: a training never goes on from a checkpoint of another."""
    return hash_json(
        {
            "stage": job.stage.identity(),
            "seed": job.seed,
            "sources": {name: run.sources[name].model_dump(mode="json") for name in job.rows},
            "rows": {
                n: rows.hash if isinstance(rows, RowStore) else len(rows) for n, rows in job.rows.items()
            },
            "encoder": job.encoder.spec.to_json(),
            "parameters": {name: list(p.shape) for name, p in job.named},
        }
    )


def resume(job: Training, run: Run, folder: Path) -> State:
    """The newest whole checkpoint's state, or that of step 0."""
    return resume_training(folder, first_state(identify(job, run), job.encoder), job.named, job.optimizer)
