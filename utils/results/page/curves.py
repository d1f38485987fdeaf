"""Training curves from the history.csv beside a checkpoint."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.errors import UserError
from utils.files import parse_csv, read_text, reading
from utils.log import log
from utils.results.page.charts import INK, Chart, color_of, inline_svg, new_figure, short

PANELS = (("Training loss", "loss", 1), ("Validation Dice, %", "mean_dice", 100), ("Learning rate", "lr", 1))
DAMAGED = "restore or remove it: it only draws the curves of the report"
CLASS = "dice "  # start of the columns with the Dice of one class
Points = list[tuple[float, float]]


def read_histories(checkpoints: Iterable[Path]) -> dict[str, dict[str, Points]]:
    """Name of each training folder that has a history.csv -> its columns; released weights have none.

    A damaged one is left out with a warning: the figures of the test do not need it.
    """
    found = {}
    for file in dict.fromkeys(path.resolve().parent / "history.csv" for path in checkpoints):
        try:
            if file.is_file():
                found[file.parent.name] = read_history(file)
        except UserError as error:
            log(f"warning: {error}")
    return found


def read_history(path: Path) -> dict[str, Points]:
    """Column -> (epoch, value) where there is a value; empty for a file that is no history.

    raises: UserError for a file that is no text, or no CSV
    """
    found: dict[str, Points] = {}
    text = read_text(path, DAMAGED)
    with reading(path, DAMAGED, as_what=" as CSV"):
        header, *lines = parse_csv(text) or [[]]
    for line in lines:
        row = dict(zip(header, line))
        epoch = _number(row.pop("epoch", None))
        for name, text in row.items():
            if math.isfinite(epoch) and math.isfinite(value := _number(text)):
                found.setdefault(name, []).append((epoch, value))
    return found


def training_charts(histories: Mapping[str, Mapping[str, Points]]) -> list[Chart]:
    """Loss, validation Dice and learning rate over the epochs: a line for each run.

    A single run has a line for each class, too.
    in: name of a run -> its columns, as `read_history` gives them
    """
    charts = []
    single = next(iter(histories.values())) if len(histories) == 1 else {}
    dices = {name.removeprefix(CLASS): single[name] for name in single if name.startswith(CLASS)}
    for title, column, scale in PANELS:
        runs = {name: run[column] for name, run in histories.items() if column in run}
        classes = dices if column == "mean_dice" and len(dices) > 1 else {}
        if not runs:
            continue
        lines = len(classes) + len(runs)
        legend = 0.22 * -(-lines // 3) if lines > 1 else 0
        figure, axes = new_figure(2.5 + legend)
        for place, (name, points) in enumerate([*classes.items(), *runs.items()]):
            is_single = single and place == len(classes)
            color, name = (INK, "mean") if is_single else (color_of(place + 1), short(name))
            axes.plot(*zip(*points), "." if len(points) == 1 else "-", color=color, label=name)
        axes.yaxis.set_major_formatter(lambda value, _, scale=scale: f"{value * scale:.10g}")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set_xlabel("epoch")
        if lines > 1:
            figure.legend(loc="outside lower left", ncols=3, frameon=False, labelcolor=INK)
        ends = ", ".join(f"{name} ends at {points[-1][1] * scale:.4g}" for name, points in runs.items())
        charts.append((title, inline_svg(figure, f"{title} over the epochs; {ends}")))
    return charts


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
