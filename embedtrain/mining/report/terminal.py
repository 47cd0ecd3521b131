"""The report in the terminal: the tables, and where to read more."""

from collections.abc import Sequence

from embedtrain.mining.report.source import SourceReport
from embedtrain.mining.report.tables import agreement_table, count_table, score_table, suspect_table
from embedtrain.show.tables import print_table


def print_report(reports: Sequence[SourceReport]) -> None:
    """What became of candidates and rows, how scores lie, suspects and agreement."""
    for part in ("candidates", "rows"):
        print_table(f"Selected: {part}", *count_table(reports, part))
    print_table(
        "Mean scores",
        *score_table(reports),
        note="above: candidates and kept negatives that score no lower than the row's lowest positive",
    )
    print_table(
        "Suspected false negatives",
        *suspect_table(reports),
        note="with texts, worst first: mining.html",
    )
    columns, cells = agreement_table(reports)
    if cells:
        print_table(
            "Agreement of the columns", columns, cells, note="means over rows; both are 1 where equal"
        )
