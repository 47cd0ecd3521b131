"""What a person should know of a selection: counts, scores, agreement, suspects and examples."""

from collections.abc import Sequence
from pathlib import Path

from embedtrain.artifacts import write_atomic, write_json
from embedtrain.config.mining import Select
from embedtrain.mining.report.page import report_page
from embedtrain.mining.report.source import SourceReport, examine
from embedtrain.mining.report.terminal import print_report

__all__ = ["SourceReport", "examine", "print_report", "write_report"]

JSON, PAGE = "reasons.json", "mining.html"


def write_report(folder: Path, stage: Select, reports: Sequence[SourceReport]) -> None:
    """Write reasons.json, by source, and mining.html into the folder."""
    write_json(folder / JSON, {report.source: report.to_json() for report in reports})
    write_atomic(folder / PAGE, report_page(stage, reports))
