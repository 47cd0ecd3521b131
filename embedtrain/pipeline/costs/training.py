"""What train and distil stages cost."""

from collections.abc import Mapping
from dataclasses import replace

from embedtrain.config.check import find, sources_of
from embedtrain.config.costs import (
    FLOAT32,
    STATES,
    Range,
    Step,
    Tuning,
    batch_bytes,
    encoding_bytes,
    fixed_bytes,
    forward_flops,
    graphs_bytes,
    tokens_within,
    training_bytes,
    training_flops,
)
from embedtrain.config.distilling import Distil, StoredTeacher
from embedtrain.config.errors import UserError
from embedtrain.config.fitting import num_negatives
from embedtrain.config.mining import Select
from embedtrain.config.references import teacher_of
from embedtrain.config.retrievers import EndpointJudge
from embedtrain.config.shapes import Shape
from embedtrain.config.stages import Train
from embedtrain.config.tuning import Lora, TeacherModel
from embedtrain.mixture import num_steps
from embedtrain.pipeline.costs.models import Model, model_of, outside_model, tuned
from embedtrain.pipeline.costs.setting import Cost, Setting
from embedtrain.pipeline.costs.texts import Pile, count_texts
from embedtrain.stages.shares import stage_shares

USED_FRACTION = {"cuda": 0.8, "cpu": 0.5, "mps": 0.5}
"""Of free memory, which kept graphs take at most: as `train.memory` does it."""
FIT_TEXTS = 4096
"""Texts that a fitted projection is fitted to."""


def tuning_of(stage: Train | Distil, model: Model, shape: Shape) -> Tuning:
    """What of a model of this shape trains in a stage."""
    if stage.tuning == "full":
        return Tuning(model.precision)
    lora: Lora = stage.lora
    adapted = [m for m in shape.matrices() if lora.targets == "all_linear" or m.name in lora.targets]
    return Tuning(model.precision, shape.adapters(lora), lora.rank * len(adapted))


def train_cost(setting: Setting, stage: Train) -> Cost:
    """Steps on rows: tokens from each source's share, kept graphs as far as memory is known to hold them."""
    run, machine = setting.run, setting.machine
    start = model_of(run, stage.from_)
    what = f"{stage.tuning} {start.shape.parameters / 1e6:,.0f}M" if start.shape else stage.tuning
    try:
        shares = stage_shares(run, stage, setting.finished)
    except (UserError, OSError):
        return Cost(what, tokens=None)
    texts = {name: setting.texts(stage, name) for name in shares}
    known = {name: one for name, one in texts.items() if one is not None}
    if len(known) < len(texts) or not known:
        return Cost(what, tokens=None)
    sizes = {name: share.size for name, share in shares.items()}
    steps = num_steps(stage, sizes)
    drawn = {name: share.drawn for name, share in shares.items()}
    tokens = sum(drawn[name] * one.of_row(num_negatives(run, stage, name)) for name, one in known.items())
    rows = max(1, sum(drawn.values()))
    documents = sum(n * (known[m].positives + num_negatives(run, stage, m)) for m, n in drawn.items()) / rows
    if start.shape is None:
        return Cost(f"{what}, {steps:,} steps", tokens=tokens)
    parts = machine.num_processes if machine.sharding == "full" else 1
    tuning = tuning_of(stage, start, start.shape)
    tuning = replace(tuning, parts=parts, quantised=run.base.load is not None)
    batch, length = stage.batch_size, tokens / (rows * (1 + documents))
    world = machine.num_processes
    step = make_step(setting, tokens / max(1, steps), length, batch, batch * documents, start.shape.hidden)
    views = len(stage.objective.terms) * (
        len(stage.objective.matryoshka.dims) if stage.objective.matryoshka else 1
    )
    step = replace(step, views=views)
    memory, kept = memory_of(setting, start.shape, tuning, step, dropout=True)
    seconds = seconds_of(setting, start.shape, tuning, tokens / world, length, steps, kept)
    taught = teacher_seconds(setting, stage.teacher, taught_tokens(setting, stage, sizes), length)
    seconds = None if seconds is None or taught is None else seconds + taught + setting.start_seconds(stage)
    passing = checkpoint_bytes(start.shape, tuning, stage.keep_last)
    disk = passing + encoder_bytes(tuned(start, stage)) * (1 + len(stage.snapshot_steps))
    return Cost(f"{what}, {steps:,} steps", tokens, seconds, memory, disk, passing)


