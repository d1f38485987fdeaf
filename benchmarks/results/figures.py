"""The figure of a comparison: mean Dice of each setting with interval and seeds, and the validation curves."""

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
    def digest(self) -> str:
        """SHA-256 of what is drawn; the figure holds it, so that a test tells whether it is of these data."""
        seeds = {name: bar.get("seeds") for name, bar in self.bars.items()}
        return hashlib.sha256(json.dumps([self.bars, seeds, self.curves], sort_keys=True).encode()).hexdigest()


def draw(study: Study, path: Path) -> None:
    """Write the figure as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 9}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
        for index, (name, bar) in enumerate(study.bars.items()):
            colour = f"C{index}"
            if None not in bar["ci95"]:  # a single case has no interval
                left.plot([100 * end for end in bar["ci95"]], [index, index], color=colour, linewidth=2)
            left.plot(100 * bar["mean"], index, "o", color=colour, markersize=8)
            seeds = [100 * seed for seed in bar["seeds"]]
            left.plot(seeds, [index + 0.18] * len(seeds), "|", color=colour, markersize=9)
            for number, curve in enumerate(study.curves.get(name, ())):
                epochs, values = zip(*curve)
                label = name if number == 0 else None
                right.plot(epochs, [100 * v for v in values], color=colour, linewidth=1, label=label)
        left.set_yticks(range(len(study.bars)), study.bars)
        left.set_ylim(len(study.bars) - 0.5, -0.5)
        left.set_xlabel("Dice, %: mean, 95 % interval over cases, seeds (|)")
        right.set_xlabel("epoch")
        right.set_ylabel("Dice of the validation part, %")
        if study.curves:
            right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        with replacing(path) as part:
            figure.savefig(part, metadata={"Date": None, "Description": study.digest})
        plt.close(figure)
