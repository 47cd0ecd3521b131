"""What soup, export and evaluate stages cost."""

from collections.abc import Sequence

from embedtrain.config.costs import BYTES, FLOAT32, PROCESS_BYTES, Range, encoding_bytes, forward_flops
from embedtrain.config.soups import Cocktail, Greedy, Soup
from embedtrain.config.stages import Evaluate, Export
from embedtrain.pipeline.costs.models import Model, model_of
from embedtrain.pipeline.costs.setting import Cost, Setting
from embedtrain.pipeline.costs.texts import Pile, count_texts

AVERAGE_SECONDS = 25e-9
"""Of a number of an ingredient: read, merged, averaged, written."""
WRITE_SECONDS = 20e-9
"""Of a number of an export: read twice, hashed, merged, written, and read again by sentence-transformers."""
PADDING = 1.4
"""Tokens that sentence-transformers computes for a real one."""
PROOF_FACTOR = 3.0
"""The same of an export's proof, whose vectors are float64."""
EXPORT_SECONDS = 3.0
"""To open both and to prove the attention."""
PROOF_TEXTS = 40
"""Texts of an export's proof besides those asked for: unusual ones and a long one, of each prompt."""
OPEN_SECONDS = 1.0
TASK_SECONDS = 0.5
"""Metrics and intervals of a task."""
BATCH_TEXTS = 32
REPORT_BYTES = 1e6


def soup_cost(setting: Setting, stage: Soup) -> Cost:
    """Tensor by tensor, all ingredients; methods that judge encode as well, which is not counted."""
    model = model_of(setting.run, stage.from_[0])
    what = f"{stage.method.kind} of {len(stage.from_)}"
    if model.shape is None:
        return Cost(what)
    weights = FLOAT32 * model.shape.parameters
    memory = PROCESS_BYTES["cpu"] + weights
    seconds = model.shape.parameters * len(stage.from_) * AVERAGE_SECONDS + setting.start_seconds(stage)
    judges = isinstance(stage.method, Greedy | Cocktail)
    return Cost(what, 0.0, None if judges else seconds, Range(memory, memory), weights)


def export_cost(setting: Setting, stage: Export) -> Cost:
    """Weights merged and written once; texts encoded by the encoder and by sentence-transformers."""
    model = model_of(setting.run, stage.from_)
    beside = model_of(setting.run, stage.documents.model) if stage.documents else None
    if model.shape is None:
        return Cost(stage.precision)
    shape, limit = model.shape, stage.max_tokens or setting.run.text.max_document_tokens
    texts = [setting.texts(stage, name) for name in setting.run.sources]
    known = [one for one in texts if one is not None]
    length = (
        min(limit, sum((one.query + one.document) / 2 for one in known) / len(known)) if known else limit / 4
    )
    tokens = 2 * (stage.num_parity_texts + 2) * length + 2 * PROOF_TEXTS * length + 4 * limit
    written = BYTES[stage.precision] * shape.parameters
    held = BYTES[model.precision] * shape.parameters + written
    rate = setting.device(shape, model.precision).rate
    seconds = None
    if rate is not None:
        seconds = tokens * PROOF_FACTOR * forward_flops(shape, length) / rate + EXPORT_SECONDS
        seconds += shape.parameters * WRITE_SECONDS + setting.start_seconds(stage)
    if beside is not None:
        if beside.shape is None:
            return Cost(f"{stage.precision}, router", tokens)
        written += written + FLOAT32 * beside.shape.parameters
        held += FLOAT32 * beside.shape.parameters
        seconds = None if seconds is None else seconds + 2 * OPEN_SECONDS
    memory = PROCESS_BYTES[setting.machine.device] + held
    return Cost(
        stage.precision + (", router" if beside else ""), tokens, seconds, Range(memory, memory), written
    )


def evaluate_cost(setting: Setting, stage: Evaluate) -> Cost:
    """Every model encodes the texts of its tasks, padded; all stay in memory until the table is made."""
    whole = [model_of(setting.run, name) for name in stage.models]
    partly = [model_of(setting.run, name) for name in stage.intermediate]
    models, limit = [*whole, *partly], longest_text(setting)
    what = f"{len(models)} model{'s' * (len(models) > 1)}"
    held = held_bytes(setting, models, limit)
    tasks = [count_texts([path], limit) for path in (*stage.data, *stage.in_domain_data)]
    found = [pile for pile in tasks if pile is not None]
    if stage.mteb or len(found) < len(tasks) or not found:
        return Cost(what, None, None, None if held is None else Range(held, held))
    total = sum(found, Pile(0, 0))
    share = min(1.0, (stage.max_tokens_per_model or total.tokens) / total.tokens)
    tokens = [share * total.tokens] * len(whole) + [share * found[0].tokens] * len(partly)
    times = [
        encode_seconds(setting, model, count, total.tokens / total.count)
        for model, count in zip(models, tokens, strict=True)
    ]
    known = [time for time in times if time is not None]
    seconds = sum(known) + TASK_SECONDS * (len(found) * len(whole) + len(partly))
    vectors = sum(total.count * share * (model.dims or 0) * FLOAT32 for model in models)
    memory = None if held is None else held + (0.0 if setting.machine.device == "cuda" else vectors)
    return Cost(
        what,
        sum(tokens),
        seconds + setting.start_seconds(stage) if len(known) == len(times) else None,
        None if memory is None else Range(memory, memory),
        REPORT_BYTES,
    )


def longest_text(setting: Setting) -> int:
    """Tokens that the run's exports take of a text."""
    limits = [one.max_tokens for one in setting.run.stages if isinstance(one, Export) and one.max_tokens]
    return max([setting.run.text.max_document_tokens, *limits])


def held_bytes(setting: Setting, models: Sequence[Model], limit: int) -> float | None:
    """Weights of all models, and one batch of texts; None where a shape is unknown."""
    shapes = [(model.shape, model.precision) for model in models if model.shape]
    if len(shapes) < len(models):
        return None
    weights = sum(BYTES[precision] * shape.parameters for shape, precision in shapes)
    batches = [
        encoding_bytes(shape, precision, BATCH_TEXTS * limit) - BYTES[precision] * shape.parameters
        for shape, precision in shapes
    ]
    return PROCESS_BYTES[setting.machine.device] + weights + max(batches)


def encode_seconds(setting: Setting, model: Model, tokens: float, length: float) -> float | None:
    """Until sentence-transformers has opened a model and encoded so many tokens; None where unknown."""
    rate = setting.device(model.shape, model.precision).rate if model.shape else None
    if model.shape is None or rate is None:
        return None
    return OPEN_SECONDS + PADDING * tokens * forward_flops(model.shape, length) / rate