def make_step(
    setting: Setting, tokens: float, length: float, queries: float, candidates: float, dims: int
) -> Step:
    """One process's share of a step of so many tokens in all."""
    world = setting.machine.num_processes
    local = tokens / world
    chunk = max(min(setting.machine.chunk_tokens, local), min(length, local))
    return Step(local, chunk, length, queries / world, queries, candidates, dims)


def memory_of(
    setting: Setting, shape: Shape, tuning: Tuning, step: Step, *, dropout: bool
) -> tuple[Range, float]:
    """Bytes from one chunk's graph to all that are kept, and the share of the tokens whose graphs are."""
    machine = setting.machine
    needs = training_bytes(
        shape, tuning, step, machine.device, dropout=dropout, again=machine.activation_checkpointing
    )
    if step.tokens <= step.chunk:
        return Range(needs.low, needs.low), 1.0
    graph, besides = graphs_bytes(
        shape, tuning, step, machine.device, dropout=dropout, again=machine.activation_checkpointing
    )
    held = needs.low - graph * step.chunk
    if machine.keep_tokens != "auto":
        kept_tokens = min(float(machine.keep_tokens), step.tokens)
    elif setting.memory is None:
        return Range(needs.low, needs.low), 0.0
    else:
        free = setting.memory - fixed_bytes(shape, tuning)
        more = besides + batch_bytes(step)
        kept_tokens = min(tokens_within(free * USED_FRACTION[machine.device], more, graph), step.tokens)
    return Range(needs.low, max(needs.low, held + graph * kept_tokens)), kept_tokens / step.tokens


def seconds_of(
    setting: Setting, shape: Shape, tuning: Tuning, tokens: float, length: float, steps: float, kept: float
) -> float | None:
    """Of one process's tokens and all updates; None where its speed is unknown."""
    device = setting.device(shape, tuning.precision)
    if device.rate is None:
        return None
    flops = training_flops(shape, length, tuning, kept, setting.machine.activation_checkpointing)
    return tokens * flops / device.rate + steps * tuning.trained(shape) / tuning.parts * device.update


def taught_tokens(setting: Setting, stage: Train, sizes: Mapping[str, int]) -> float | None:
    """Tokens that a train stage's teacher encodes: each text of its rows once, stored negatives included."""
    if stage.teacher is None:
        return 0.0
    select = find(setting.run, stage.rows, Select)
    total = 0.0
    for name, rows in sizes.items():
        texts = setting.texts(stage, name)
        if texts is None:
            return None
        total += rows * texts.of_row(select.num_negatives if select else texts.negatives)
    return total


def teacher_seconds(
    setting: Setting, teacher: TeacherModel | None, tokens: float | None, length: float
) -> float | None:
    """Until a teacher has encoded so many tokens; None where its shape or speed is unknown."""
    if teacher is None:
        return 0.0
    model = model_of(setting.run, teacher.model)
    if model.shape is None or tokens is None:
        return None
    rate = setting.device(model.shape, model.precision).rate
    return (
        None
        if rate is None
        else tokens * forward_flops(model.shape, length) / rate / setting.machine.num_processes
    )


def checkpoint_bytes(shape: Shape, tuning: Tuning, keep_last: int) -> float:
    """Checkpoints that are kept and the one that is being written: parameters and AdamW's states, float32."""
    return (keep_last + 1) * (1 + STATES) * FLOAT32 * tuning.trained(shape)


def encoder_bytes(model: Model) -> float:
    """An encoder on disk: its adapters alone, in float32, or all weights."""
    if model.shape is None:
        return 0.0
    if model.lora is not None and not model.folded:
        return FLOAT32 * model.adapters
    return (4 if model.precision == "float32" or model.lora is not None else 2) * model.shape.parameters


