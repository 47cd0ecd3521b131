"""Plots with a row a name: ranges and shares."""

import re

import pytest

from embedtrain.show.plots import PALETTE, range_plot, share_plot


def test_a_range_plot_names_its_rows_and_marks_their_limits() -> None:
    rows = [("first", [1, 2, 3, 4, 9]), ("second", [10, 20, 30, 40, 500])]
    plain = range_plot(rows, "Lengths", "tokens", log=True)
    marked = range_plot(rows, "Lengths", "tokens", marks=[None, 128], log=True)
    assert plain == range_plot(rows, "Lengths", "tokens", log=True)
    assert [name for name in ("first", "second", "tokens", "100") if f">{name}<" in plain] == [
        "first", "second", "tokens", "100"
    ]  # fmt: skip
    limit = f"--series-1, {PALETTE[1]}"
    assert limit not in plain
    assert limit in marked
    with pytest.raises(ValueError, match="of five values each"):
        range_plot([("first", [1, 2])], "Lengths")


def test_a_share_plot_gives_each_name_one_colour() -> None:
    rows = [("one", {"en": 0.75, "fr": 0.25}), ("two", {"fr": 0.5, "unsure": 0.5})]
    svg = share_plot(rows, "Languages", faint=["unsure"])
    assert all(f">{name}<" in svg for name in ("one", "two", "en", "fr", "unsure", "40%"))
    drawn = re.findall(r"fill: var\(--series-(\d)", svg)
    assert set(drawn) == {"0", "1", "7"}
    with pytest.raises(ValueError, match="no share to draw"):
        share_plot([("one", {})], "Languages")
