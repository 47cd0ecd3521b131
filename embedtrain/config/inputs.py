"""The files a run reads: base, rows and test data must be there, and hold enough."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from embedtrain.config.distilling import Distil, StoredTeacher
from embedtrain.config.errors import UserError, near_file, nearest
from embedtrain.config.faults import Fault, Location
from embedtrain.config.references import is_path, teacher_of
from embedtrain.config.schema import Run, TextFormat
from embedtrain.config.soups import Cocktail, Greedy, Soup
from embedtrain.config.sources import Source
from embedtrain.config.stages import Evaluate, Export, Train

CountRows = Callable[[str], int]
ValidateTemplate = Callable[..., None]
PACKAGE = re.compile(r"^pip:[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!_-]+$")
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?$")
ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")


def missing(path: str) -> str:
    """Why a file or folder cannot be read; empty where it is there."""
    where = Path(path).expanduser()
    if where.exists():
        return ""
    return f"'{path}' is not there{near_file(where)}"


def package_fault(name: str) -> str:
    """What is wrong with `pip:name==version`; empty where nothing is."""
    return "" if PACKAGE.match(name) else f"found '{name}', expected pip:name==version with an exact version"


def base_faults(run: Run) -> Iterator[Fault]:
    """A base that is written wrongly or, being a path, not there."""
    text = model_fault(run.base.model)
    if text:
        yield Fault(("base", "model"), text)


def model_fault(model: str) -> str:
    """What is wrong with a model's name; empty where nothing is, or where only the hub can tell."""
    if model.startswith("pip:"):
        return package_fault(model)
    if model.startswith((".", "/", "~")) or model.lower().endswith(".gguf") or model.count("/") > 1:
        return missing(model)
    if HUB_ID.match(model) or Path(model).exists():
        return ""
    return f"found '{model}', expected a hub id, a folder, a .gguf file or pip:name==version"


def template_faults(run: Run, validate: ValidateTemplate) -> Iterator[Fault]:
    """Templates that cannot be filled, and what a source gives that none of its templates takes."""
    pools = run.encoder.pool_instruction
    inherits = any(source.few_shot and source.query is None for source in run.sources.values())
    shared = {"query": "shared_query" if inherits else "query", "document": "document"}
    for side, kind in shared.items():
        yield from template_fault(getattr(run.text, side), kind, pools, ("text", side), validate)
    for name, source in run.sources.items():
        here: Location = ("sources", name)
        own = {"query": "few_shot_query" if source.few_shot else "query", "document": "document"}
        for side, kind in own.items():
            if (template := getattr(source, side)) is not None:
                yield from template_fault(template, kind, pools, (*here, side), validate)
        if source.few_shot:
            example = source.few_shot.example
            yield from template_fault(example, "example", True, (*here, "few_shot", "example"), validate)
        yield from unseen_faults(source, run.text, here, taught=reads_instructions(run, name))


def template_fault(
    template: str, kind: str, pools: bool, here: Location, validate: ValidateTemplate
) -> Iterator[Fault]:
    """Why a template of this kind cannot be filled."""
    try:
        validate(template, kind, pool_instruction=pools)
    except UserError as error:
        yield Fault(here, str(error))


def reads_instructions(run: Run, source: str) -> bool:
    """Whether the teacher of a stage that trains on the source shows instructions."""
    trains = [stage for stage in run.stages if isinstance(stage, Train)]
    teachers = [stage.teacher for stage in trains if stage.sources is None or source in stage.sources]
    return any(teacher is not None and teacher.is_instructed for teacher in teachers)


def unseen_faults(source: Source, text: TextFormat, here: Location, *, taught: bool) -> Iterator[Fault]:
    """An instruction, or examples, that no template of the source takes, nor (`taught`) a teacher."""
    query, document = source.query or text.query, source.document or text.document
    example = source.few_shot.example if source.few_shot else ""
    if source.instruction and not taught and "{instruction}" not in query + document + example:
        yield Fault((*here, "instruction"), "no template of this source holds {instruction}; none shows it")
    if source.few_shot and source.query is None and "{examples}" not in text.query:
        yield Fault((*here, "few_shot"), "text.query, its template, holds no {examples}; none would be seen")
    limit = source.max_query_tokens or text.max_query_tokens
    if source.few_shot and source.few_shot.max_tokens >= limit:
        found = f"found {source.few_shot.max_tokens}, and a query of this source is cut to {limit} tokens"
        more = "examples included; raise max_query_tokens or lower max_tokens"
        yield Fault((*here, "few_shot", "max_tokens"), f"{found}, {more}")


