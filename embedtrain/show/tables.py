"""Tables for a terminal, a log and a Markdown page."""

import io
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100  # columns of a table that is not written to a terminal


def cell_text(value: object) -> str:
    """A cell: an em dash for nothing, floats with two decimals, thousands separated."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def is_figure(value: object) -> bool:
    """Whether the cell stands on the right: a number, or a text that starts as one (`45.1 ± 1.2`)."""
    if isinstance(value, str):
        return value.lstrip("+−-")[:1].isdigit() and not value[-1:].isalpha()
    return isinstance(value, int | float) and not isinstance(value, bool)


def right_aligned(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[bool]:
    """For each column, whether all its cells that hold something are figures."""
    cells = [[row[i] for row in rows if row[i] not in (None, "", "—")] for i in range(len(columns))]
    return [bool(column) and all(map(is_figure, column)) for column in cells]


def build_table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str | None
) -> Table:
    """The table as rich draws it. No cell is read as markup."""
    check_shape(columns, rows)
    table = Table(
        title=None if title is None else Text(title, "bold"),
        caption=None if note is None else Text(note, "dim"),
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        pad_edge=False,
    )
    for name, right in zip(columns, right_aligned(columns, rows), strict=True):
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    return table


def check_shape(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Raise ValueError where a row has another number of cells than there are columns."""
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise ValueError(f"row {number} has {len(row)} cells, expected {len(columns)}: {list(row)}")


def print_table(
    title: str | None,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    note: str | None = None,
    *,
    console: Console | None = None,
) -> None:
    """Print the table to stdout; 100 columns wide where stdout is no terminal."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(build_table(title, columns, rows, note))


def table_text(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str | None = None
) -> str:
    """The table as plain text, at most 100 columns wide, no trailing spaces."""
    console = Console(file=io.StringIO(), width=WIDTH, no_color=True)
    with console.capture() as capture:
        console.print(build_table(title, columns, rows, note))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The table as GitHub Markdown, figures on the right."""
    check_shape(columns, rows)
    marks = ["---:" if right else "---" for right in right_aligned(columns, rows)]
    lines = [list(columns), marks, *([cell_text(value) for value in row] for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)
