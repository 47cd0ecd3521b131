"""What a run file means, for a person: sources, stages, and objectives as formulas."""

from collections.abc import Iterable, Sequence

from embedtrain.config.distilling import Distil, ModelTeacher, StoredTeacher
from embedtrain.config.formula import objective_formula, switches_line
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.references import references
from embedtrain.config.schema import Run
from embedtrain.config.soups import Mean, Slerp, Soup
from embedtrain.config.stages import AnyStage, Evaluate, Export, Filter, Train


def describe_run(run: Run) -> str:
    """The whole run in a page of text."""
    parts = [
        f"{run.name}: {model_line(run)}",
        f"precision {run.precision}, seed {run.seed}, written to {run.folder}/{run.name}",
        table(("source", "share", "rows", "tokens"), source_rows(run)),
        table(("stage", "kind", "reads", "does"), stage_rows(run)),
        "\n".join(objective_lines(run)),
        "\n".join(switch_lines(run)),
    ]
    return "\n\n".join(part for part in parts if part)


def model_line(run: Run) -> str:
    """The base and how it becomes an encoder."""
    cut = f", first {run.base.keep_first_layers} layers" if run.base.keep_first_layers else ""
    return f"{run.base.model}{cut}, {run.encoder.attention} attention, {run.encoder.pooling} pooling"


def source_rows(run: Run) -> list[tuple[str, ...]]:
    """Each source, its share of the batches, its file and its limits (query + document)."""
    total = sum(source.weight for source in run.sources.values()) or 1
    rows: list[tuple[str, ...]] = []
    for name, source in run.sources.items():
        query = source.max_query_tokens or run.text.max_query_tokens
        document = source.max_document_tokens or run.text.max_document_tokens
        file = source.rows + (" (symmetric)" if source.symmetric else "")
        limits = f"{query} + {query if source.symmetric else document}"
        rows.append((name, f"{100 * source.weight / total:.0f} %", file, limits))
    return rows


def stage_rows(run: Run) -> list[tuple[str, ...]]:
    """Each stage with what it reads and does."""
    rows: list[tuple[str, ...]] = []
    for index, stage in enumerate(run.stages):
        names = list(dict.fromkeys(reference.name for reference in references(run, index)))
        reads = ", ".join(names) if len(names) <= 3 else f"{len(names)} stages"
        rows.append((stage.name, stage.kind, reads, stage_line(stage)))
    return rows


def stage_line(stage: AnyStage) -> str:
    """What one stage does, in a few words."""
    match stage:
        case Train():
            tuning = f"LoRA rank {stage.lora.rank}" if stage.tuning == "lora" else "all weights"
            rate = f"lr {stage.lr:g} ({stage.schedule.kind})"
            length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs:g} epochs"
            return f"{length} of {stage.batch_size} rows, {rate}, {tuning}"
        case Filter():
            return "rows without " + ", ".join(filter_rules(stage))
        case Mine():
            found = ", ".join(judge.column for judge in stage.judges)
            return f"{stage.top_k} candidates of each query by {found}"
        case Score():
            return "scores by " + ", ".join(teacher.column for teacher in stage.teachers)
        case Select():
            ranks = f"ranks {stage.first_rank} to {stage.last_rank}"
            rules = ", ".join(rule.kind for rule in stage.rules) or "no rule"
            return f"{stage.num_negatives} negatives a row, {ranks}, {rules}"
        case Export():
            pair = f", documents by {stage.documents.model}" if stage.documents else ""
            return stage.precision + (f", {stage.attention} attention" if stage.attention else "") + pair
        case Evaluate():
            return f"on {', '.join(stage.data + stage.in_domain_data)}"
        case Soup():
            return soup_line(stage)
        case Distil():
            epochs = f"{stage.cycles} x {stage.epochs_per_cycle:g} epochs"
            return f"vectors of {teacher_name(stage)}, {epochs} of {stage.batch_size} texts, lr {stage.lr:g}"


def teacher_name(stage: Distil) -> str:
    """The teacher, as a person would name it."""
    match stage.teacher:
        case ModelTeacher():
            return stage.teacher.model
        case StoredTeacher():
            return stage.teacher.folder
        case _:
            return stage.teacher.model or stage.teacher.url


def soup_line(stage: Soup) -> str:
    """How checkpoints become one."""
    weights = stage.method.weights if isinstance(stage.method, Mean | Slerp) else None
    shares = f", weights {', '.join(f'{weight:g}' for weight in weights)}" if weights else ""
    return f"{stage.method.kind} of {len(stage.from_)}{shares}"


def filter_rules(stage: Filter) -> list[str]:
    """What a filter stage takes out, in words."""
    switches = {
        "exact duplicates": stage.exact_duplicates,
        "near duplicates": stage.near_duplicates,
        "queries that are positives": stage.query_is_positive,
        "false negatives": stage.false_negatives,
        "control characters": stage.control_characters,
        "other languages": stage.languages,
        "short texts": stage.min_query_words or stage.min_positive_words,
        "test data": stage.test_data,
    }
    return [name for name, on in switches.items() if on]


def objective_lines(run: Run) -> list[str]:
    """The formula of each distinct objective, led by the stages that minimise it."""
    stages: dict[str, list[str]] = {}
    for stage in run.stages:
        if isinstance(stage, Train):
            formula = objective_formula(stage.objective) + teacher_line(stage)
            stages.setdefault(formula, []).append(stage.name)
    return [f"{', '.join(names)}: {formula}" for formula, names in stages.items()]


def teacher_line(stage: Train) -> str:
    """A line for the teacher of a stage; empty where there is none."""
    if stage.teacher is None:
        return ""
    cut = f", {stage.teacher.max_tokens} tokens a text" if stage.teacher.max_tokens else ""
    return f"\n  teacher: {stage.teacher.model}{cut}"


def switch_lines(run: Run) -> list[str]:
    """The switches that sources set for their own batches."""
    lines = [switches_line(name, source.blocks) for name, source in run.sources.items() if source.blocks]
    return [line for line in lines if line]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a header, columns aligned; empty where there are no rows."""
    lines = [tuple(row) for row in rows]
    if not lines:
        return ""
    lines.insert(0, tuple(header))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
