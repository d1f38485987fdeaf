"""`prepare_data.py verify`: check a folder, print what was found, write verify.html and verify.json."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from datasets.images.pairs import is_data as is_pictures
from datasets.prepare.verify.findings import ERROR, Report
from datasets.prepare.verify.pictures import verify_pictures
from datasets.prepare.verify.volumes import verify_volumes
from datasets.volumes.lists import is_data as is_volumes
from utils.errors import UserError, counted
from utils.files import write_atomically
from utils.log import log

FOLDER = Path(__file__).parent
SYNAPSE_LISTS = FOLDER.parents[2] / "synapse_train_test" / "lists" / "lists_Synapse"
MOST_LINES = 5  # of one kind on the terminal; the page and the JSON have all


def verify(data: Path, csvfile: Path | None, list_dir: Path | None, output_dir: Path | None) -> int:
    """Check `data`; 0 where nothing is wrong, else 1. raises: UserError for a folder of neither layout"""
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; expected one with train_npz/ and test_vol_h5/, or images/ and masks/")
    if is_volumes(data):
        if csvfile:
            raise UserError(f"--csvfile {csvfile}: {data} holds volumes, which have lists; expected --list_dir")
        report = verify_volumes(data, list_dir, SYNAPSE_LISTS)
    elif is_pictures(data):
        if list_dir:
            raise UserError(f"--list_dir {list_dir}: {data} holds pictures, which have a CSV; expected --csvfile")
        report = verify_pictures(data, csvfile)
    else:
        found = ", ".join(sorted(item.name for item in data.iterdir())[:8]) or "nothing"
        raise UserError(f"{data}: found {found}; expected train_npz/ and test_vol_h5/, or images/ and masks/")
    out = output_dir or data
    write_atomically(out / "verify.json", to_json(report, data))
    write_atomically(out / "verify.html", to_page(report, data))
    say(report)
    log(f"{out / 'verify.html'} shows the files; {out / 'verify.json'} lists them")
    return 1 if report.num_errors else 0


def say(report: Report) -> None:
    """The tables and the first findings of each kind on the terminal."""
    for title, rows in report.tables.items():
        log(f"{title}: " + "; ".join(" ".join(map(str, row)) for row in rows[1:]))
    shown: Counter[str] = Counter()
    totals = Counter(found.kind for found in report.findings)
    for found in sorted(report.findings, key=lambda found: (found.level != ERROR, found.kind)):
        shown[found.kind] += 1
        if shown[found.kind] <= MOST_LINES:
            log(f"{found.level}: {found.kind}: {found.where + ': ' if found.where else ''}{found.text}")
        elif shown[found.kind] == MOST_LINES + 1:
            log(f"  ... and {totals[found.kind] - MOST_LINES} more: {found.kind}")
    verdict = "nothing is wrong" if not report.num_errors else counted(report.num_errors, "error")
    log(f"{verdict}; {counted(report.num_notes, 'note')}")


def to_json(report: Report, data: Path) -> str:
    findings = [{k: v for k, v in asdict(found).items() if k != "thumbnails"} for found in report.findings]
    head = {"data": data.name, "layout": report.layout, "errors": report.num_errors, "notes": report.num_notes}
    return json.dumps(head | {"tables": report.tables, "findings": findings}, indent=1, ensure_ascii=False) + "\n"


def to_page(report: Report, data: Path) -> str:
    """A page without scripts that loads nothing; text of files is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    kinds: dict[tuple[str, str], list] = {}
    for found in sorted(report.findings, key=lambda found: found.level != ERROR):
        kinds.setdefault((found.level, found.kind), []).append(found)
    jinja = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return jinja.get_template("page.html").render(report=report, name=data.resolve().name, kinds=kinds, counted=counted)
