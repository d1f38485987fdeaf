"""Rows of figures as lines of text."""

from collections.abc import Sequence
from typing import Any

HEADER = ("work", "size", "batch", "variant", "images/s", "s/image", "spread", "times", "peak MiB", "of rate")


def lines(rows: Sequence[dict[str, Any]], header: bool = True) -> list[str]:
    """The rows of `benchmarks.measure.compare`, one a line.

    spread: (slowest - fastest) / median; times: how many times faster than the first variant, median of the rounds;
    of rate: fraction of the measured matrix rate
    """
    cells = [HEADER] if header else []
    for row in rows:
        start = (row["work"], str(row["size"]), str(row["batch"]), row["variant"])
        if "seconds" not in row:
            cells.append((*start, row.get("error", "not measured")))
            continue
        t = row["seconds"]
        cells.append(
            (
                *start,
                f"{row['images_per_s']:.4g}",
                f"{t['median'] / row['batch']:.3g}",
                f"{(t['max'] - t['min']) / t['median']:.0%}",
                f"{row['ratio']['median']:.2f}",
                f"{row['memory']['peak'] / 2**20:.0f}",
                f"{row['fraction_of_matrix_rate']:.3f}",
            )
        )
    return [align(line) for line in cells]


WIDTHS = (6, 5, 6, 34, 9, 9, 7, 7, 9, 8)


def align(cells: Sequence[str], widths: Sequence[int] = WIDTHS, left: Sequence[int] = (0, 3)) -> str:
    """One line; the columns `left` start at their left edge, the last cell may be longer than its column."""
    text = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
    return " ".join(text).rstrip()