def lesson_texts(setting: Setting, stage: Distil) -> Pile | None:
    """The texts that a distil stage learns, and those it validates on, at most `max_texts` and these."""
    pile = Pile(0, 0)
    for name in sources_of(setting.run, stage) if setting.run.sources else ():
        texts, rows = setting.texts(stage, name), setting.num_rows(name)
        if texts is None or rows is None:
            return None
        negatives = texts.negatives if stage.negatives else 0.0
        pile += Pile(rows * (1 + texts.positives + negatives), rows * texts.of_row(negatives))
    if stage.texts:
        limit = stage.max_document_tokens or setting.run.text.max_document_tokens
        found = count_texts(stage.texts, limit)
        if found is None:
            return None
        pile += found
    wanted = (stage.max_texts or pile.count) + stage.held_out_texts
    share = min(1.0, wanted / pile.count) if pile.count else 0.0
    return Pile(pile.count * share, pile.tokens * share)


def distil_cost(setting: Setting, stage: Distil) -> Cost:
    """A teacher's vectors of all texts, then passes over them, each followed by a validation."""
    run = setting.run
    start, pile = model_of(run, stage.from_), lesson_texts(setting, stage)
    shape = start.shape
    what = f"{stage.tuning} {shape.parameters / 1e6:,.0f}M" if shape else stage.tuning
    if pile is None or not pile.count:
        return Cost(what, tokens=None)
    length = pile.tokens / pile.count
    learned = max(1.0, pile.count - stage.held_out_texts)
    epochs = stage.cycles * stage.epochs_per_cycle
    steps = learned * epochs / stage.batch_size
    tokens = learned * length * epochs
    named = teacher_of(stage)
    teacher = model_of(run, named[1].model) if named else outside_model("")
    what = f"{what}, {steps:,.0f} steps"
    if shape is None:
        return Cost(what, tokens + pile.tokens)
    tuning = tuning_of(stage, start, shape)
    step = make_step(
        setting, stage.batch_size * length, length, stage.batch_size, 0, teacher.dims or shape.hidden
    )
    memory, _ = memory_of(setting, shape, tuning, step, dropout=stage.dropout)
    memory = Range(memory.low, memory.low)  # no step waits for another: a chunk's graph is let go at once
    if teacher.shape is not None:
        encoding = encoding_bytes(teacher.shape, teacher.precision, setting.machine.encode_tokens)
        memory = Range(max(memory.low, encoding), max(memory.high, encoding))
    seconds = seconds_of(setting, shape, tuning, tokens / setting.machine.num_processes, length, steps, 1.0)
    taught = teacher_seconds(setting, named[1] if named else None, pile.tokens, length)
    if isinstance(stage.teacher, EndpointJudge):
        taught = None
    checks = validation_seconds(setting, shape, stage, length, epochs)
    known = [part for part in (seconds, taught, checks) if part is not None]
    total = sum(known) + setting.start_seconds(stage) if len(known) == 3 else None
    vectors = pile.count * (teacher.dims or shape.hidden) * (4 if stage.vector_precision == "float32" else 2)
    stored = 1 if isinstance(stage.teacher, StoredTeacher) else 2
    passing = checkpoint_bytes(shape, tuning, stage.keep_last) + vectors + FLOAT32 * pile.tokens
    disk = passing + (stored - 1) * vectors + FLOAT32 * shape.parameters
    return Cost(what, tokens + pile.tokens, total, memory, disk, passing)


def validation_seconds(
    setting: Setting, shape: Shape, stage: Distil, length: float, epochs: float
) -> float | None:
    """Of held-out texts, encoded at the end of every epoch and cycle; and of a fitted projection."""
    rate = setting.device(shape, setting.run.precision).rate
    if rate is None:
        return None
    texts = stage.held_out_texts * max(epochs, stage.cycles)
    texts += FIT_TEXTS if stage.projection == "fitted" else 0
    return texts * length * forward_flops(shape, length) / rate / setting.machine.num_processes
