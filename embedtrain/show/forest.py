"""A forest plot: one effect a row with its intervals, around zero. matplotlib is imported on first use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedtrain.show.plots import name_rows
from embedtrain.show.svg import FAINT, PALETTE, WIDTH, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UP, DOWN, NEITHER = PALETTE[2], PALETTE[1], PALETTE[-1]


@dataclass(frozen=True, slots=True)
class Effect:
    """A row: a value, its wide interval, its narrow or other one, if any, and which way it counts.

    `sign` is 1 or -1 for an effect that counts, 0 for one that may be none.
    """

    name: str
    value: float
    wide: tuple[float, float]
    thick: tuple[float, float] | None = None
    sign: int = 0


def forest_plot(effects: Sequence[Effect], title: str, x: str = "") -> str:
    """The effects from top to bottom as an `<svg>` string; a line marks zero.

    Colours tell effects above zero, below zero and neither; `thick` is drawn as the heavy part of the line.
    """
    if not effects:
        raise ValueError(f"plot '{title}' has no effect to draw")

    def draw(axes: "Axes") -> None:
        axes.axvline(0, color=FAINT, linewidth=1.4, zorder=0)
        for place, effect in enumerate(effects):
            color = {1: UP, -1: DOWN}.get(effect.sign, NEITHER)
            axes.plot(effect.wide, [place, place], color=color, linewidth=1.4)
            if effect.thick:
                axes.plot(effect.thick, [place, place], color=color, linewidth=5, alpha=0.45)
            axes.plot(effect.value, place, "o", color=color, markersize=6, markeredgewidth=0)
        name_rows(axes, [effect.name for effect in effects], x)

    return draw_svg(draw, title, (WIDTH, 0.7 + 0.34 * len(effects)))
