"""What a run tells of itself, as plain values: the page of the run and the model card show the same ones.

None, or an empty value, means that nobody recorded it: such a fact is left out, never guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

DONE, RUNNING, TO_DO = "done", "unfinished", "to do"
BASE, ROWS = "base", "training rows"  # what stages read beside each other


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source of training text, and what the card beside its rows says of it."""

    name: str
    num_rows: int | None = None
    weight: float | None = None
    instruction: str = ""
    licence: str | None = None
    mteb_overlap: str | None = None


@dataclass(frozen=True, slots=True)
class ShareFacts:
    """What a training stage sees of a source: planned from the rows' counts, drawn as the curve tells.

    Rows drawn and their share are None where there is no curve.
    """

    source: str
    num_rows: int
    planned_rows: int
    planned: float
    drawn_rows: int | None = None
    drawn: float | None = None


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What a stage ran on."""

    device: str
    num_processes: int = 1
    processor: str = ""
    cores: int | None = None
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.processor, f"{self.cores} cores" if self.cores else "", *dict.fromkeys(self.gpus)]
        count = f"{self.num_processes} processes" if self.num_processes > 1 else "one process"
        return ", ".join([*filter(None, parts), f"{count} on {self.device}"])


@dataclass(frozen=True, slots=True)
class StageFacts:
    """One stage: what it does, what it reads, and what it left behind.

    `candidates` and `rows` are of a select stage: source -> what became of how many.
    """

    name: str
    kind: str
    does: str = ""
    reads: tuple[str, ...] = ()
    state: str = TO_DO
    why: str = ""
    seconds: float | None = None
    seed: int | None = None
    objective: str = ""
    steps: int | None = None
    planned_steps: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    shares: tuple[ShareFacts, ...] = ()
    candidates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    machine: MachineFacts | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FigureFacts:
    """One measured figure in points of 100 with its 95 % interval, where it has one.

    `kind` is the type of the task as mteb calls it, `sizes` says on how much.
    """

    model: str
    task: str
    kind: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    sizes: str = ""
    in_domain: bool = False


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run, or those of its stages that one model comes from.

    `languages` are those that a filter stage lets through, None where none looked; `licence` is the model's;
    `trained_tokens` the longest query and document of any training stage.
    """

    name: str
    base: str = ""
    seed: int | None = None
    precision: str = ""
    licence: str | None = None
    embedtrain_version: str = ""
    sources: tuple[SourceFacts, ...] = ()
    stages: tuple[StageFacts, ...] = ()
    figures: tuple[FigureFacts, ...] = ()
    languages: tuple[str, ...] | None = None
    trained_tokens: tuple[int, int] | None = None

    @property
    def seconds(self) -> float:
        """Of all finished stages together."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def tokens(self) -> int:
        """That training stages have read, every pass counted."""
        return sum(stage.tokens or 0 for stage in self.stages)

    @property
    def missing(self) -> list[str]:
        """Names of the stages that are not done."""
        return [stage.name for stage in self.stages if stage.state != DONE]
