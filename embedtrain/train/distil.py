"""The loop of a distil stage: each text's vector is brought nearer to its teacher's.

Nothing random outlives a step, as in `embedtrain.train.loop`, so a resumed run is the uninterrupted one,
number for number. The loss is a sum over texts, so a chunk is carried into the parameters at once.

Dimensions: N local texts, K dims of the teacher's vectors.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from embedtrain.artifacts import hash_json, read_json
from embedtrain.batch import unit
from embedtrain.collate import hash_seed
from embedtrain.config.distilling import Distil
from embedtrain.config.schema import Machine
from embedtrain.dist import barrier, current, mean_over_processes
from embedtrain.loss.embed_distill import DISTANCES
from embedtrain.model.checkpoint import save_tensors
from embedtrain.model.compiled import compiled_layers
from embedtrain.model.encoder import Encoder
from embedtrain.model.packed import copied
from embedtrain.show.progress import progress
from embedtrain.train.checkpoint import STATE, State, load_checkpoint, newest_checkpoint, save_checkpoint
from embedtrain.train.cycles import Cycles
from embedtrain.train.feed import feed
from embedtrain.train.interrupt import Stopped, interruptible
from embedtrain.train.log import Figures, append_curve, cut_curve, read_curve, speed, warm_up
from embedtrain.train.measures import Done, step_measures
from embedtrain.train.memory import memory_faults
from embedtrain.train.place import place_encoder
from embedtrain.train.schedule import make_optimizer
from embedtrain.train.step import exact_dtype
from embedtrain.train.taught import Lesson, Taught
from embedtrain.train.trackers import tracking
from embedtrain.train.update import update

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


def distil(
    encoder: Encoder, taught: Taught, stage: Distil, machine: Machine, folder: Path, seed: int
) -> dict[str, object]:
    """Train the encoder in place, as `spec.normalize` says for vectors of length 1 or raw ones; facts.

    Goes on from the newest whole checkpoint in the folder, which receives `curve.jsonl`, `checkpoints/` and,
    with patience, `best/`. Raises Stopped, after a checkpoint, when asked to stop.
    """
    job = prepare(encoder, taught, stage, machine, folder, seed)
    state, total = resume(job), len(job.cycles)
    first = int(state["step"])
    title = f"distil {stage.name}" + (f" from step {first}" if first else "")
    with (
        interruptible() as asked,
        progress(title, total=total - first, unit="step") as bar,
        compiled_layers(encoder, machine.compile),
        tracking(stage, machine, job.folder, first) as trackers,
        feed(partial(local_lesson, job), range(first, total), device=encoder.device) as lessons,
    ):
        while int(state["step"]) < total and not out_of_patience(stage, state):
            with memory_faults(f"stage '{stage.name}', step {state['step'] + 1}", machine):
                figures, stop = do_step(job, int(state["step"]), lessons, asked.is_set())
            if machine.compile and state["step"] == first:
                figures |= warm_up(figures)
            state["step"] += 1
            figures |= validate(job, state)
            write_step(job, state, figures, stop)
            trackers.log(figures)
            bar.advance(
                1, **{name: figures[name] for name in ("loss", "lr", LOSS, COSINE) if name in figures}
            )
            if stop and state["step"] < total:
                step = state["step"]
                raise Stopped(f"stopped at step {step} of {total}; run the same command to resume")
    keep_best(job, state)
    return facts(job, state)


def prepare(
    encoder: Encoder, taught: Taught, stage: Distil, machine: Machine, folder: Path, seed: int
) -> Distilling:
    """Put the student on its device, and plan the steps."""
    accelerator = Accelerator(cpu=machine.device == "cpu")
    named = place_encoder(encoder, accelerator.device, machine, dropout=stage.dropout)
    cycles = Cycles(len(taught.written.training), stage, seed)
    optimizer = make_optimizer(named, stage)
    return Distilling(encoder, stage, machine, taught, cycles, accelerator, named, optimizer, folder)


def identify(job: Distilling) -> str:
    """A hash of what the numbers depend on: nothing goes on from a checkpoint of another."""
    return hash_json(
        {
            "stage": job.stage.model_dump(mode="json"),
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
    checkpoint, messages = newest_checkpoint(job.folder / "checkpoints")
    identity = identify(job)
    state: State = {"step": 0, "identity": identity, "best_step": 0, "best_loss": None, "worse": 0}
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, identity, job.named, job.optimizer)
    if current().rank == 0:
        print("".join(f"{message}\n" for message in messages), end="", file=sys.stderr)
        job.folder.mkdir(parents=True, exist_ok=True)
        cut_curve(job.folder / "curve.jsonl", int(state["step"]))
    barrier()
    return state


def local_lesson(job: Distilling, step: int) -> Lesson:
    """This process's share of a step's texts: every so many-th, by length, so that shares cost alike."""
    written, here = job.taught.written, current()
    places = written.training[job.cycles.texts(step)]
    places = places[np.argsort(-written.lengths_W[places], kind="stable")]
    return job.taught.lesson(places[here.rank :: here.world])


def do_step(job: Distilling, step: int, lessons: Iterator[Lesson], asked: bool) -> tuple[Figures, bool]:
    """A step on the next texts: its line of the curve, and whether a process was asked to stop."""
    start, stage, device = time.monotonic(), job.stage, job.accelerator.device
    tokens, targets_NK = next(lessons)
    feed_seconds = time.monotonic() - start
    targets_NK = copied(targets_NK, device)
    torch.manual_seed(hash_seed(job.cycles.seed, step, current().rank))  # dropout draws from it
    job.optimizer.zero_grad()
    mean_count, normalize = stage.batch_size / current().world, job.encoder.spec.normalize
    total = torch.zeros((), dtype=exact_dtype(device), device=device)
    for rows, part in tokens.chunks(job.machine.chunk_tokens, padded=job.encoder.padded is not None):
        wanted_NK = targets_NK[copied(rows, device)]
        summed = distances(job.encoder(part), wanted_NK, stage.distance, normalize).sum()
        (summed / mean_count).backward()
        total += summed.detach()
    lr, where = stage.lr * job.cycles.lr_factor(step), f"stage '{stage.name}', step {step + 1}"
    norm = update(job.accelerator, job.optimizer, job.named, stage.max_gradient_norm, lr, where)
    figures = torch.stack([total / mean_count, total.new_tensor(tokens.num_tokens), total.new_tensor(asked)])
    loss, mean_tokens, stop = mean_over_processes(figures).tolist()
    world = current().world
    num_tokens, seconds = round(mean_tokens * world), time.monotonic() - start
    return {
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
    }, stop > 0


def distances(vectors_NK: Tensor, targets_NK: Tensor, distance: str, normalize: bool) -> Tensor:
    """The distance of each vector to its teacher's (N), of unit vectors for a cosine or where `normalize`."""
    y_NK = vectors_NK if vectors_NK.dtype == torch.float64 else vectors_NK.float()
    targets_NK = targets_NK.to(y_NK)
    if normalize or distance == "cosine":
        y_NK, targets_NK = unit(y_NK), unit(targets_NK)
    return DISTANCES[distance](y_NK, targets_NK)


