"""The loop: one visible step after another, from the newest checkpoint to the last step.

Nothing here knows a loss term, and nothing random outlives a step: batches, negatives, dropout and draws are
functions of the seed and the step, so a resumed run is the uninterrupted one, number for number.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, join
from embedtrain.collate import hash_seed
from embedtrain.config.errors import NotFinite, UserError
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Train
from embedtrain.dist import current, mean_over_processes
from embedtrain.mixture import SEVERAL, PlannedBatch
from embedtrain.model.compiled import compiled_layers
from embedtrain.model.encoder import Encoder
from embedtrain.places import at
from embedtrain.show.progress import progress
from embedtrain.train.blame import collate_or_blame
from embedtrain.train.budget import memory_faults
from embedtrain.train.checkpoint import record_step
from embedtrain.train.feed import feed
from embedtrain.train.interrupt import interruptible
from embedtrain.train.log import CURVE, Figures, read_curve, speed, warm_up
from embedtrain.train.measures import Done, step_measures
from embedtrain.train.prepare import Rows, Teachers, Training, prepare, resume
from embedtrain.train.schedule import lr_factor
from embedtrain.train.skips import Outcome, Skips
from embedtrain.train.snapshots import check_snapshots, save_snapshot
from embedtrain.train.step import exact_dtype, train_step
from embedtrain.train.trackers import tracking
from embedtrain.train.update import average_and_clip, take_gradient
from embedtrain.train.validation import Validate, Validation
from embedtrain.train.wishes import Clock, Wishes

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

    `folder` receives `curve.jsonl`, `checkpoints/`, `snapshots/` and, to keep the best, `best/`. `teachers`
    give vectors of sources' texts. `validate` is called when `stage.validation` says so, or, where there is
    none, at each checkpoint. Raises Stopped, after a checkpoint, when asked to stop.
    """
    job = prepare(encoder, rows_by_source, stage, run, machine, teachers or {})
    check_snapshots(stage, job.steps)
    state = resume(job, run, folder)
    skips = Skips(stage.name, stage.max_skipped_steps, folder, state).resume()
    job.budget.resume(state)
    validation = Validation(validate, stage.validation, folder, job.named, state)
    saving = Clock(stage.save_every_minutes)
    first = int(state["step"])
    title = f"train {stage.name}" + (f" from step {first}" if first else "")
    planned, total = job.plan.batches(first, job.steps), job.steps - first
    with (
        interruptible(folder) as asked,
        progress(title, total=total, unit="step") as bar,
        compiled_layers(encoder, machine.compile),
        tracking(stage, machine, folder, first) as trackers,
        feed(partial(local_batch, job), planned, device=encoder.device) as batches,
    ):
        for step in range(first, job.steps):
            own = Wishes(asked(), saving.is_due, validation.clock.is_due)
            figures, wishes = do_step(job, batches, skips, own)
            if machine.compile and step == first:
                figures |= warm_up(figures)
            state["step"] = step + 1
            last = step + 1 == job.steps
            save = wishes.stop or wishes.save or last or (step + 1) % stage.save_every_steps == 0
            if validation.is_due(step + 1, wishes.validate or last, save):
                figures |= validation.run(encoder, step + 1)
            if step + 1 in stage.snapshot_steps:
                save_snapshot(encoder, folder, step + 1)
            record_step(
                folder, figures, state, job.named, job.optimizer, keep_last=stage.keep_last, save=save
            )
            if save:
                saving.restart()
                validation.remove_beaten()
            trackers.log(figures)
            bar.advance(1, **{name: figures[name] for name in ("loss", "lr", "source") if name in figures})
            if wishes.stop and not last:
                asked.stop(step + 1, job.steps)
    skips.check_trained(job.steps)
    cached = {name: how.tokens.facts for name, how in job.collations.items() if how.tokens}
    best = validation.restore_best()
    return facts(read_curve(folder / CURVE)) | best | {"tokenised": cached}


