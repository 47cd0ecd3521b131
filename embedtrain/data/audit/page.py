"""The audit for a person: tables in the terminal, and a self-contained page with plots."""

from collections.abc import Sequence

from embedtrain.config.errors import shorten
from embedtrain.data.audit.faults import FAULTS
from embedtrain.data.audit.languages import UNSURE
from embedtrain.data.audit.result import Audit
from embedtrain.data.audit.sample import SIDES
from embedtrain.data.audit.tables import (
    Rows,
    between_table,
    drop_empty,
    fault_table,
    label_table,
    language_shares,
    language_table,
    length_table,
    lengths_of,
    licence_table,
    size_table,
    test_table,
)
from embedtrain.show.page import Block, Grid, Plot, Prose, Section, render_page
from embedtrain.show.plots import range_plot, share_plot
from embedtrain.show.tables import print_table

SHOWN_PERCENTS = (5, 25, 50, 75, 95)
SHOWN_CHARACTERS, SHOWN_IN_TERMINAL = 120, 40
HELD_AGAINST = {
    "row": ("repeats", "query → positive there"),
    "test": ("test data", "test text", "words in common"),
}
NO_TOKENS = "In words; with a run file or a tokenizer they are counted in tokens."


def print_audit(audit: Audit) -> None:
    """The summary: sizes, faults, lengths, languages, test data and licences."""
    show("Rows", drop_empty(size_table(audit), 0))
    faults = drop_empty(fault_table(audit), 0)
    clean = [fault.heading for fault in FAULTS.values() if fault.heading not in faults.columns]
    none = f"; in no row: {', '.join(clean)}" if clean else ""
    show("Rows with a fault", faults, f"What each means and how to mend it: docs/audit.md{none}")
    for side in SIDES:
        show(f"{unit(audit).capitalize()} of a {side}", length_table(audit, side))
    show("Languages", language_table(audit))
    if audit.test:
        title = f"Test texts of which {audit.ngram_words} words in a row, or all of fewer, stand in the rows"
        show(title, test_table(audit))
    show("Licences", licence_table(audit))


def show(title: str, rows: Rows, note: str | None = None) -> None:
    """One table in the terminal."""
    cells = [[clip(cell, SHOWN_IN_TERMINAL) for cell in line] for line in rows.cells]
    print_table(title, rows.columns, cells, note)


