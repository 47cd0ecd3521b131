"""Inline SVG that follows the page's colours, light or dark. matplotlib is imported on first use."""

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by every kind of colour vision; the page adapts it to light and dark
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#666666")
INK, FAINT = "#010203", "#040506"  # stand-ins, replaced by the page's own colours
WIDTH = 5.4  # inches: on a telephone's screen, text is then as large as in a table
SIZE = (WIDTH, 3.0)
LETTER = 0.09  # inches of one in a legend
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def legend_above(axes: "Axes", **look: float) -> None:
    """The names of what is drawn, above the axes, in as many columns as have room."""
    names = axes.get_legend_handles_labels()[1]
    widest = max(map(len, names), default=0) * LETTER + 0.5
    columns = max(1, min(len(names), int(WIDTH / widest)))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    axes.legend(ncols=columns, columnspacing=1.2, **place, **look)


def draw_svg(draw: Callable[["Axes"], None], title: str, size: tuple[float, float]) -> str:
    """Draw on one pair of axes; the same calls give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=size)
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    return inline(out.getvalue(), title)


def inline(svg: str, title: str) -> str:
    """A file's SVG as an element of a page: no prologue, metadata or size; the page's fonts and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--line, #999)")
    for number, color in enumerate(PALETTE):
        svg = svg.replace(color, f"var(--series-{number}, {color})")
    name = html.escape(title, quote=True)
    head = re.search(r'viewBox="[^"]+"', svg)
    if head is None:
        raise ValueError(f"plot '{title}': matplotlib wrote no viewBox")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening = f'<svg {names} {head[0]} role="img" aria-label="{name}">\n<title>{name}</title>'
    return re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).strip() + "\n"
