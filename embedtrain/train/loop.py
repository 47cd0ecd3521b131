"""The loop: one visible step after another, from the newest checkpoint to the last step.

Nothing here knows a loss term, and nothing random outlives a step: batches, negatives, dropout and draws are
functions of the seed and the step, so a resumed run is the uninterrupted one, number for number.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, join
from embedtrain.collate import collate_parts, hash_seed
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Train
from embedtrain.dist import barrier, current, mean_over_processes
from embedtrain.mixture import SEVERAL, PlannedBatch
from embedtrain.model.compiled import compiled_layers
from embedtrain.model.encoder import Encoder
from embedtrain.show.progress import progress
from embedtrain.train.checkpoint import State, save_checkpoint
from embedtrain.train.feed import feed
from embedtrain.train.interrupt import Stopped, interruptible
from embedtrain.train.log import Figures, append_curve, read_curve, speed, warm_up
from embedtrain.train.measures import Done, step_measures
from embedtrain.train.memory import memory_faults
from embedtrain.train.prepare import Rows, Teachers, Training, identify, prepare, resume
from embedtrain.train.schedule import lr_factor
from embedtrain.train.snapshots import check_snapshots, save_snapshot
from embedtrain.train.step import exact_dtype, train_step
from embedtrain.train.trackers import tracking
from embedtrain.train.update import update

Validate = Callable[[Encoder], dict[str, float]]
Fed = tuple[PlannedBatch, ContrastiveBatch]


def train(
    encoder: Encoder,
    rows_by_source: Rows,
    stage: Train,
    run: Run,
    machine: Machine,
    folder: Path,
    *,
    teachers: Teachers | None = None,
    validate: Validate | None = None,
) -> dict[str, object]:
    """Train the encoder in place; returns facts. Goes on from the newest whole checkpoint in the folder.

    `folder` receives `curve.jsonl`, `checkpoints/` and `snapshots/`. `teachers` give vectors of
    sources' texts. `validate` is called at each checkpoint.
    Raises Stopped, after a checkpoint, when asked to stop.
    """
    job = prepare(encoder, rows_by_source, stage, run, machine, teachers or {})
    check_snapshots(stage, job.steps)
    state = resume(job, identify(job, run), folder)
    first = int(state["step"])
    title = f"train {stage.name}" + (f" from step {first}" if first else "")
    planned, total = job.plan.batches(first, job.steps), job.steps - first
    with (
        interruptible() as asked,
        progress(title, total=total, unit="step") as bar,
        compiled_layers(encoder, machine.compile),
        tracking(stage, machine, folder, first) as trackers,
        feed(partial(local_batch, job), planned, device=encoder.device) as batches,
    ):
        for step in range(first, job.steps):
            figures, stop = do_step(job, batches, asked.is_set())
            if machine.compile and step == first:
                figures |= warm_up(figures)
            state["step"] = step + 1
            due = stop or (step + 1) % stage.save_every_steps == 0 or step + 1 == job.steps
            if due and validate is not None:
                figures |= run_validation(validate, encoder)
            if step + 1 in stage.snapshot_steps:
                save_snapshot(encoder, folder, step + 1)
            write_step(job, state, figures, folder, checkpoint=due)
            trackers.log(figures)
            bar.advance(1, loss=figures["loss"], lr=figures["lr"], source=figures["source"])
            if stop and step + 1 < job.steps:
                raise Stopped(f"stopped at step {step + 1} of {job.steps}; run the same command to resume")
    cached = {name: how.tokens.facts for name, how in job.collations.items() if how.tokens}
    return facts(read_curve(folder / "curve.jsonl")) | {"tokenised": cached}


def do_step(job: Training, batches: Iterator[Fed], asked: bool) -> tuple[Figures, bool]:
    """A step on the next batch: its line of the curve, and whether a process was asked to stop."""
    start = time.monotonic()
    planned, batch = next(batches)
    feed_seconds = time.monotonic() - start
    stage, step = job.stage, planned.step
    lr = stage.lr * lr_factor(stage.schedule, step, job.steps)
    where = f"stage '{stage.name}', step {step + 1}"
    with memory_faults(where, job.machine, job.keep):
        job.keep.settle(job.encoder, join(batch.queries, batch.documents), job.optimizer, job.machine)
        found = run_step(job, batch, step)
        where += f", source '{planned.source}'"
        norm = update(job.accelerator, job.optimizer, job.named, stage.max_gradient_norm, lr, where)
        means, tokens, stop = over_processes(found, batch, asked)
    kept_tokens = round(means.pop("kept_tokens") * current().world)
    seconds, world = time.monotonic() - start, current().world
    texts = (len(batch.queries) + len(batch.documents)) * world
    return {
        "step": step + 1,
        **plan_figures(planned),
        **means,
        "lr": lr,
        "gradient_norm": norm,
        "tokens": tokens,
        "kept_tokens": kept_tokens,
        "feed_seconds": round(feed_seconds, 4),
        "seconds": round(seconds, 4),
        "tokens_per_second": round(tokens / seconds, 1),
        **step_measures(job, Done(len(planned), texts, tokens, seconds, world)),
    }, stop


def run_step(job: Training, batch: ContrastiveBatch, step: int) -> dict[str, Tensor]:
    """Gradients and figures of the batch, diagnosed every so many steps; faults name stage and step.

    Where a GPU's memory runs out after all, fewer graphs are kept and the step begins anew, draws and all;
    not among several processes, for the others would wait.
    """
    every = job.stage.diagnostics_every_steps
    while True:
        torch.manual_seed(hash_seed(job.seed, step, current().rank))  # dropout draws from it
        job.optimizer.zero_grad()
        try:
            return train_step(
                job.encoder,
                batch,
                job.objective,
                chunk_tokens=job.machine.chunk_tokens,
                keep_tokens=job.keep.tokens or 0,
                diagnose=job.diagnose if every and step % every == 0 else None,
            )
        except UserError as error:
            raise UserError(f"stage '{job.stage.name}', step {step + 1}: {error}") from None
        except torch.OutOfMemoryError:
            if current().world > 1 or not job.keep.lower():
                raise
        print(f"step {step + 1}: out of memory, begun anew; {job.keep.describe()}", file=sys.stderr)


def local_batch(job: Training, planned: PlannedBatch) -> Fed:
    """A planned batch, and this process's share of it."""
    here = current()
    batch = collate_parts(planned.local(here.rank, here.world), planned.step, job.collations)
    return planned, replace(batch, source=planned.source)  # of the whole batch, on every process


