"""Which stage may read which: names lead backwards, to a stage of a fitting kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedtrain.config.distilling import Distil, ModelTeacher
from embedtrain.config.errors import nearest
from embedtrain.config.faults import Fault, Location
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.retrievers import Pinned, Retriever, Teacher
from embedtrain.config.schema import Run
from embedtrain.config.stages import AnyStage, Export, Train
from embedtrain.config.tuning import TeacherModel

MODEL_STAGES = ("train", "distil", "soup")


@dataclass(frozen=True)
class Reference:
    """A name in a stage, where it stands, and the kinds of stage that it may name."""

    name: str
    location: Location
    kinds: tuple[str, ...]
    base: bool = False
    step: int | None = None

    @property
    def expected(self) -> str:
        """What the name may be."""
        kinds = " or ".join(", ".join(self.kinds).rsplit(", ", 1))
        return f"{'`base` or ' if self.base else ''}an earlier {kinds} stage"


def references(run: Run, index: int) -> list[Reference]:
    """The names of earlier stages in the stage at `index`."""
    stage = run.stages[index]
    here: Location = ("stages", index)
    match stage.kind:
        case "train":
            start = Reference(stage.from_, (*here, "from"), MODEL_STAGES, base=True)
            return [start, *rows_reference(stage, here), *teacher_reference(run, index)]
        case "filter":
            return []
        case "mine":
            judges = judge_references(run, stage.retrievers, (*here, "retrievers"))
            return [*mine_start(stage, here), *judges, *rows_reference(stage, here)]
        case "score":
            mine = Reference(stage.candidates, (*here, "candidates"), ("mine",))
            return [mine, *judge_references(run, stage.teachers, (*here, "teachers"))]
        case "distil":
            start = Reference(stage.from_, (*here, "from"), MODEL_STAGES, base=True)
            return [start, *rows_reference(stage, here), *teacher_reference(run, index)]
        case "export":
            start = model_reference(stage.from_, (*here, "from"), base=True)
            return [start, *teacher_reference(run, index)]
        case "select":
            mine = Reference(stage.candidates, (*here, "candidates"), ("mine",))
            scores = [Reference(stage.scores, (*here, "scores"), ("score",))] if stage.scores else []
            return [mine, *scores]
        case "soup":
            named = enumerate(stage.from_)
            return [model_reference(name, (*here, "from", i)) for i, name in named if not is_path(name)]
    return list(evaluated(run, index))


def inputs_of(run: Run, stage: AnyStage) -> list[str]:
    """Names of the stages whose folders a stage reads; score and select read the mined rows too."""
    named = {reference.name: None for reference in references(run, run.stages.index(stage))}
    mined = [other for other in run.stages if isinstance(other, Mine) and other.name in named]
    if isinstance(stage, Score | Select):
        named |= {mine.rows: None for mine in mined if mine.rows}
    return [name for name in named if name != "base"]


def model_reference(name: str, location: Location, *, base: bool = False) -> Reference:
    """A reference to an encoder, the last of a stage or, as `NAME@STEP`, a snapshot of it."""
    stage, step = snapshot(name)
    kinds = MODEL_STAGES if step is None else ("train",)
    return Reference(stage, location, kinds, base=base and step is None, step=step)


def snapshot(name: str) -> tuple[str, int | None]:
    """The stage and the step that `NAME@STEP` names; no step where it names the stage's last encoder."""
    stage, _, step = name.partition("@")
    return (stage, int(step)) if step.isdecimal() else (name, None)


def is_path(name: str) -> bool:
    """Whether a soup's ingredient is a folder and no stage."""
    return "/" in name


def rows_reference(stage: Train | Mine | Distil, here: Location) -> Iterator[Reference]:
    """The stage whose rows another reads, where it names one."""
    if stage.rows:
        kinds = ("filter",) if stage.kind == "mine" else ("filter", "select")
        yield Reference(stage.rows, (*here, "rows"), kinds)


def mine_start(stage: Mine, here: Location) -> Iterator[Reference]:
    """The encoder that `from` names, where it does."""
    if stage.from_ is not None:
        yield Reference(stage.from_, (*here, "from"), MODEL_STAGES, base=True)


