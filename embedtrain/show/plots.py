"""Plots as inline SVG that follow the page's colours, light or dark. matplotlib is imported on first use."""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = tuple[Sequence[float], Sequence[float]]

# Okabe and Ito's palette, told apart by every kind of colour vision; the page adapts it to light and dark
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#666666")
# a second mark, once the colours come round again
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = "osD^vP"
INK, FAINT = "#010203", "#040506"  # stand-ins, replaced by the page's own colours
MAX_SCATTER_POINTS = 2000
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


def line_plot(
    series: Mapping[str, Points],
    title: str,
    x: str = "",
    y: str = "",
    *,
    mean_over: int = 1,
    size: tuple[float, float] = (7.2, 3.4),
) -> str:
    """Lines over a common axis, as an `<svg>` string. `title` is read out, not drawn: the caption says it.

    With `mean_over` above 1 the values are drawn faint and their running mean over so many points strong.
    """
    drawn = {name: (np.asarray(xs, float), np.asarray(ys, float)) for name, (xs, ys) in series.items()}
    for name, (xs, ys) in drawn.items():
        if len(xs) != len(ys):
            raise ValueError(f"plot '{title}', series '{name}': {len(xs)} x values, {len(ys)} y values")
    if not any(np.isfinite(ys).any() for _, ys in drawn.values()):
        raise ValueError(f"plot '{title}' has no finite point to draw")

    def draw(axes: "Axes") -> None:
        for number, (name, (xs, ys)) in enumerate(drawn.items()):
            color, dash = PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]
            mark = "o" if len(xs) == 1 else None
            if mean_over > 1:
                axes.plot(xs, ys, color=color, linewidth=0.8, alpha=0.3)
            line = axes.plot(xs, running_mean(ys, mean_over), color=color, linestyle=dash, marker=mark)
            line[0].set(label=name, linewidth=1.8)
        axes.set(xlabel=x, ylabel=y)
        axes.margins(x=0.01)
        if len(drawn) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03), handlelength=1.6)

    return draw_svg(draw, title, size)


def scatter_plot(
    points: Sequence[Sequence[float]] | np.ndarray,
    labels: Sequence[str],
    title: str,
    *,
    size: tuple[float, float] = (7.2, 4.8),
) -> str:
    """Points in the plane, one colour and shape a label, as an `<svg>` string.

    Axes are left out: only nearness means something. Above 2,000 points, evenly spaced ones are drawn.
    """
    places = np.asarray(points, float)
    if places.ndim != 2 or places.shape[1] != 2 or len(places) != len(labels) or not len(places):
        raise ValueError(
            f"plot '{title}': points {places.shape}, expected ({len(labels)}, 2) and at least one"
        )
    kept = np.unique(np.linspace(0, len(places) - 1, MAX_SCATTER_POINTS).round().astype(int))
    names = np.asarray(labels, dtype=object)[kept]
    places = places[kept]

    def draw(axes: "Axes") -> None:
        for number, name in enumerate(dict.fromkeys(names)):
            chosen = places[names == name]
            mark = MARKERS[number // len(PALETTE) % len(MARKERS)]
            color = PALETTE[number % len(PALETTE)]
            axes.plot(*chosen.T, mark, color=color, markersize=3.4, markeredgewidth=0, alpha=0.75, label=name)
        axes.set_axis_off()
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2, markerscale=1.8)

    return draw_svg(draw, title, size)


def running_mean(values: np.ndarray, over: int) -> np.ndarray:
    """The mean of each value and up to `over - 1` before it; gaps (NaN) are left out of the mean."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - over)
    total, count = sums[stop] - sums[start], counts[stop] - counts[start]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


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
