"""Progress, tables, plots and pages: what a person sees."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from embedtrain.show import progress as progress_file
from embedtrain.show.page import (
    Code,
    Grid,
    Measured,
    Neighbour,
    Neighbours,
    Plot,
    Prose,
    Section,
    render_page,
)
from embedtrain.show.plots import line_plot, running_mean, scatter_plot
from embedtrain.show.progress import Clock, duration_text, progress
from embedtrain.show.tables import markdown_table, print_table, table_text

COLUMNS = ["model", "FAQ", "note"]
ROWS = [["BM25", 61.234, "wins [b]here[/b]"], ["base | causal", None, ""], ["soup", 1045.0, "ok"]]


class FakeTime:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1:00 min"), (185, "3:05 min"), (3600, "1:00 h"), (7621, "2:07 h")],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_end_time_forgets_a_slow_start() -> None:
    now = FakeTime()
    clock = Clock(100, now)
    now.seconds += 60  # the first unit takes a minute, the others a second each
    clock.add(1)
    for _ in range(49):
        now.seconds += 1
        clock.add(1)
    assert clock.rate == pytest.approx(1.0)
    assert clock.status("step") == "50/100 steps, 1 steps/s, 50 s left"


def test_a_log_gets_a_line_every_ten_seconds_and_a_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now, out = FakeTime(), io.StringIO()
    monkeypatch.setattr(progress_file, "Clock", lambda total: Clock(total, now))
    with progress("train", total=30, unit="step", stream=out) as bar:
        for _ in range(30):
            now.seconds += 1
            bar.advance(1, loss=0.12345)
    assert out.getvalue().splitlines() == [
        "train: 10/30 steps, 1 steps/s, 20 s left  loss 0.1235",
        "train: 20/30 steps, 1 steps/s, 10 s left  loss 0.1235",
        "train: 30/30 steps, 1 steps/s  loss 0.1235",
        "train: 30 steps in 30 s  loss 0.1235",
    ]


def test_a_failed_loop_still_says_how_far_it_came() -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError, match="broken"), progress("mine", unit="query", stream=out) as bar:  # noqa: PT012
        bar.advance(3)
        raise RuntimeError("broken")
    assert out.getvalue().startswith("mine: 3 ")


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with progress("encode", total=2, unit="text", stream=out) as bar:
        bar.advance(2, loss=1.5)
    assert "encode" in out.getvalue()
    assert "2/2 texts" in out.getvalue()
    assert "loss 1.5" in out.getvalue()


def test_a_plain_table_is_narrow_and_keeps_brackets() -> None:
    text = table_text("Before and after", COLUMNS, ROWS, "higher is better")
    lines = text.splitlines()
    assert lines[0] == "Before and after"
    assert max(map(len, lines)) <= 100
    assert "wins [b]here[/b]" in text
    assert lines[-1] == "higher is better"
    ends = [re.search(r"61\.23|—|1,045\.00", line) for line in lines if re.search(r"BM25|base|soup", line)]
    assert len({match.end() for match in ends if match}) == 1, "figures stand on the right"


def test_a_long_cell_wraps_within_the_width() -> None:
    text = table_text(None, ["a", "b"], [["x" * 150, "y " * 80]])
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("x") == 150


def test_print_table_writes_to_the_given_console() -> None:
    out = io.StringIO()
    print_table("T", COLUMNS, ROWS, console=Console(file=out, width=100))
    assert "1,045.00" in out.getvalue()


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 1 has 2 cells, expected 3: \['soup', 1\]"):
        table_text(None, COLUMNS, [ROWS[0], ["soup", 1]])


def test_markdown_escapes_bars_and_aligns_figures() -> None:
    assert markdown_table(COLUMNS, ROWS).splitlines() == [
        "| model | FAQ | note |",
        "| --- | ---: | --- |",
        "| BM25 | 61.23 | wins [b]here[/b] |",
        "| base &#124; causal | — |  |",
        "| soup | 1,045.00 | ok |",
    ]


def test_running_mean_leaves_gaps_out() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0])
    np.testing.assert_allclose(running_mean(values, 2), [1, 2, 3, 5])
    assert np.isnan(running_mean(np.array([np.nan]), 3)).all()


def test_plots_follow_the_page_and_repeat_byte_for_byte() -> None:
    series = {"a & b": ([0, 1, 2], [3.0, float("nan"), 1.0]), "once": ([1], [2.0])}
    svg = line_plot(series, 'loss "<&>"', "step", "loss", mean_over=2)
    assert svg == line_plot(series, 'loss "<&>"', "step", "loss", mean_over=2)
    assert svg.startswith("<svg")
    assert 'aria-label="loss &quot;&lt;&amp;&gt;&quot;"' in svg
    assert "currentColor" in svg
    assert "var(--series-0, #0072b2)" in svg
    assert not re.search(r"#010203|#040506|<metadata|<\?xml|DejaVu", svg)
    assert "a &amp; b" in svg


def test_a_large_scatter_stays_small() -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 2))
    svg = scatter_plot(points, ["a", "b"] * 10_000, "map")
    assert 1_900 <= svg.count("<use") <= 2_100
    assert len(svg) < 400_000


def test_plots_refuse_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="plot 'loss' has no finite point to draw"):
        line_plot({"a": ([0.0], [float("nan")])}, "loss")
    with pytest.raises(ValueError, match="plot 'loss', series 'a': 2 x values, 1 y values"):
        line_plot({"a": ([0, 1], [1])}, "loss")
    with pytest.raises(ValueError, match=r"plot 'map': points \(3, 2\), expected \(2, 2\)"):
        scatter_plot(np.zeros((3, 2)), ["a", "b"], "map")


class Tags(HTMLParser):
    """Collects what a page opens and closes, and what it would load."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.loads += [str(named[key]) for key in ("src", "href") if key in named]
        if tag in ("script", "link", "iframe"):
            self.loads.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A closed tag opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def whole_page() -> str:
    """A page with every kind of block, and text that must be escaped in each."""
    bad = "<script>alert('&')</script>"
    cells = [[bad, Measured(45.31, 40.1, 50.2, best=True), None], ["b", Measured(20.0), 7]]
    blocks = [
        Prose(bad),
        Prose("small", quiet=True),
        Code(f"make quickstart # {bad}"),
        Grid(["model", bad, "n"], cells, bad, strong_rows=frozenset({0}), rule_before=frozenset({1})),
        Plot(line_plot({"a": ([0, 1], [1.0, 2.0])}, "loss"), bad),
        Neighbours(bad, [(bad, [Neighbour(bad, 0.5, True), Neighbour("b", 0.25, False)])]),
    ]
    return render_page(bad, [Section(bad, blocks)], lead=bad, facts=[("tokens", 232000)])


def test_a_page_is_whole_escaped_and_loads_nothing() -> None:
    page = whole_page()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(load.startswith("#") for load in tags.loads), tags.loads
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 11
    assert not re.search(r"url\((?!#)|@import", page)


def test_a_page_shows_intervals_small_and_the_best_bold() -> None:
    page = whole_page()
    assert "<b>45.3</b><small>40.1–50.2</small>" in page
    assert ">20.0</td>" in page
    assert ">—</td>" in page
    assert "<dd>232,000</dd>" in page
    assert 'class="hit"' in page
    assert 'class="miss"' in page
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_of_several_processes_only_the_first_shows_progress(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    with progress("train", total=1, unit="step") as bar:
        bar.advance()
    assert len(capsys.readouterr().err.splitlines()) == lines