def do_step(job: Training, batches: Iterator[Fed], skips: Skips, own: Wishes) -> tuple[Figures, Wishes]:
    """A step on the next batch: its line of the curve, and what any process wishes for after it."""
    start = time.monotonic()
    at("feed", int(skips.state["step"]) + 1)
    planned, batch = next(batches)
    feed_seconds = time.monotonic() - start
    stage, step = job.stage, planned.step
    lr = stage.lr * lr_factor(stage.schedule, step, job.steps)
    where = f"stage '{stage.name}', step {step + 1}"
    with memory_faults(where, job.budget):
        job.budget.settle(job.encoder, join(batch.queries, batch.documents), job.optimizer, job.machine)
        at("encode")
        while True:
            found = run_step(job, batch, step)
            norm = average_and_clip(job.accelerator, job.named, stage.max_gradient_norm)
            means, tokens, wishes = over_processes(found, batch, own)
            if not job.budget.relieve(where, step + 1, means):
                break
        taken = skips.judge(Outcome(step + 1, planned.source, means["loss"], norm), lambda: planned.row_ids)
        if taken:
            take_gradient(job.optimizer, lr)
    kept_tokens = round(means.pop("kept_tokens") * current().world)
    seconds, world = time.monotonic() - start, current().world
    texts = (len(batch.queries) + len(batch.documents)) * world
    figures: Figures = {
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
    }
    return figures if taken else skips.mark(figures), wishes


def run_step(job: Training, batch: ContrastiveBatch, step: int) -> dict[str, Tensor]:
    """Gradients and figures of the batch, diagnosed every so many steps; faults name stage and step.

    The loss of vectors that are no numbers is none. Draws begin with the step, however often it begins.
    """
    every, budget = job.stage.diagnostics_every_steps, job.budget
    torch.manual_seed(hash_seed(job.seed, step, current().rank))  # dropout draws from it
    job.optimizer.zero_grad()
    found = {"loss": torch.tensor(torch.nan), "kept_tokens": torch.tensor(0.0)}
    try:
        with budget.guard_alone():
            found = train_step(
                job.encoder,
                batch,
                job.objective,
                chunk_tokens=budget.chunk_tokens,
                keep_tokens=budget.keep_tokens or 0,
                diagnose=job.diagnose if every and step % every == 0 else None,
                guard=nullcontext if job.encoder.sharded else budget.guard,
            )
    except NotFinite:
        pass
    except UserError as error:
        raise UserError(f"stage '{job.stage.name}', step {step + 1}: {error}") from None
    return found | budget.flags()


def local_batch(job: Training, planned: PlannedBatch) -> Fed:
    """A planned batch, and this process's share of it."""
    here = current()
    parts = planned.local(here.rank, here.world)
    batch = collate_or_blame(job.stage.name, parts, planned.step, job.collations)
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
    found: dict[str, Tensor], batch: ContrastiveBatch, own: Wishes
) -> tuple[dict[str, float], int, Wishes]:
    """(mean figures, tokens of the global batch, what any process wishes for), in one message.

    A figure that is a sum and a count is their ratio, and is left out where nothing counts anywhere.
    """
    tokens = torch.tensor(batch.queries.num_tokens + batch.documents.num_tokens)
    device = found["loss"].device
    wishes = torch.tensor(own.numbers())
    figures = [x.to(device, exact_dtype(device)) for x in (*found.values(), tokens, *wishes)]
    table = torch.stack([x if x.ndim else torch.stack([x, torch.ones_like(x)]) for x in figures])
    means = mean_over_processes(table).tolist()
    means, (mean_tokens, _), wished = means[: len(found)], means[len(found)], means[len(found) + 1 :]
    named = {name: total / count for name, (total, count) in zip(found, means, strict=True) if count}
    return named, round(mean_tokens * current().world), Wishes.of_all([mean for mean, _ in wished])


def facts(curve: list[Figures]) -> dict[str, object]:
    """What a finished training says of itself."""
    losses = [float(figures["loss"]) for figures in curve if "skipped" not in figures]
    tenth = max(1, len(losses) // 10)
    return {
        "steps": len(curve),
        "skipped_steps": len(curve) - len(losses),
        "tokens": sum(int(figures["tokens"]) for figures in curve),
        "swapped_rows": sum(int(figures["swapped"]) for figures in curve),
        **speed(curve),
        "first_loss": sum(losses[:tenth]) / tenth,
        "last_loss": sum(losses[-tenth:]) / tenth,
    }
