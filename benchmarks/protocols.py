"""One and the same prediction under the legacy and the standard protocol, side by side.

    python -m benchmarks.protocols [--run FOLDER FOLDER] [--output results/protocols.json]

A small case for each trap of the legacy rule, with the figures that were found by hand; a figure that differs from them
is marked. `--run` adds what test.py measured for one checkpoint: its folders test_legacy and test_standard.
"""

import argparse
import math
from typing import Any

from benchmarks.machine import ROOT, write_json
from benchmarks.protocol_cases import TRAPS, Figures, Trap
from benchmarks.protocol_pair import COUNTS, read_pair, side_by_side
from utils.errors import run_main
from utils.results.summary import summarise
from utils.scoring.protocols import PROTOCOLS

COLUMNS = ("dice", "hd95", "nsd")
KNOWN = 1e-12  # how far rounding may take a figure from the one found by hand


def measure(trap: Trap, protocol: str) -> Figures:
    """The figures that `trap` names, from the summary of its rows; None for an undefined one."""
    meta = {"protocol": protocol, "split": "", "selection": "", "checkpoints": [], "img_size": []}
    overall = summarise(trap.rows(protocol), meta)["overall"]
    return {name: _figure(overall, name) for name in getattr(trap, protocol)}


def _figure(overall: dict[str, Any], name: str) -> float | None:
    if name in overall:
        return overall[name]
    metric, _, part = name.partition(" ")
    return overall["metrics"][metric][part.replace(" ", "_") or "mean"]


def agree(measured: Figures, expected: Figures) -> bool:
    """Whether all figures are those expected, but for rounding."""
    return measured.keys() == expected.keys() and all(
        (one is None) == (other is None) and (one is None or math.isclose(one, other, rel_tol=KNOWN, abs_tol=KNOWN))
        for one, other in ((measured[name], expected[name]) for name in expected)
    )


def traps() -> list[dict[str, Any]]:
    """One entry a trap: what it is, both protocols' figures, and whether they are those found by hand."""
    found = []
    for trap in TRAPS:
        figures = {protocol: measure(trap, protocol) for protocol in PROTOCOLS}
        right = all(agree(figures[protocol], getattr(trap, protocol)) for protocol in PROTOCOLS)
        found.append(
            {"case": trap.name, "trap": trap.what, "by_hand": trap.by_hand, **figures, "as_found_by_hand": right}
        )
    return found


# --- tables --------------------------------------------------------------------------------------


def format_traps(entries: list[dict[str, Any]]) -> str:
    """A line a case: Dice in percent, distances with their unit, and the figures that a case shows besides."""
    lines = [["case", "trap of the legacy rule", "legacy: Dice %", "HD95", "standard: Dice %", "HD95", "NSD %", "also"]]
    for e in entries:
        cells = [e["case"], e["trap"], *_cells(e["legacy"])[:2], *_cells(e["standard"])]
        besides = {p: [f"{name} {_number(v)}" for name, v in e[p].items() if _extra(name)] for p in PROTOCOLS[::-1]}
        also = "; ".join(f"{p}: {', '.join(texts)}" for p, texts in besides.items() if texts)
        lines.append([*cells, also + ("" if e["as_found_by_hand"] else "  NOT AS FOUND BY HAND")])
    return _aligned(lines, "llrrrrrl")


def format_run(run: dict[str, Any]) -> str:
    """A line a class and the mean, n being the cases that have the class or a prediction of it."""
    names = ", ".join(f"{o['file']} {o['sha256'][:12]}" for o in run["checkpoints"])
    lines = [["class", "n", "missed", "legacy: Dice %", "HD95", "standard: Dice %", "HD95", "NSD %"]]
    for name, both in [*run["classes"].items(), ("mean", run["overall"])]:
        means = {p: {m: f["mean"] for m, f in one.items() if m not in COUNTS} for p, one in both.items()}
        counts = both["standard"]
        number = counts["found"] + counts["missed"] + counts["false_positive"]
        cells = [*_cells(means["legacy"])[:2], *_cells(means["standard"])]
        lines.append([name, str(number), str(counts["missed"]), *cells])
    return f"{run['dataset']}, {run['split']}, {run['num_cases']} cases; {names}\n{_aligned(lines, 'lrrrrrrr')}"


def _extra(name: str) -> bool:
    return " " in name or name.split("_")[0] not in COLUMNS


def _cells(figures: Figures) -> list[str]:
    """Dice, HD95 and NSD as text; a dash for one that is undefined, nothing for one that there is not."""
    found = {name.split("_")[0]: (name, value) for name, value in figures.items() if not _extra(name)}
    cells = []
    for kind in COLUMNS:
        name, value = found.get(kind, ("", math.nan))
        unit = f" {name.split('_')[1]}" if kind == "hd95" and value is not None and name else ""
        scaled = value if value is None or kind == "hd95" else 100 * value
        cells.append(f"{_number(scaled, '.2f')}{unit}" if name else "")
    return cells


def _number(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else f"{value:{form}}"


def _aligned(lines: list[list[str]], sides: str) -> str:
    """Columns of equal width, each to the left (l) or right (r)."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    forms = [f"{'<' if side == 'l' else '>'}{width}" for side, width in zip(sides, widths)]
    return "\n".join("  ".join(map(format, line, forms)).rstrip() for line in lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs=2, metavar="FOLDER", help="test_legacy and test_standard of one checkpoint")
    parser.add_argument("--output", default=ROOT / "results" / "protocols.json")
    args = parser.parse_args(argv)
    run = side_by_side(*read_pair(args.run)) if args.run else None
    entries = traps()
    print(format_traps(entries))
    if run:
        print(f"\n{format_run(run)}")
    write_json(args.output, {"traps": entries} | ({"run": run} if run else {}))
    print(f"\nwritten: {args.output}")


if __name__ == "__main__":
    run_main(main)