def judge_references(run: Run, judges: Sequence[Retriever | Teacher], here: Location) -> Iterator[Reference]:
    """The stages of the run among retrievers or teachers."""
    names = {other.name for other in run.stages}
    for number, judge in enumerate(judges):
        if judge.kind == "encoder":
            yield Reference(judge.from_, (*here, number, "from"), MODEL_STAGES, base=True)
        elif isinstance(judge, Pinned) and judge.model in names:
            yield Reference(judge.model, (*here, number, "model"), ("export",))


def teacher_reference(run: Run, index: int) -> Iterator[Reference]:
    """The teacher of a train or distil stage, or an export's model of documents, where it is a stage."""
    stage = run.stages[index]
    if (named := teacher_of(stage)) and named[1].model in {other.name for other in run.stages}:
        yield Reference(named[1].model, ("stages", index, named[0], "model"), ("export",))


def teacher_of(stage: AnyStage) -> tuple[str, TeacherModel] | None:
    """The model beside a stage's own, and the key it stands under."""
    match stage:
        case Train(teacher=TeacherModel() as teacher) | Distil(teacher=ModelTeacher() as teacher):
            return "teacher", teacher
        case Export(documents=TeacherModel() as teacher):
            return "documents", teacher
    return None


def evaluated(run: Run, index: int) -> Iterator[Reference]:
    """The models of an evaluate stage that are stages of the run."""
    stage = run.stages[index]
    names = {other.name for other in run.stages}
    for field in ("models", "intermediate"):
        for number, name in enumerate(getattr(stage, field)):
            if name in names:
                yield Reference(name, ("stages", index, field, number), ("export",))


def reference_faults(run: Run) -> Iterator[Fault]:
    """Every name that leads nowhere, forwards, or to a stage of another kind."""
    earlier: dict[str, AnyStage] = {}
    for index, stage in enumerate(run.stages):
        later = {other.name for other in run.stages[index + 1 :]}
        for reference in references(run, index):
            text = reference_fault(reference, stage, earlier, later)
            if text:
                yield Fault(reference.location, text)
        earlier[stage.name] = stage


def reference_fault(
    reference: Reference, stage: AnyStage, earlier: Mapping[str, AnyStage], later: set[str]
) -> str:
    """What is wrong with one name; empty where nothing is."""
    name = reference.name
    if reference.base and name == "base":
        return ""
    if name in earlier:
        kind = earlier[name].kind
        wrong = f"'{name}' is a stage of kind {kind}; expected {reference.expected}"
        return snapshot_fault(earlier[name], reference.step) if kind in reference.kinds else wrong
    if name == stage.name:
        return f"'{name}' is this stage itself; expected {reference.expected}"
    if name in later:
        return f"'{name}' comes later in the file; expected {reference.expected}"
    fitting = [n for n, s in earlier.items() if s.kind in reference.kinds]
    known = (["base"] if reference.base else []) + fitting
    return f"no stage '{name}'; expected {reference.expected}; {nearest(name, known)}"


def snapshot_fault(stage: AnyStage, step: int | None) -> str:
    """What is wrong with a step of a train stage; empty where its encoder is kept, or none is asked for."""
    if not isinstance(stage, Train) or step is None or step in stage.snapshot_steps:
        return ""
    kept = ", ".join(map(str, stage.snapshot_steps)) or "none"
    return f"'{stage.name}' keeps no snapshot of step {step}; add it to its snapshot_steps (now {kept})"


def name_faults(run: Run) -> Iterator[Fault]:
    """Stage names, and links of exports, that are there twice or mean something else."""
    seen: dict[str, int] = {}
    links: dict[str, str] = {}
    for index, stage in enumerate(run.stages):
        if stage.name in seen:
            yield Fault(("stages", index, "name"), f"stage {seen[stage.name] + 1} has that name already")
        if stage.name == "base":
            yield Fault(("stages", index, "name"), "'base' means the run's base model; give another name")
        seen.setdefault(stage.name, index)
        for link in links_of(stage):
            if link in links:
                text = f"stage '{links[link]}' makes a link '{link}' already"
                yield Fault(("stages", index, "link"), text)
            links.setdefault(link, stage.name)


def links_of(stage: AnyStage) -> list[str]:
    """The links that an export makes: to its folder, and to the router beside it."""
    if not isinstance(stage, Export) or stage.link is None:
        return []
    return [stage.link, f"{stage.link}-router"] if stage.documents else [stage.link]


def repeated(names: tuple[str, ...], location: Location) -> Iterator[Fault]:
    """Names that are in a list twice."""
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Fault((*location, number), f"'{name}' is in the list twice")