def validate(job: Distilling, state: State) -> Figures:
    """Loss and mean cosine on held-out texts where an epoch or a cycle ends; the best loss is noted."""
    step = int(state["step"])
    if not job.cycles.is_validated(step):
        return {}
    loss, cosine = measure(job)
    if state["best_loss"] is None or loss < state["best_loss"]:
        state |= {"best_step": step, "best_loss": loss, "worse": 0}
        if job.stage.patience is not None and current().rank == 0:
            best_file(job, step).parent.mkdir(exist_ok=True)
            save_tensors({name: p.detach() for name, p in job.named}, best_file(job, step))
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


def write_step(job: Distilling, state: State, figures: Figures, stop: bool) -> None:
    """The first process adds the step to the curve and saves a checkpoint where one is due; others wait."""
    step, stage = int(state["step"]), job.stage
    last = step == len(job.cycles) or out_of_patience(stage, state)
    due = stop or last or step % stage.save_every_steps == 0
    if current().rank == 0:
        append_curve(job.folder / "curve.jsonl", figures)
        if due:
            save_checkpoint(job.folder / "checkpoints", state, job.named, job.optimizer, stage.keep_last)
            remove_beaten(job)
    if due:
        barrier()


def best_file(job: Distilling, step: int) -> Path:
    """The parameters after a step that was the best so far."""
    return job.folder / "best" / f"step-{step:06d}.safetensors"


def remove_beaten(job: Distilling) -> None:
    """Remove parameters that were the best once, and are so to no checkpoint that is kept."""
    states = map(read_json, (job.folder / "checkpoints").glob(f"step-*/{STATE}"))
    wanted = {best_file(job, state["best_step"]) for state in states}
    for file in set((job.folder / "best").glob("step-*.safetensors")) - wanted:
        file.unlink()


def keep_best(job: Distilling, state: State) -> None:
    """With patience, the student is the one of the best validation; only the first process needs it."""
    if job.stage.patience is None or current().rank != 0:
        return
    best = load_file(best_file(job, state["best_step"]))
    with torch.no_grad():
        for name, parameter in job.named:
            parameter.copy_(best[name])


def facts(job: Distilling, state: State) -> dict[str, object]:
    """What a finished stage says of itself; the loss and the cosine of each cycle's end among it."""
    curve = {int(figures["step"]): figures for figures in read_curve(job.folder / "curve.jsonl")}
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
