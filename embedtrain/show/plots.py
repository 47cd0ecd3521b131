"""Plots for a page: lines, points, ranges, shares, histograms and intervals, each as an `<svg>` string."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedtrain.show.svg import PALETTE, SIZE, WIDTH, draw_svg, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = tuple[Sequence[float], Sequence[float]]

# a second mark, once the colours come round again
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = "osD^vP"
MAX_SCATTER_POINTS = 2000


def line_plot(
    series: Mapping[str, Points],
    title: str,
    x: str = "",
    y: str = "",
    *,
    mean_over: int = 1,
    size: tuple[float, float] = SIZE,
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
            legend_above(axes, handlelength=1.6)

    return draw_svg(draw, title, size)


def scatter_plot(
    points: Sequence[Sequence[float]] | np.ndarray,
    labels: Sequence[str],
    title: str,
    *,
    size: tuple[float, float] = (WIDTH, 4.2),
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
        legend_above(axes, handletextpad=0.2, markerscale=1.8)

    return draw_svg(draw, title, size)


def range_plot(
    rows: Sequence[tuple[str, Sequence[float]]],
    title: str,
    x: str = "",
    *,
    marks: Sequence[float | None] = (),
    log: bool = False,
) -> str:
    """One line a row, from the least to the greatest of its five values, as an `<svg>` string.

    The line is thick from the second to the fourth, with a dot at the third. `marks` are limits, one a row.
    """
    if not rows or any(len(values) != 5 for _, values in rows):
        raise ValueError(f"plot '{title}': expected at least one row, of five values each")
    from matplotlib.ticker import LogLocator, NullLocator

    def draw(axes: "Axes") -> None:
        for place, (_, (least, low, middle, high, greatest)) in enumerate(rows):
            axes.plot([least, greatest], [place, place], color=PALETTE[0], linewidth=1.2, alpha=0.6)
            axes.plot([low, high], [place, place], color=PALETTE[0], linewidth=6, solid_capstyle="butt")
            axes.plot(middle, place, "o", color=PALETTE[4], markersize=5, markeredgewidth=0)
        for place, mark in enumerate(marks):
            if mark is not None:
                axes.plot(mark, place, "|", color=PALETTE[1], markersize=15, markeredgewidth=2)
        if log:
            axes.set_xscale("log", nonpositive="clip")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        name_rows(axes, [name for name, _ in rows], x)

    return draw_svg(draw, title, (WIDTH, 0.6 + 0.3 * len(rows)))


def share_plot(
    rows: Sequence[tuple[str, Mapping[str, float]]], title: str, x: str = "", *, faint: Sequence[str] = ()
) -> str:
    """One bar a row, cut into named shares of it, as an `<svg>` string. A name has one colour in all rows.

    Names take their colours in the order of their first sight; those in `faint` are greyed.
    """
    names = list(dict.fromkeys(name for _, shares in rows for name in shares))
    if not names:
        raise ValueError(f"plot '{title}' has no share to draw")

    def draw(axes: "Axes") -> None:
        ends = np.zeros(len(rows))
        for number, name in enumerate(names):
            widths = np.array([shares.get(name, 0.0) for _, shares in rows])
            color, alpha = (PALETTE[-1], 0.5) if name in faint else (PALETTE[number % len(PALETTE)], 1.0)
            axes.barh(np.arange(len(rows)), widths, 0.62, ends, color=color, alpha=alpha, label=name)
            ends += widths
        name_rows(axes, [name for name, _ in rows], x)
        axes.set_xlim(0, max(1.0, float(ends.max())))
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
        legend_above(axes, handlelength=1.0)

    return draw_svg(draw, title, (WIDTH, 0.6 + 0.3 * len(rows)))


def histogram_plot(
    edges: Sequence[float], groups: Sequence[Mapping[str, Sequence[int]]], title: str, x: str = ""
) -> str:
    """Counts in the bins between the edges, each by its own sum, as outlines in one `<svg>` string.

    A group has one colour; the last of its counts is drawn strong, those before it pale and filled; one that
    is alone is both. Counts of nothing are left out.
    """
    counted = [{name: counts for name, counts in group.items() if sum(counts)} for group in groups]
    lengths = {len(counts) for group in counted for counts in group.values()}
    if lengths != {len(edges) - 1}:
        raise ValueError(f"plot '{title}': expected some counts, one for each of the {len(edges) - 1} bins")

    def draw(axes: "Axes") -> None:
        for group, color in zip(counted, PALETTE, strict=False):
            for place, (name, counts) in enumerate(group.items(), start=1):
                heights, last = np.asarray(counts) / sum(counts), place == len(group)
                if not last or len(group) == 1:
                    axes.stairs(heights, edges, fill=True, color=color, alpha=0.15, linewidth=0)
                width, alpha = (1.8, 1.0) if last else (1.0, 0.5)
                axes.stairs(heights, edges, color=color, linewidth=width, alpha=alpha, label=name)
        axes.set(xlabel=x)
        axes.margins(x=0.01)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
        legend_above(axes, handlelength=1.2)

    return draw_svg(draw, title, (WIDTH, 2.3))


def interval_plot(
    series: Mapping[str, Mapping[str, tuple[float, float, float]]],
    names: Sequence[str],
    title: str,
    y: str = "",
    *,
    joined: Sequence[str] = (),
) -> str:
    """A value and the bounds of its interval over each name that a series has, as an `<svg>` string.

    Names stand on the axis in the order given, series a little beside each other; a line joins the values of
    the names in `joined`.
    """
    if not any(name in values for values in series.values() for name in names):
        raise ValueError(f"plot '{title}' has no value to draw")

    def draw(axes: "Axes") -> None:
        for number, (label, values) in enumerate(series.items()):
            color = PALETTE[number % len(PALETTE)]
            aside = (number - (len(series) - 1) / 2) * min(0.12, 0.6 / len(series))
            places = {name: place + aside for place, name in enumerate(names) if name in values}
            line = [name for name in places if name in joined]
            dash = DASHES[number // len(PALETTE) % len(DASHES)]
            heights = [values[name][0] for name in line]
            axes.plot([places[name] for name in line], heights, color=color, linestyle=dash, linewidth=1.4)
            for name, place in places.items():
                value, low, high = values[name]
                axes.plot([place, place], [low, high], color=color, linewidth=3, alpha=0.35)
                axes.plot(place, value, "o", color=color, markersize=5, markeredgewidth=0)
            axes.plot([], [], marker="o", color=color, linestyle=dash, markersize=5, label=label)
        axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylabel(y)
        if len(series) > 1:
            legend_above(axes, handlelength=1.6)

    return draw_svg(draw, title, SIZE)


def name_rows(axes: "Axes", names: Sequence[str], x: str) -> None:
    """Names of rows on the left, the first on top; lines across only for the values."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(x)


def running_mean(values: np.ndarray, over: int) -> np.ndarray:
    """The mean of each value and up to `over - 1` before it; gaps (NaN) are left out of the mean."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - over)
    total, count = sums[stop] - sums[start], counts[stop] - counts[start]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