class SourceRows:
    """Counts the rows of each source once, when first asked."""

    def __init__(self, run: Run, count_rows: CountRows) -> None:
        """Count nothing yet."""
        self.sources = run.sources
        self.count_rows = count_rows

    @cached_property
    def counted(self) -> dict[str, int | str]:
        """Rows of each source, or what is wrong with its file."""
        return {name: self.count(source) for name, source in self.sources.items()}

    def count(self, source: Source) -> int | str:
        """Rows in a source's file, or why there are none."""
        if fault := missing(source.rows):
            return fault
        if not (source.rows.endswith(ENDINGS) or Path(source.rows).expanduser().is_dir()):
            expected = f"a folder that `embedtrain convert` wrote or a file ending in {', '.join(ENDINGS)}"
            return f"found '{source.rows}', expected {expected}"
        try:
            count = self.count_rows(source.rows)
            return min(count, source.max_rows or count) or f"'{source.rows}' holds no rows"
        except UserError as error:
            return str(error)

    def rows(self, name: str) -> float:
        """Rows of a source; endless where they cannot be counted, which is a fault of its own."""
        count = self.counted[name]
        return count if isinstance(count, int) else math.inf

    def faults(self) -> Iterator[Fault]:
        """Sources whose file is missing, empty or broken. A source left out by weight 0 is not read."""
        for name, count in self.counted.items():
            if isinstance(count, str) and self.sources[name].weight > 0:
                yield Fault(("sources", name, "rows"), count)


def evaluate_faults(run: Run, stage: Evaluate, here: Location) -> Iterator[Fault]:
    """Test data that is not there, and models that are nothing."""
    yield from test_data_faults(stage.data, (*here, "data"))
    yield from test_data_faults(stage.in_domain_data, (*here, "in_domain_data"))
    names = [other.name for other in run.stages]
    for field in ("models", "intermediate"):
        for number, model in enumerate(getattr(stage, field)):
            if text := outside_fault(model, names):
                yield Fault((*here, field, number), text)
    yield from pair_faults(stage, here)


def test_data_faults(paths: Sequence[str], here: Location) -> Iterator[Fault]:
    """Test data that is not there."""
    for number, path in enumerate(paths):
        if text := missing(path) or data_fault(Path(path).expanduser()):
            yield Fault((*here, number), text)


def data_fault(path: Path) -> str:
    """Why no test data can be there, before anything is trained; empty where there may be some."""
    files = path.rglob("*") if path.is_dir() else [path]
    if any(file.name.endswith(ENDINGS) for file in files):
        return ""
    what = "holds no file" if path.is_dir() else "is no file"
    return f"'{path}' {what} ending in {', '.join(ENDINGS)}"


def pair_faults(stage: Evaluate, here: Location) -> Iterator[Fault]:
    """Models of a pair that are not measured by themselves: nothing would stand beside the pair."""
    for number, pair in enumerate(stage.pairs):
        for field in ("queries", "documents"):
            if (name := getattr(pair, field)) not in stage.models:
                text = f"'{name}' is not among models; {nearest(name, stage.models)}"
                yield Fault((*here, "pairs", number, field), text)


def teacher_faults(run: Run, stage: Train | Distil | Export, here: Location) -> Iterator[Fault]:
    """A teacher that is written wrongly or not there, or pinned by what does not fit it."""
    if (named := teacher_of(stage)) is None:
        return
    key, teacher = named
    if text := outside_fault(teacher.model, [other.name for other in run.stages]):
        yield Fault((*here, key, "model"), text)
    yield from pin_faults(teacher.model, teacher.revision, teacher.sha256, (*here, key))


def distil_faults(run: Run, stage: Distil, here: Location) -> Iterator[Fault]:
    """A teacher, vectors or texts that are not there."""
    yield from teacher_faults(run, stage, here)
    if isinstance(stage.teacher, StoredTeacher) and (text := missing(stage.teacher.folder)):
        yield Fault((*here, "teacher", "folder"), text)
    for number, path in enumerate(stage.texts):
        if text := missing(path):
            yield Fault((*here, "texts", number), text)


def soup_faults(stage: Soup, here: Location) -> Iterator[Fault]:
    """Folders, validation data or examples that are not there."""
    for number, name in enumerate(stage.from_):
        if is_path(name) and (text := missing(name)):
            yield Fault((*here, "from", number), text)
    if isinstance(stage.method, Greedy):
        yield from test_data_faults(stage.method.data, (*here, "method", "data"))
    if isinstance(stage.method, Cocktail) and (text := missing(stage.method.rows)):
        yield Fault((*here, "method", "rows"), text)


def pin_faults(model: str, revision: str | None, sha256: str | None, here: Location) -> Iterator[Fault]:
    """A pin that does not fit the kind of model."""
    packaged = model.startswith("pip:")
    if sha256 and not packaged:
        yield Fault((*here, "sha256"), "is for a package; a hub id is pinned by revision")
    if revision and packaged:
        yield Fault((*here, "revision"), "is for a hub id; a package is pinned by sha256")


def outside_fault(model: str, stages: Sequence[str], causal: bool = False) -> str:
    """What is wrong with the name of a stage or a model; empty where nothing is, or only the hub can tell."""
    if model in stages or Path(model).expanduser().is_dir() or (causal and Path(model).is_file()):
        return ""
    if model.startswith("pip:"):
        return package_fault(model)
    if model.count("/") == 1 and HUB_ID.match(model):
        return missing(model) if Path(model).parent.is_dir() else ""
    expected = "a folder, a hub id owner/name or pip:name==version"
    if stages:
        return (
            f"'{model}' is no stage of this run and no folder; expected an earlier export stage, {expected}"
        )
    return f"'{model}' is no folder; expected {expected}"
