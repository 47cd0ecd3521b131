"""What a measurement yields: figures in points of 100, with 95 % intervals."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from embedtrain.artifacts import read_json, write_json


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its 95 % interval, in points of 100; none where mteb alone has measured it.

    `draws` are the values in all resamples, which models share: figures of one task can be compared pairwise.
    """

    value: float
    low: float | None = None
    high: float | None = None
    draws: tuple[float, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"

    @property
    def interval(self) -> tuple[float, float]:
        """Its bounds; ValueError where it has none."""
        if self.low is None or self.high is None:
            raise ValueError(f"{self.value} has no interval")
        return self.low, self.high

    @property
    def plus_minus(self) -> str:
        """`39.1 ±3.4`: the value, and half of its interval where there is one."""
        if self.low is None or self.high is None:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} ±{(self.high - self.low) / 2:.1f}"

    def to_json(self) -> dict[str, float | None]:
        """Plain values, without draws."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Result:
    """One model on one task. `full_sizes` is none where the whole task was measured.

    `form` says in how few dims or bits its vectors were kept, `num_bytes` how large one is (0: no vectors).
    """

    model: str
    task: str
    kind: str
    primary: str
    metrics: Mapping[str, Figure]
    sizes: Mapping[str, int]
    full_sizes: Mapping[str, int] | None
    seconds: float
    form: str = ""
    num_bytes: int = 0

    @property
    def figure(self) -> Figure:
        """The primary metric's."""
        return self.metrics[self.primary]

    def to_json(self) -> dict[str, Any]:
        """Plain values, without draws."""
        metrics = {name: figure.to_json() for name, figure in self.metrics.items()}
        return {**asdict(replace(self, metrics={})), "metrics": metrics}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "Result":
        """The inverse of `to_json`."""
        metrics = {name: Figure(**figure) for name, figure in saved["metrics"].items()}
        return cls(**{**saved, "metrics": metrics})


def keep_result(file: Path | None, measure: Callable[[], Result]) -> Result:
    """The result in the file, or a new one that is then written to it; none keeps nothing.

    The file holds the draws of the primary metric too.
    """
    if file is not None and file.is_file():
        saved = read_json(file)
        draws = tuple(saved.pop("draws"))
        result = Result.from_json(saved)
        primary = {result.primary: replace(result.figure, draws=draws)}
        return replace(result, metrics={**result.metrics, **primary})
    result = measure()
    if file is not None:
        write_json(file, {**result.to_json(), "draws": list(result.figure.draws)})
    return result
