"""What an ablation will do: its models by variant and seed, and every fault before anything starts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from embedtrain.ablation.variants import RunFile, Variant, behind, cut_run, seed_overrides
from embedtrain.config.ablations import Ablation
from embedtrain.config.distilling import Distil
from embedtrain.config.errors import ConfigError, nearest
from embedtrain.config.inputs import data_fault, missing
from embedtrain.config.schema import Run
from embedtrain.config.stages import Evaluate, Export, Train
from embedtrain.pipeline import StagePlan, plan_run

FULL, CONTROL = "full recipe", "control"
FOLDER = "ablations"


@dataclass(frozen=True)
class Asked:
    """An ablation as it was asked for: its name, the file it stands in, the machine file."""

    ablation: Ablation
    name: str
    config: str
    machine: Path | None


@dataclass(frozen=True)
class Cell:
    """One variant with one seed: the run that makes its model, and its stages before anything was done."""

    variant: str
    seed: int
    run: Run
    planned: tuple[StagePlan, ...]

    @property
    def identity(self) -> str:
        """The name of the model's folder: the same for the same model."""
        return self.planned[-1].folder.name


@dataclass(frozen=True)
class Setup:
    """All that is known before anything starts."""

    asked: Asked
    run: Run
    model: str
    data: tuple[str, ...]
    max_tokens: int | None
    variants: tuple[Variant, ...]
    cells: tuple[Cell, ...]

    @property
    def root(self) -> Path:
        """Where stages and cells are: one folder for all ablations of a run."""
        return Path(self.cells[0].run.folder) / self.cells[0].run.name

    @property
    def tables(self) -> Path:
        """Where the table goes, where no other folder is named."""
        return self.root / "tables" / self.asked.name

    @property
    def seeds(self) -> tuple[int, ...]:
        """In the order in which they are done."""
        return self.asked.ablation.seeds

    @property
    def names(self) -> list[str]:
        """Of all variants, the full recipe first, the control last."""
        return [variant.name for variant in self.variants]

    @cached_property
    def found(self) -> Mapping[tuple[str, int], Cell]:
        """The cells by variant and seed."""
        return {(cell.variant, cell.seed): cell for cell in self.cells}

    def identities(self, seed: int) -> list[str]:
        """Of the models of one seed."""
        return [cell.identity for cell in self.cells if cell.seed == seed]


def prepare(asked: Asked) -> Setup:
    """Derive and check every variant with every seed. Raises ConfigError with all that is wrong."""
    ablation = asked.ablation
    file = RunFile(Path(ablation.run), ablation.set_, asked.machine)
    run = file.check(())
    model = ablation.model or default_model(run)
    data, max_tokens = test_data(run, ablation)
    wrong = [f"{asked.config}: {text}" for text in faults(run, ablation, model, data)]
    changes = {**ablation.vary, CONTROL: ablation.control}
    variants = [Variant(FULL, (), ())]
    for name, texts in changes.items():
        try:
            variants.append(file.variant(name, texts))
        except ConfigError as error:
            wrong += error.messages
    if wrong:
        raise ConfigError(wrong)
    runs = {variant.name: file.load(variant.overrides) for variant in variants}
    cells = [
        make_cell(file, variant, runs[variant.name], seed, ablation.seeded, model)
        for seed in ablation.seeds
        for variant in variants
    ]
    if wrong := list(unlike_faults(cells, ablation, model)):
        raise ConfigError(wrong)
    return Setup(asked, run, model, data, max_tokens, tuple(variants), tuple(cells))


def make_cell(
    file: RunFile, variant: Variant, run: Run, seed: int, seeded: Sequence[str] | None, model: str
) -> Cell:
    """The run of a variant with a seed, as far as the model needs it."""
    own = file.load([*variant.overrides, *seed_overrides(run, seed, seeded)])
    cut = cut_run(own, model, str(Path(own.folder) / FOLDER))
    return Cell(variant.name, seed, cut, tuple(plan_run(cut)))


def default_model(run: Run) -> str:
    """The export that the run links as `model`, else its last one; nothing where it has none."""
    exports = [stage for stage in run.stages if isinstance(stage, Export)]
    linked = [stage.name for stage in exports if stage.link == "model"]
    return (linked or [stage.name for stage in exports[-1:]] or [""])[0]


def test_data(run: Run, ablation: Ablation) -> tuple[tuple[str, ...], int | None]:
    """The test data and the limit of tokens: those asked for, else the run's own."""
    if ablation.data:
        return ablation.data, ablation.max_tokens
    for stage in run.stages:
        if isinstance(stage, Evaluate):
            limit = ablation.max_tokens or stage.max_tokens_per_model
            return (*stage.data, *stage.in_domain_data), limit
    return (), ablation.max_tokens


def faults(run: Run, ablation: Ablation, model: str, data: Sequence[str]) -> Iterator[str]:
    """What is wrong with the ablation itself."""
    exports = [stage.name for stage in run.stages if isinstance(stage, Export)]
    if not exports:
        yield f"run '{run.name}' has no export stage, and only exports are measured"
    elif model not in exports:
        yield f"model: no export stage '{model}'; {nearest(model, exports)}"
    if not data:
        yield f"data: run '{run.name}' has no evaluate stage to take test data from; name some"
    for path in data:
        if text := missing(path) or data_fault(Path(path).expanduser()):
            yield f"data: {text}"
    if not ablation.vary:
        yield "vary: nothing varies; name a change, for example focal=off"
    for name in {FULL, CONTROL} & ablation.vary.keys():
        yield f"vary: '{name}' is the name of another row; give the variant another name"
    for seed in sorted({seed for seed in ablation.seeds if ablation.seeds.count(seed) > 1}):
        yield f"seeds: {seed} is there twice"
    if model in exports:
        yield from seeded_faults(run, ablation.seeded, model)


def seeded_faults(run: Run, seeded: Sequence[str] | None, model: str) -> Iterator[str]:
    """Stages whose seed cannot change, or makes no difference."""
    kinds = {stage.name: stage.kind for stage in run.stages}
    used = {stage.name for stage in behind(run, model)}
    trained = [stage.name for stage in run.stages if isinstance(stage, Train | Distil)]
    for name in seeded or ():
        if name not in kinds:
            yield f"seeded: no stage '{name}'; {nearest(name, trained)}"
        elif name not in trained:
            yield f"seeded: '{name}' is a stage of kind {kinds[name]}; expected a train or distil stage"
        elif name not in used:
            yield f"seeded: '{model}' is not made of '{name}'"


def unlike_faults(cells: Sequence[Cell], ablation: Ablation, model: str) -> Iterator[str]:
    """Variants that are the full recipe or each other, and seeds that change nothing."""
    first: dict[str, str] = {}
    for cell in cells:
        if cell.seed != ablation.seeds[0]:
            continue
        other = first.setdefault(cell.identity, cell.variant)
        if other == FULL != cell.variant:
            yield f"variant '{cell.variant}': changes nothing that '{model}' is made of"
        elif other != cell.variant:
            yield f"variants '{other}' and '{cell.variant}' make the same model; leave one of them out"
    for name in dict.fromkeys(cell.variant for cell in cells):
        made = [cell.identity for cell in cells if cell.variant == name]
        if len(set(made)) < len(made):
            yield f"variant '{name}': its seeds make the same model, for no seeded stage is behind '{model}'"
