"""The figure of a comparison: mean Dice of each setting, its difference to the first, and the validation curves."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from tools.compare.statistics import ALL_CLASSES
from utils.files import replacing


class Study(NamedTuple):
    """curves: setting -> one list of (epoch, validation Dice) for each seed"""

    name: str
    comparison: dict[str, Any]
    curves: dict[str, list[list[tuple[int, float]]]]

    @property
    def bars(self) -> dict[str, dict[str, Any]]:
        """Setting -> mean, ci95 and seeds of Dice."""
        return {one["name"]: one["means"][ALL_CLASSES]["dice"] for one in self.comparison["settings"]}

    @property
    def differences(self) -> dict[str, dict[str, Any]]:
        """Setting -> its pair of Dice with the first setting, of all classes."""
        of_first = {"first": next(iter(self.bars)), "class_name": ALL_CLASSES, "metric": "dice"}
        return {pair["second"]: pair for pair in self.comparison["pairs"] if of_first.items() <= pair.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of what is drawn; the figure holds it, so that a test tells whether it is of these data."""
        drawn = [self.bars, self.differences, self.curves]
        return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()


def draw(study: Study, path: Path) -> None:
    """Write the figure as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 9}):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), constrained_layout=True)
        for index, (name, bar) in enumerate(study.bars.items()):
            colour = f"C{index}"
            pair = study.differences.get(name, {"difference": None})
            for axes, value, ci95 in ((left, bar["mean"], bar["ci95"]), (middle, pair["difference"], pair.get("ci95"))):
                if value is not None:
                    axes.plot(100 * value, index, "o", color=colour, markersize=8)
                if ci95 and None not in ci95:
                    axes.plot([100 * end for end in ci95], [index, index], color=colour, linewidth=2)
            seeds = [100 * seed for seed in bar["seeds"]]
            left.plot(seeds, [index + 0.18] * len(seeds), "|", color=colour, markersize=9)
            for number, curve in enumerate(study.curves.get(name, ())):
                epochs, values = zip(*curve)
                label = name if number == 0 else None
                right.plot(epochs, [100 * v for v in values], color=colour, linewidth=1, label=label)
        left.set_yticks(range(len(study.bars)), study.bars)
        middle.set_yticks([])
        for axes in (left, middle):
            axes.set_ylim(len(study.bars) - 0.5, -0.5)
        with_interval = any(None not in bar["ci95"] for bar in study.bars.values())
        left.set_xlabel(f"Dice, %: mean, {'95 % interval, ' if with_interval else ''}seeds (|)")
        middle.axvline(0, color="0.7", linewidth=1)
        middle.set_xlabel(f"difference to {next(iter(study.bars))}, 95 % interval")
        right.set_xlabel("epoch")
        right.xaxis.get_major_locator().set_params(integer=True)
        right.set_ylabel("Dice of the validation part, %")
        if study.curves:
            right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        for axes in (left, middle, right):
            axes.spines[["top", "right"]].set_visible(False)
        with replacing(path) as part:
            figure.savefig(part, metadata={"Date": None, "Description": study.digest})
        plt.close(figure)