def plan_figures(planned: PlannedBatch) -> Figures:
    """Where a batch's rows come from, and how many of them stand in for others."""
    figures: Figures = {"source": planned.source, "swapped": planned.swapped}
    if planned.source == SEVERAL:
        for part in planned.parts:
            name = f"rows/{part.source}"
            figures[name] = int(figures.get(name, 0)) + len(part)
    return figures


def over_processes(
    found: dict[str, Tensor], batch: ContrastiveBatch, asked: bool
) -> tuple[dict[str, float], int, bool]:
    """(mean figures, tokens of the global batch, whether any process was asked to stop), in one message.

    A figure that is a sum and a count is their ratio, and is left out where nothing counts anywhere.
    """
    tokens = torch.tensor(batch.queries.num_tokens + batch.documents.num_tokens)
    device = found["loss"].device
    figures = [x.to(device, exact_dtype(device)) for x in (*found.values(), tokens, torch.tensor(asked))]
    table = torch.stack([x if x.ndim else torch.stack([x, torch.ones_like(x)]) for x in figures])
    *means, (mean_tokens, _), (stop, _) = mean_over_processes(table).tolist()
    named = {name: total / count for name, (total, count) in zip(found, means, strict=True) if count}
    return named, round(mean_tokens * current().world), stop > 0


def write_step(job: Training, state: State, figures: Figures, folder: Path, *, checkpoint: bool) -> None:
    """The first process adds the step to the curve and saves a checkpoint where one is due; others wait."""
    if current().rank == 0:
        append_curve(folder / "curve.jsonl", figures)
        if checkpoint:
            save_checkpoint(folder / "checkpoints", state, job.named, job.optimizer, job.stage.keep_last)
    if checkpoint:
        barrier()


def run_validation(validate: Validate, encoder: Encoder) -> dict[str, float]:
    """What `validate` measures, under names of their own."""
    encoder.eval()
    measured = validate(encoder)
    encoder.train()
    return {f"validation/{name}": value for name, value in measured.items()}


def facts(curve: list[Figures]) -> dict[str, object]:
    """What a finished training says of itself."""
    losses = [float(figures["loss"]) for figures in curve]
    tenth = max(1, len(losses) // 10)
    return {
        "steps": len(curve),
        "tokens": sum(int(figures["tokens"]) for figures in curve),
        "swapped_rows": sum(int(figures["swapped"]) for figures in curve),
        **speed(curve),
        "first_loss": sum(losses[:tenth]) / tenth,
        "last_loss": sum(losses[-tenth:]) / tenth,
    }
