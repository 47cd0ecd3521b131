"""A run as a diagram: one row a box, and beside it lanes that lead from what is read down to its readers.

Drawn like the history of a repository, so that it fits a telephone: boxes stand below each other, in an order
in which everything is read below the place where it is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

STEP, WIDEST = 0.8, 7.0  # rem between lanes, and of all lanes together
COLORS = 8  # of the page's series


@dataclass(frozen=True, slots=True)
class Box:
    """One node. `state` is a class of the page's style; `time` stands on the right."""

    name: str
    kind: str = ""
    text: str = ""
    state: str = "done"
    time: str = ""
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane in one row: whether it comes from above, leads on below, is read here, or starts here."""

    place: int
    color: int
    above: bool
    below: bool
    read: bool
    starts: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A box and the lanes beside it, those far from the box first."""

    box: Box
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class Diagram:
    """Boxes in order; each reads boxes above it."""

    boxes: Sequence[Box]
    caption: str = ""
    kind: ClassVar[str] = "diagram"

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for box in self.boxes:
            if unknown := [name for name in box.reads if name not in seen]:
                raise ValueError(f"box '{box.name}' reads '{unknown[0]}', which does not stand above it")
            seen.add(box.name)

    @property
    def num_lanes(self) -> int:
        """Lanes beside each other."""
        return 1 + max((lane for _, _, lane in self.tracks.values()), default=-1)

    @property
    def step(self) -> float:
        """Rem between lanes."""
        return min(STEP, WIDEST / max(1, self.num_lanes))

    @property
    def tracks(self) -> dict[str, tuple[int, int, int]]:
        """First and last row and lane of every box that is read; no two tracks of a lane share a row."""
        return assign_lanes(last_readers(self.boxes))

    @property
    def rows(self) -> list[Row]:
        """What the page draws."""
        tracks = self.tracks
        colors = {name: number % COLORS for number, name in enumerate(tracks)}
        return [
            Row(box, tuple(lanes_of(box, number, tracks, colors))) for number, box in enumerate(self.boxes)
        ]


def last_readers(boxes: Sequence[Box]) -> dict[str, tuple[int, int]]:
    """The row of every box that is read, and the row of the last that reads it."""
    places = {box.name: number for number, box in enumerate(boxes)}
    ends = {name: number for number, box in enumerate(boxes) for name in box.reads}
    return {name: (place, ends[name]) for name, place in places.items() if name in ends}


def assign_lanes(spans: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int, int]]:
    """A lane for each span, 0 nearest to the boxes: short spans first, so that long ones run outside."""
    taken: list[list[tuple[int, int]]] = []
    lanes: dict[str, int] = {}
    for name in sorted(spans, key=lambda name: (spans[name][1] - spans[name][0], spans[name])):
        first, last = spans[name]
        free = (n for n, used in enumerate(taken) if all(last < a or b < first for a, b in used))
        lanes[name] = next(free, len(taken))
        if lanes[name] == len(taken):
            taken.append([])
        taken[lanes[name]].append((first, last))
    return {name: (*span, lanes[name]) for name, span in spans.items()}


def lanes_of(
    box: Box, row: int, tracks: Mapping[str, tuple[int, int, int]], colors: Mapping[str, int]
) -> list[Lane]:
    """The lanes that pass a row, the outermost first."""
    found = [
        Lane(lane, colors[name], first < row, last > row, name in box.reads, first == row)
        for name, (first, last, lane) in tracks.items()
        if first <= row <= last
    ]
    return sorted(found, key=lambda lane: -lane.place)
