"""The loop of a distil stage: each text's vector is brought nearer to its teacher's.

Nothing random outlives a step, as in `embedtrain.train.loop`, so a resumed run is the uninterrupted one,
number for number. The loss is a sum over texts, so a chunk is carried into the parameters at once.

Dimensions: N local texts, K dims of the teacher's vectors.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import Parameter
from torch.optim import Optimizer

from embedtrain.artifacts import hash_json
from embedtrain.collate import hash_seed
from embedtrain.config.distilling import Distil
from embedtrain.config.schema import Machine
from embedtrain.dist import current, mean_over_processes
from embedtrain.loss.embed_distill import distances
from embedtrain.model.compiled import compiled_layers
from embedtrain.model.encoder import Encoder
from embedtrain.model.packed import copied
from embedtrain.places import at
from embedtrain.show.progress import progress
from embedtrain.train.best import keep_best, remove_beaten, restore_best
from embedtrain.train.budget import Budget, memory_faults
from embedtrain.train.checkpoint import State, first_state, record_step, resume_training
from embedtrain.train.cycles import Cycles
from embedtrain.train.feed import feed
from embedtrain.train.interrupt import interruptible
from embedtrain.train.learn import learn
from embedtrain.train.log import CURVE, Figures, read_curve, speed, warm_up
from embedtrain.train.measures import Done, step_measures
from embedtrain.train.place import place_encoder
from embedtrain.train.schedule import make_optimizer
from embedtrain.train.skips import Outcome, Skips
from embedtrain.train.step import exact_dtype
from embedtrain.train.taught import Lesson, Taught
from embedtrain.train.trackers import tracking
from embedtrain.train.update import average_and_clip, take_gradient
from embedtrain.train.wishes import Clock, Wishes

LOSS, COSINE = "validation/loss", "validation/cosine"


@dataclass(frozen=True)
class Distilling:
    """All that a step needs."""

    encoder: Encoder
    stage: Distil
    machine: Machine
    taught: Taught
    cycles: Cycles
    accelerator: Accelerator
    named: list[tuple[str, Parameter]]
    optimizer: Optimizer
    folder: Path
    budget: Budget


def distil(
    encoder: Encoder, taught: Taught, stage: Distil, machine: Machine, folder: Path, seed: int
) -> dict[str, object]:
    """Train the encoder in place, as `spec.normalize` says for vectors of length 1 or raw ones; facts.

    Goes on from the newest whole checkpoint in the folder, which receives `curve.jsonl`, `checkpoints/` and,
    with patience, `best/`. Raises Stopped, after a checkpoint, when asked to stop.
    """
    job = prepare(encoder, taught, stage, machine, folder, seed)
    state, total, saving = resume(job), len(job.cycles), Clock(stage.save_every_minutes)
    skips = Skips(stage.name, stage.max_skipped_steps, folder, state).resume()
    job.budget.resume(state)
    first = int(state["step"])
    title = f"distil {stage.name}" + (f" from step {first}" if first else "")
    with (
        interruptible(folder) as asked,
        progress(title, total=total - first, unit="step") as bar,
        compiled_layers(encoder, machine.compile),
        tracking(stage, machine, job.folder, first) as trackers,
        feed(partial(local_lesson, job), range(first, total), device=encoder.device) as lessons,
    ):
        while not is_last(job, state):
            with memory_faults(f"stage '{stage.name}', step {state['step'] + 1}", job.budget):
                own = Wishes(asked(), saving.is_due)
                figures, wishes = do_step(job, int(state["step"]), lessons, skips, own)
            if machine.compile and state["step"] == first:
                figures |= warm_up(figures)
            state["step"] += 1
            figures |= validate(job, state)
            if write_step(job, state, figures, wishes):
                saving.restart()
            trackers.log(figures)
            bar.advance(
                1, **{name: figures[name] for name in ("loss", "lr", LOSS, COSINE) if name in figures}
            )
            if wishes.stop and not is_last(job, state):
                asked.stop(state["step"], total)
    skips.check_trained(int(state["step"]))
    if stage.patience is not None:
        restore_best(folder, state["best_step"], job.named)
    return facts(job, state)


def prepare(
    encoder: Encoder, taught: Taught, stage: Distil, machine: Machine, folder: Path, seed: int
) -> Distilling:
    """Put the student on its device, and plan the steps."""
    accelerator = Accelerator(cpu=machine.device == "cpu")
    named = place_encoder(encoder, accelerator.device, machine, dropout=stage.dropout)
    cycles = Cycles(len(taught.written.training), stage, seed)
    optimizer = make_optimizer(named, stage)
    budget = Budget(machine.chunk_tokens, keep_tokens=0)
    return Distilling(encoder, stage, machine, taught, cycles, accelerator, named, optimizer, folder, budget)


def identify(job: Distilling) -> str:
    """A hash of what the numbers depend on: nothing goes on from a checkpoint of another."""
    return hash_json(
        {
            "stage": job.stage.identity(),
            "seed": job.cycles.seed,
            "texts": job.taught.written.facts["hash"],
            "encoder": job.encoder.spec.to_json(),
            "parameters": {name: list(p.shape) for name, p in job.named},
        }
    )


def resume(job: Distilling) -> State:
    """The newest whole checkpoint's state, or that of step 0.

    `best_step` and `best_loss` are of the best validation, `worse` counts those since.
    """
    first = first_state(identify(job), job.encoder) | {"best_step": 0, "best_loss": None, "worse": 0}
    return resume_training(job.folder, first, job.named, job.optimizer)


def local_lesson(job: Distilling, step: int) -> Lesson:
    """This process's share of a step's texts: every so many-th, by length, so that shares cost alike."""
    written, here = job.taught.written, current()
    places = written.training[job.cycles.texts(step)]
    places = places[np.argsort(-written.lengths_W[places], kind="stable")]
    return job.taught.lesson(places[here.rank :: here.world])


def do_step(
    job: Distilling, step: int, lessons: Iterator[Lesson], skips: Skips, own: Wishes
) -> tuple[Figures, Wishes]:
    """A step on the next texts: its line of the curve, and what any process wishes for after it."""
    start, stage, device = time.monotonic(), job.stage, job.accelerator.device
    at("feed", step + 1)
    tokens, targets_NK = next(lessons)
    feed_seconds = time.monotonic() - start
    targets_NK = copied(targets_NK, device)
    lr, where = stage.lr * job.cycles.lr_factor(step), f"stage '{stage.name}', step {step + 1}"
    while True:
        torch.manual_seed(hash_seed(job.cycles.seed, step, current().rank))  # dropout draws from it
        job.optimizer.zero_grad()
        local = learn(job.encoder, tokens, targets_NK, stage, job.budget)
        norm = average_and_clip(job.accelerator, job.named, stage.max_gradient_norm)
        flags = job.budget.flags()
        sums = [local, torch.tensor(tokens.num_tokens), *flags.values(), *torch.tensor(own.numbers())]
        loss, mean_tokens, *means = mean_over_processes(torch.stack([x.to(local) for x in sums])).tolist()
        if not job.budget.relieve(where, step + 1, dict(zip(flags, means, strict=False))):
            break
    taken = skips.judge(
        Outcome(step + 1, "texts", loss, norm),
        lambda: {"texts": job.taught.written.training[job.cycles.texts(step)].tolist()},
    )
    if taken:
        take_gradient(job.optimizer, lr)
    world = current().world
    num_tokens, seconds = round(mean_tokens * world), time.monotonic() - start
    figures: Figures = {
        "step": step + 1,
        "cycle": step // job.cycles.steps_per_cycle + 1,
        "epoch": (step + 1) * stage.batch_size / job.cycles.num_texts,
        "loss": loss,
        "lr": lr,
        "gradient_norm": norm,
        "tokens": num_tokens,
        "feed_seconds": round(feed_seconds, 4),
        "seconds": round(seconds, 4),
        "tokens_per_second": round(num_tokens / seconds, 1),
        **step_measures(job, Done(stage.batch_size, stage.batch_size, num_tokens, seconds, world)),
    }
    return figures if taken else skips.mark(figures), Wishes.of_all(means[len(flags) :])


def validate(job: Distilling, state: State) -> Figures:
    """Loss and mean cosine on held-out texts where an epoch or a cycle ends; the best loss is noted."""
    step = int(state["step"])
    if not job.cycles.is_validated(step):
        return {}
    loss, cosine = measure(job)
    if state["best_loss"] is None or loss < state["best_loss"]:
        state |= {"best_step": step, "best_loss": loss, "worse": 0}
        if job.stage.patience is not None:
            keep_best(job.folder, step, job.named)
    else:
        state["worse"] += 1
    return {LOSS: loss, COSINE: cosine}


def measure(job: Distilling) -> tuple[float, float]:
    """(loss, mean cosine) over all held-out texts, each process measuring its share."""
    here, device, places = current(), job.accelerator.device, job.taught.written.held_out
    sums = torch.zeros(3, dtype=exact_dtype(device), device=device)
    job.encoder.eval()
    with torch.inference_mode():
        for tokens, targets_NK in lessons_of(job, places[here.rank :: here.world]):
            vectors_NK = job.encoder(tokens)
            normalize = job.encoder.spec.normalize
            lost = distances(vectors_NK, targets_NK, job.stage.distance, normalize)
            far = distances(vectors_NK, targets_NK, "cosine", normalize)
            sums += torch.stack([lost.sum(), (1 - far).sum(), lost.new_tensor(len(lost))]).to(sums)
    job.encoder.train(job.stage.dropout)
    loss, cosine, count = mean_over_processes(sums).tolist()
    return loss / count, cosine / count


def lessons_of(job: Distilling, places: np.ndarray) -> Iterator[Lesson]:
    """All these texts, longest first, as many at a time as a step's chunk holds."""
    lengths = job.taught.written.lengths_W
    places = places[np.argsort(-lengths[places], kind="stable")]
    start = 0
    while start < len(places):
        stop = start + max(1, job.machine.chunk_tokens // max(1, int(lengths[places[start]])))
        yield job.taught.lesson(places[start:stop])
        start = stop


def out_of_patience(stage: Distil, state: State) -> bool:
    """Whether too many validations have passed without a lower loss."""
    return stage.patience is not None and state["worse"] >= stage.patience


def is_last(job: Distilling, state: State) -> bool:
    """Whether there is no step to come."""
    return int(state["step"]) == len(job.cycles) or out_of_patience(job.stage, state)


def write_step(job: Distilling, state: State, figures: Figures, wishes: Wishes) -> bool:
    """Add the step to the curve and save a checkpoint where one is due; whether it was."""
    regular = int(state["step"]) % job.stage.save_every_steps == 0
    save = wishes.stop or wishes.save or regular or is_last(job, state)
    record_step(
        job.folder, figures, state, job.named, job.optimizer, keep_last=job.stage.keep_last, save=save
    )
    if save:
        remove_beaten(job.folder)
    return save


def facts(job: Distilling, state: State) -> dict[str, object]:
    """What a finished stage says of itself; the loss and the cosine of each cycle's end among it."""
    curve = {int(figures["step"]): figures for figures in read_curve(job.folder / CURVE)}
    ends = [curve[step] for step in job.cycles.cycle_ends if step in curve]
    of_ends = [{name: end[name] for name in ("cycle", "step", LOSS, COSINE)} for end in ends]
    best = {"step": state["best_step"], **{name: curve[state["best_step"]][name] for name in (LOSS, COSINE)}}
    return {
        "steps": len(curve),
        "steps_planned": len(job.cycles),
        "tokens": sum(int(figures["tokens"]) for figures in curve.values()),
        **speed(list(curve.values())),
        "cycles": of_ends,
        "best": best,
    }
