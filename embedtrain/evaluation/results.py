"""What a measurement yields: figures in points of 100, with 95 % intervals."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedtrain.artifacts import read_json, write_json


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its 95 % interval, in points of 100."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class Result:
    """One model on one task. `full_sizes` is none where the whole task was measured."""

    model: str
    task: str
    kind: str
    primary: str
    metrics: Mapping[str, Figure]
    sizes: Mapping[str, int]
    full_sizes: Mapping[str, int] | None
    seconds: float

    @property
    def figure(self) -> Figure:
        """The primary metric's."""
        return self.metrics[self.primary]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Result":
        """The inverse of `to_json`."""
        metrics = {name: Figure(**figure) for name, figure in saved["metrics"].items()}
        return cls(**{**saved, "metrics": metrics})


def keep_result(file: Path | None, measure: Callable[[], Result]) -> Result:
    """The result in the file, or a new one that is then written to it; none keeps nothing."""
    if file is not None and file.is_file():
        return Result.from_json(read_json(file))
    result = measure()
    if file is not None:
        write_json(file, result.to_json())
    return result
