"""What is wrong with a run beyond its schema: references, files, sizes. Reads footers at most; no torch."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from embedtrain.config.distilling import Distil
from embedtrain.config.errors import ConfigError, nearest
from embedtrain.config.faults import Fault, Location, place
from embedtrain.config.fitting import objective_faults
from embedtrain.config.inputs import (
    CountRows,
    SourceRows,
    ValidateTemplate,
    base_faults,
    distil_faults,
    evaluate_faults,
    missing,
    soup_faults,
    teacher_faults,
    template_faults,
    test_data_faults,
)
from embedtrain.config.judging import mine_faults, score_faults, select_faults
from embedtrain.config.load import document, examine, read_document, resolved
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.references import name_faults, reference_faults, repeated
from embedtrain.config.schema import Machine, Run
from embedtrain.config.soups import Soup
from embedtrain.config.stages import Evaluate, Export, Filter, Train

Kind = TypeVar("Kind", Select, Mine, Score, Filter)


def read_config(
    path: Path | str,
    overrides: Sequence[str] = (),
    machine_path: Path | str | None = None,
    *,
    count_rows: CountRows,
    validate_template: ValidateTemplate,
    starts: bool = False,
) -> tuple[Run, Machine]:
    """The run and the machine, checked. Raises ConfigError with every fault of both files at once.

    Whether the two fit is asked where a machine is named, or where stages are to start (`starts`).
    `count_rows` and `validate_template` are lent by the rooms above, which know rows and templates.
    """
    run_file = read_document(path, overrides)
    machine_file = read_document(machine_path) if machine_path else document({}, {}, "machine")
    run, wrong = examine(run_file, Run)
    machine, machine_wrong = examine(machine_file, Machine)
    if run is not None:
        told = [fault.location for fault in wrong]
        more = run_faults(run, count_rows, validate_template)
        if machine is not None and (machine_path or starts):
            more += fit_faults(run, machine)
        wrong += [fault for fault in more if not fault.follows(told)]
    if machine is not None:
        machine_wrong += machine_faults(machine)
    if wrong or machine_wrong or run is None or machine is None:
        raise ConfigError(run_file.messages(wrong) + machine_file.messages(machine_wrong))
    return run, machine


def check_run(
    run: Run,
    path: Path | str,
    *,
    count_rows: CountRows,
    validate_template: ValidateTemplate,
) -> list[str]:
    """Everything wrong with a run that the schema allows, one message a fault."""
    data = resolved(run)
    wrong = run_faults(run, count_rows, validate_template)
    return [f"{path}: {place(fault.location, data)}: {fault.text}" for fault in wrong]


def run_faults(run: Run, count_rows: CountRows, validate_template: ValidateTemplate) -> list[Fault]:
    """All faults of a run, from its base to its sizes."""
    counts = SourceRows(run, count_rows)
    return [
        *base_faults(run),
        *template_faults(run, validate_template),
        *counts.faults(),
        *name_faults(run),
        *reference_faults(run),
        *stage_faults(run, counts),
    ]


def stage_faults(run: Run, counts: SourceRows) -> Iterator[Fault]:
    """What a stage asks for and cannot get."""
    for index, stage in enumerate(run.stages):
        here: Location = ("stages", index)
        if isinstance(stage, Train | Mine | Filter | Distil):
            yield from source_faults(run, stage, here)
        if isinstance(stage, Train):
            yield from train_faults(run, stage, here, counts)
            yield from objective_faults(run, stage, here, sources_of(run, stage))
            yield from teacher_faults(run, stage, here)
            yield from snapshot_faults(stage, here)
            if stage.validation:
                yield from test_data_faults(stage.validation.data, (*here, "validation", "data"))
        elif isinstance(stage, Distil):
            yield from distil_faults(run, stage, here)
        elif isinstance(stage, Soup):
            yield from soup_faults(stage, here)
        elif isinstance(stage, Mine):
            yield from mine_faults(run, stage, here)
        elif isinstance(stage, Score):
            yield from score_faults(run, stage, here, find(run, stage.candidates, Mine))
        elif isinstance(stage, Select):
            mine, score = find(run, stage.candidates, Mine), find(run, stage.scores, Score)
            yield from select_faults(stage, here, mine, score)
        elif isinstance(stage, Evaluate):
            yield from evaluate_faults(run, stage, here)
        elif isinstance(stage, Filter):
            yield from test_data_faults(stage.test_data, (*here, "test_data"))
        elif isinstance(stage, Export):
            yield from example_faults(run, stage, here)
            yield from teacher_faults(run, stage, here)


def sources_of(run: Run, stage: Train | Mine | Filter | Distil) -> list[str]:
    """Names of the sources that a stage reads."""
    if stage.sources is not None:
        return [name for name in stage.sources if name in run.sources]
    return [name for name, source in run.sources.items() if source.weight > 0]


def source_faults(run: Run, stage: Train | Mine | Filter | Distil, here: Location) -> Iterator[Fault]:
    """Sources that are not there or carry no weight."""
    for number, name in enumerate(stage.sources or ()):
        if name not in run.sources:
            yield Fault((*here, "sources", number), f"no source '{name}'; {nearest(name, run.sources)}")
        elif run.sources[name].weight == 0:
            text = f"source '{name}' has weight 0, which leaves it out; give it a weight"
            yield Fault((*here, "sources", number), text)
    yield from repeated(stage.sources or (), (*here, "sources"))
    if isinstance(stage, Distil) and stage.texts:
        return
    if stage.sources == () or (stage.sources is None and not sources_of(run, stage)):
        yield Fault(here, "there is no source with a weight above 0 to read rows from")


def train_faults(run: Run, stage: Train, here: Location, counts: SourceRows) -> Iterator[Fault]:
    """Batches that the rows cannot fill, and negatives that nobody kept."""
    select = find(run, stage.rows, Select)
    mine = find(run, select.candidates, Mine) if select else None
    if select:
        yield from kept_faults(run, stage, here, select)
    for reader in (mine, find(run, mine.rows if mine else stage.rows, Filter)):
        lacking = [name for name in sources_of(run, stage) if reader and name not in sources_of(run, reader)]
        if reader and lacking:
            verb = "mine" if isinstance(reader, Mine) else "read"
            who = "it" if reader.name == stage.rows else f"'{reader.name}'"
            text = f"'{stage.rows}' has no rows of {', '.join(lacking)}, which {who} does not {verb}"
            yield Fault((*here, "sources" if stage.sources else "rows"), text)
            break
    yield from size_faults(run, stage, here, counts, mine)


def kept_faults(run: Run, stage: Train, here: Location, select: Select) -> Iterator[Fault]:
    """More negatives a row than the select stage keeps."""
    asked: dict[Location, int] = {(*here, "num_negatives"): stage.num_negatives}
    for name in sources_of(run, stage):
        asked[("sources", name, "num_negatives")] = run.sources[name].num_negatives or 0
    for spot, number in asked.items():
        if number > select.num_negatives:
            text = f"found {number}, and '{select.name}' keeps only {select.num_negatives} a row"
            yield Fault(spot, text)


def snapshot_faults(stage: Train, here: Location) -> Iterator[Fault]:
    """Snapshots that are asked for after the last step."""
    for number, step in enumerate(stage.snapshot_steps):
        if stage.steps is not None and step > stage.steps:
            yield Fault(
                (*here, "snapshot_steps", number), f"found {step}, and the stage has {stage.steps} steps"
            )


def size_faults(
    run: Run, stage: Train, here: Location, counts: SourceRows, mine: Mine | None
) -> Iterator[Fault]:
    """Batches of one source that are larger than what the source has."""
    if stage.mixture.batches.kind != "one_source":
        return
    for name in sources_of(run, stage):
        own = run.sources[name].batch_size
        size = own or stage.batch_size
        spot: Location = ("sources", name, "batch_size") if own else (*here, "batch_size")
        if mine and mine.max_rows and size > mine.max_rows:
            yield Fault(spot, f"found {size}, and '{mine.name}' mines only {mine.max_rows} rows a source")
        elif size > (rows := counts.rows(name)):
            yield Fault(spot, f"found {size}, and source '{name}' has only {rows} rows")


def example_faults(run: Run, stage: Export, here: Location) -> Iterator[Fault]:
    """Examples in an exported prompt whose source is not there, or has no examples."""
    for name, number in stage.few_shot_examples.items():
        spot = (*here, "few_shot_examples", name)
        if name not in run.sources:
            yield Fault(spot, f"no source '{name}'; {nearest(name, run.sources)}")
        elif (few_shot := run.sources[name].few_shot) is None:
            yield Fault(spot, f"source '{name}' has no few_shot section")
        elif number > few_shot.max_examples:
            text = f"found {number}, and source '{name}' trains with at most {few_shot.max_examples}"
            yield Fault(spot, text)


def find(run: Run, name: str | None, kind: type[Kind]) -> Kind | None:
    """The stage of that name and class, where there is one."""
    return next((stage for stage in run.stages if stage.name == name and isinstance(stage, kind)), None)


def fit_faults(run: Run, machine: Machine) -> Iterator[Fault]:
    """What a run asks of a machine and cannot have there."""
    if run.precision == "bfloat16" and machine.device == "cpu":
        text = (
            "bfloat16 needs a GPU, and the machine's device is 'cpu'; write float32 or name another machine"
        )
        yield Fault(("precision",), text)
    if run.base.load is not None:
        yield from quantised_faults(run, machine)
    for index, stage in enumerate(run.stages):
        if isinstance(stage, Train | Distil) and stage.batch_size < machine.num_processes:
            text = f"found {stage.batch_size}, fewer than the machine's {machine.num_processes} processes"
            yield Fault(("stages", index, "batch_size"), text)


def quantised_faults(run: Run, machine: Machine) -> Iterator[Fault]:
    """A base in 4 bits where it cannot be: off an NVIDIA GPU, shared out, or below weights that train."""
    here: Location = ("base", "load")
    if machine.device != "cuda":
        yield Fault(here, f"found nf4, which needs device 'cuda', and the machine's is '{machine.device}'")
    if machine.sharding == "full":
        yield Fault(here, "found nf4, and the machine's sharding is 'full'; 4-bit weights are not shared out")
    for index, stage in enumerate(run.stages):
        if isinstance(stage, Train | Distil) and stage.tuning == "full":
            text = "found full, and base.load is 'nf4': 4-bit weights do not train; write lora"
            yield Fault(("stages", index, "tuning"), text)


def machine_faults(machine: Machine) -> list[Fault]:
    """What a machine file asks for and cannot have."""
    path = machine.accelerate_config
    wrong = [Fault(("accelerate_config",), text)] if path and (text := missing(path)) else []
    return wrong + [
        Fault(("trackers", number), f"'{name}' is not installed here: pip install 'embedtrain[{name}]'")
        for number, name in enumerate(machine.trackers)
        if find_spec(name) is None
    ]
