"""One self-contained HTML page: text, tables with intervals, plots, neighbour lists. Loads nothing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from embedtrain.show.diagram import Diagram
from embedtrain.show.tables import cell_text, check_shape, right_aligned

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True, slots=True)
class Prose:
    """A paragraph. A `quiet` one is set small and grey, as a remark."""

    text: str
    quiet: bool = False
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True, slots=True)
class Code:
    """Commands or a config, as typed."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure and its 95 % interval, for a cell. `best` sets it in bold."""

    value: float
    low: float | None = None
    high: float | None = None
    best: bool = False
    decimals: int = 1

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}"

    @property
    def interval(self) -> str:
        """`40.1–44.9`, or nothing where none is known."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:.{self.decimals}f}–{self.high:.{self.decimals}f}"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. Cells are anything that prints, None for an empty one, or Measured.

    `strong_rows` are set in bold at their head, `rule_before` are the rows that a line stands before.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    strong_rows: frozenset[int] = frozenset()
    rule_before: frozenset[int] = frozenset()
    kind: ClassVar[str] = "grid"

    def __post_init__(self) -> None:
        check_shape(self.columns, self.rows)

    @property
    def right(self) -> list[bool]:
        """For each column, whether it stands on the right."""
        return right_aligned(
            self.columns, [[c.value if isinstance(c, Measured) else c for c in row] for row in self.rows]
        )


@dataclass(frozen=True, slots=True)
class Plot:
    """An `<svg>` string from `show.plots`, placed as it is, and its caption; `heading` stands above it."""

    svg: str
    caption: str = ""
    heading: str = ""
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots beside each other, as many as the screen is wide for, and a caption for all."""

    plots: Sequence[Plot]
    caption: str = ""
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One text found for a query. `right` says whether it is the answer; None where nobody knows.

    `score` is None where it has none; `note` is a remark set small below the text.
    """

    text: str
    score: float | None
    right: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What each model finds for one query: (model, its nearest texts), side by side; below it a remark."""

    query: str
    found: Sequence[tuple[str, Sequence[Neighbour]]]
    remark: str = ""
    kind: ClassVar[str] = "neighbours"


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks below a line that a reader opens and shuts."""

    summary: str
    blocks: Sequence["Block"]
    is_open: bool = False
    kind: ClassVar[str] = "folded"


Block = Prose | Code | Grid | Plot | Plots | Diagram | Neighbours | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What a link within the page names it by."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def render_page(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    facts: Sequence[tuple[str, object]] = (),
    contents: bool = False,
) -> str:
    """The page. `lead` is the sentence below the title, `facts` are the large figures below that.

    With `contents`, links to the sections follow. All text is escaped; only a Plot's SVG is taken as markup.
    """
    return template().render(title=title, sections=sections, lead=lead, facts=facts, contents=contents)


@cache
def template() -> "Template":
    """The page's template, beside this file."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell_text
    environment.tests["measured"] = lambda value: isinstance(value, Measured)
    folder = Path(__file__).parent
    environment.globals["css"] = (folder / "page.css").read_text(encoding="utf-8")
    return environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
