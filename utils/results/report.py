"""What a test run leaves: cases.csv, summary.json, report.html, and a table in the log."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.log import log, log_lines
from utils.results.page.build import PAGE, write_page
from utils.results.page.curves import read_histories
from utils.results.page.frames import CaseFrames
from utils.results.summary import write_results
from utils.results.table import format_table
from utils.scoring.protocols import Row


def write_report(
    out: Path, rows: Sequence[Row], meta: dict[str, Any], cases: Sequence[CaseFrames] | None, networks: Iterable[Path]
) -> dict[str, Any]:
    """Write the results of a test run into the folder `out` and log their table; returns the summary.

    in: meta: as `describe_result` gives it; cases: frames of every case, or None for no page; networks: the checkpoints
    """
    summary = write_results(out, rows, meta)
    log_lines(format_table(summary))
    if cases is not None:
        write_page(out / PAGE, summary, rows, cases, read_histories(networks))
        log(f"the page to look at: {(out / PAGE).resolve()}")
    return summary