def clip(cell: object, longest: int) -> object:
    """A text in one line; anything else as it is."""
    if not isinstance(cell, str):
        return cell
    text = " ".join(cell.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def unit(audit: Audit) -> str:
    """What lengths are counted in."""
    return "tokens" if any(source.sampled.lengths for source in audit.sources.values()) else "words"


def audit_page(audit: Audit) -> str:
    """The page."""
    faulty = sum(sum(source.faults.values()) for source in audit.sources.values())
    facts = [
        ("rows", audit.rows),
        ("sources", len(audit.sources)),
        ("faults found", faulty),
        ("test texts touched", sum(part.touched for part in audit.test) if audit.test else None),
    ]
    sections = [
        Section("Rows", [grid(size_table(audit))]),
        Section("Faults", fault_blocks(audit)),
        *section("Repeated between sources", between_table(audit)),
        *section("Test data", test_table(audit), test_caption(audit)),
        Section("Lengths", length_blocks(audit)),
        Section("Languages", language_blocks(audit)),
        *section("Labels", label_table(audit), LABELS),
        Section("Licences", [grid(licence_table(audit), LICENCES)]),
        *example_sections(audit),
    ]
    lead = "What the rows hold and what is wrong with them, before a model sees them."
    return render_page("Audit of rows", sections, lead=lead, facts=facts)


LABELS = "Evenness: entropy of the labels by that of as many equal ones; 1 where all are equal."
LICENCES = "As the card.md beside the rows states it, or the first line of the LICENSE file."


def grid(rows: Rows, caption: str = "") -> Grid:
    """A table on the page; the sum is set apart."""
    last = frozenset({len(rows.cells) - 1} if rows.total else ())
    return Grid(rows.columns, rows.cells, caption=caption, strong_rows=last, rule_before=last)


def section(title: str, rows: Rows, caption: str = "") -> list[Section]:
    """A section of one table; none where it is empty."""
    return [Section(title, [grid(rows, caption)])] if rows.cells else []


def test_caption(audit: Audit) -> str:
    """What counts as found."""
    return (
        f"A test text is found where {audit.ngram_words} of its words in a row stand in a row's query, "
        "positive or negative; a shorter test text where a text of the rows has just its words."
    )


def fault_blocks(audit: Audit) -> list[Block]:
    """Counts, and what they mean."""
    meanings = [[fault.heading, fault.title, fault.meaning, fault.rule] for fault in FAULTS.values()]
    return [
        grid(fault_table(audit), "Rows with the fault; a row may have several."),
        Grid(["column", "fault", "meaning", "rule of a filter stage"], meanings),
    ]


def length_blocks(audit: Audit) -> list[Block]:
    """A plot for each side, and the figures."""
    pairs = [(length_plot(audit, side), grid(length_table(audit, side))) for side in SIDES]
    return [*(block for pair in pairs for block in pair), Prose(length_caption(audit), quiet=True)]


def length_caption(audit: Audit) -> str:
    """What was counted."""
    if unit(audit) == "words":
        return NO_TOKENS
    drawn = f"on {count_sampled(audit):,} rows drawn at random"
    if any(lengths.limit for source in audit.sources.values() for lengths in lengths_of(source).values()):
        return (
            f"As the model sees the texts, template and special tokens included, {drawn}; cut: the share of "
            "texts above the limit."
        )
    return f"Of the bare texts with special tokens, {drawn}; a run file adds templates and limits."


def count_sampled(audit: Audit) -> int:
    """Rows in the sample."""
    return sum(source.sampled.num_rows for source in audit.sources.values())


def length_plot(audit: Audit, side: str) -> Plot:
    """Where most lengths of one side lie."""
    sources = {name: lengths_of(source)[side] for name, source in audit.sources.items()}
    rows = [(name, [max(one.percentiles[p], 1) for p in SHOWN_PERCENTS]) for name, one in sources.items()]
    limits = [one.limit for one in sources.values()]
    title = {"query": "Queries", "positive": "Positives"}[side]
    cut = "; the upright mark is the limit" if any(limits) else ""
    svg = range_plot(rows, f"{title}: {unit(audit)}", f"{unit(audit)} a text", marks=limits, log=True)
    return Plot(
        svg,
        f"{title}: 90 % of the texts lie on the line, half on its thick part, the dot is the median{cut}.",
    )


def language_blocks(audit: Audit) -> list[Block]:
    """Shares of languages, by source and side."""
    caption = (
        f"Share of texts by language, told by py3langid on {count_sampled(audit):,} rows drawn at random; "
        "texts too short to tell are unsure."
    )
    plot = share_plot(language_shares(audit), "Languages", faint=[UNSURE])
    return [Plot(plot, caption), grid(language_table(audit))]


def example_sections(audit: Audit) -> list[Section]:
    """The first rows with each fault."""
    blocks: list[Block] = []
    for name, fault in FAULTS.items():
        heads = HELD_AGAINST.get(fault.against, ())
        cells = example_cells(audit, name, len(heads))
        if cells:
            title = Prose(f"{fault.title.capitalize()}: {fault.meaning}", quiet=True)
            blocks += [title, Grid(("source", "row", "query", "positive", *heads), cells)]
    return [Section("Examples", blocks)] if blocks else []


def example_cells(audit: Audit, fault: str, num_held: int) -> Sequence[Sequence[object]]:
    """One line a row; what it is held against in the last `num_held` columns."""
    return [
        [
            name,
            f"{example.row:,}",
            shorten(example.query, SHOWN_CHARACTERS),
            shorten(example.positive, SHOWN_CHARACTERS),
            *[example.where, shorten(example.against, SHOWN_CHARACTERS), example.shared][:num_held],
        ]
        for name, source in audit.sources.items()
        for example in source.examples.get(fault, ())
    ]
