"""Figures of tools.explain, drawn with matplotlib: routes, gates of the skips, receptive fields.

Shapes: S/T height and width of the network's input, C channels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.hetero_medseg import REGION
from tools.explain.internals import Gates
from tools.explain.receptive_field import Field, describe_field
from utils.results.page.frames import shrink

if TYPE_CHECKING:  # matplotlib is imported where a figure is made
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, BLUE, GREEN, ORANGE = "#17202c", "#566171", "#2f63b5", "#2fd08a", "#ffb000"
COLUMNS = 4  # blocks in a row of the routes figure
DECADES = 6  # of the receptive fields' color scale
SHOWN_SIDE = 160  # images and fields are embedded with at most this many pixels a side
HEADING = {"size": 10, "weight": "bold", "loc": "left"}
DOT = {"marker": "o", "markeredgecolor": "black", "markersize": 5}


def new_figure(width: float, height: float, title: str, note: str) -> "Figure":
    """An empty white figure with `title` above and the legend `note` below; lengths in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    figure.suptitle(title, x=0.01, ha="left", weight="bold", color=INK)
    figure.supxlabel(note, x=0.01, ha="left", size=10, color=GREY)
    return figure


def show(ax: "Axes", image: np.ndarray, size: Sequence[int], **look: Any) -> Any:
    """Show an image or its smaller copy without ticks, in the coordinates of `size`; later drawing keeps the limits."""
    height, width = size[:2]
    look = {"cmap": "gray", "vmin": 0, "vmax": 255} | look
    shown = ax.imshow(image, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="none", **look)
    ax.set(xticks=[], yticks=[], autoscale_on=False)
    return shown


def draw_routes(image: np.ndarray, routes: Sequence[dict], pixel: tuple[int, int], title: str) -> "Figure":
    """A panel for each block: the regions that the pixel attends to are lit and numbered, the others are dark.

    in: image uint8 (S, T) or (S, T, 3) as the network sees it; routes of the pixel as `Routes.describe` returns them;
        pixel (row, column) in the image
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    num_rows = -(-len(routes) // COLUMNS)
    height = num_rows * (2.2 * image.shape[0] / image.shape[1] + 0.5) + 0.8
    note = "Frame: the region of the pixel (dot). Lit: the regions that it attends to; 1 is the best."
    figure = new_figure(2.3 * COLUMNS, height, title, note)
    axes = figure.subplots(num_rows, COLUMNS, squeeze=False).flat
    for ax in axes[len(routes) :]:
        ax.set_visible(False)
    tints = ListedColormap(["#00000080", f"{GREEN}29"])
    number = {"color": "white", "weight": "bold", "size": 9, "ha": "center", "va": "center"}
    number["bbox"] = {"boxstyle": "round,pad=0.15", "facecolor": "#0000008c", "edgecolor": "none"}
    small = shrink(image, SHOWN_SIDE) // 4 * 4  # 64 levels: the file is smaller, and the eye sees no difference
    for ax, one in zip(axes, routes):
        ranks = np.zeros(one["regions"], int)  # 1 is the best, 0 is not chosen
        ranks[tuple(np.transpose(one["chosen"]))] = range(1, len(one["chosen"]) + 1)
        show(ax, small, image.shape)
        # edges of the regions; the last ones end where the image does
        rows, columns = (np.minimum(REGION * np.arange(n + 1), s) - 0.5 for n, s in zip(ranks.shape, image.shape))
        borders = np.where(ranks > 0, GREEN, "#ffffff26").ravel()
        ax.pcolormesh(columns, rows, ranks > 0, cmap=tints, vmin=0, vmax=1, edgecolors=borders, linewidth=1.2)
        for row, column in np.argwhere(ranks):
            middle = columns[column : column + 2].mean(), rows[row : row + 2].mean()
            ax.text(*middle, str(ranks[row, column]), **number)
        row, column = one["region"]
        size = columns[column + 1] - columns[column], rows[row + 1] - rows[row]
        look = {"fill": False, "edgecolor": ORANGE, "linewidth": 2.5, "zorder": 3}
        ax.add_patch(Rectangle((columns[column], rows[row]), *size, **look))
        ax.plot(pixel[1], pixel[0], color=ORANGE, **DOT)
        ax.set_xlabel(f"block {one['block']}", loc="left", color=GREY)
        if one["block"] == 1:
            ax.set_title(f"stride {one['stride']}: {ranks.max()} of {ranks.size} regions", **HEADING)
    return figure


def draw_gates(image: np.ndarray, gates: Sequence[Gates]) -> "Figure":
    """A row for each skip: gates of rows and columns beside the image, then the sorted gates of the channels."""
    note = "Curves: gates of columns and rows, mean and 10 to 90 % of the channels. Areas: sorted gates of channels."
    figure = new_figure(10, 2.9 * len(gates) + 0.9, "Gates of the skips (SCSA)", note)
    axes = figure.subplots(len(gates), 3, squeeze=False, width_ratios=(1, 2, 2))
    band = {"color": BLUE, "alpha": 0.25, "linewidth": 0}
    for (picture, *areas), one in zip(axes, gates):
        show(picture, shrink(image, SHOWN_SIDE), image.shape)
        above, beside = picture.inset_axes([0, 1.04, 1, 0.3]), picture.inset_axes([1.04, 0, 0.3, 1])
        above.set_title(f"skip at stride {one.stride}", **HEADING)
        above.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[0, 1])
        beside.set(xlim=(0, 1), ylim=(1, 0), xticks=[0, 1], yticks=[])
        places, low, high, mean = spread(one.columns)
        above.fill_between(places, low, high, **band)
        above.plot(places, mean, color=BLUE)
        places, low, high, mean = spread(one.rows)
        beside.fill_betweenx(places, low, high, **band)
        beside.plot(mean, places, color=BLUE)
        halves = zip(areas, one.channels.chunk(2), ("coarser stage", "skip"), ("#1b8259", "#c77800"))
        for ax, values, name, color in halves:
            ax.stairs(values.sort(descending=True).values, fill=True, color=color)
            ax.axhline(float(values.mean()), color=INK, linestyle="--", linewidth=1.2)
            ax.set(xlim=(0, len(values)), ylim=(0, 1), xticks=[], yticks=[0, 0.5, 1], yticklabels=["0", "0.5", "1"])
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_title(f"{name}: {len(values)} channels, mean {values.mean():.2f}", size=10, loc="left")
    return figure


def spread(gate: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a gate (length, C): places along the side in [0, 1]; 10 %, 90 % and mean of the channels at each place."""
    low, high = torch.quantile(gate, gate.new_tensor([0.1, 0.9]), dim=1)
    return (torch.arange(len(gate)) + 0.5) / len(gate), low, high, gate.mean(1)


def draw_fields(fields: Sequence[Field], network: str) -> "Figure":
    """A row for each stage of the encoder, a column for each form of SSD; `network` names the network in the title."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    note = (
        "Gradient of a stage's middle feature with respect to the input, as a part of its largest value.\n"
        "Grey: no gradient at all. Dashed: what the convolutions reach without SSD."
    )
    forms, stages = list(dict.fromkeys(f.form for f in fields)), sorted({f.stage for f in fields})
    height, width = fields[0].values.shape
    size = 2.6 * len(forms) + 1, len(stages) * (2.5 * height / width + 0.6) + 1.7
    figure = new_figure(*size, f"Effective receptive fields of the encoder, {network}", note)
    axes = figure.subplots(len(stages), len(forms), squeeze=False)
    look = {"norm": "log", "vmin": 10.0**-DECADES, "vmax": 1, "cmap": colormaps["inferno"].resampled(4 * DECADES)}
    for field in fields:
        ax, (row, column) = axes[stages.index(field.stage), forms.index(field.form)], field.middle
        side = field.reach + 0.5
        shown = show(ax, heat_of(field.values), (height, width), **look)
        ax.set_facecolor("#7a8594")  # where the heat is masked
        square = {"fill": False, "edgecolor": "white", "linestyle": "--"}
        ax.add_patch(Rectangle((column - side, row - side), 2 * side, 2 * side, **square))
        ax.plot(column, row, color="white", **DOT)
        ax.set_xlabel(caption(field), loc="left", size=9, color=GREY)
        if field.form == forms[0]:
            ax.set_ylabel(f"stage {field.stage + 1}, stride {field.stride}")
        if field.stage == stages[0]:
            ax.set_title(field.form, size=11, weight="bold")
    figure.colorbar(shown, ax=axes, location="bottom", aspect=50, shrink=0.9)
    return figure


def heat_of(values: Tensor) -> np.ma.MaskedArray:
    """A small copy of `values` as parts of its largest one; zeros are masked.

    Positive values below the color scale are raised to its lower end.
    """
    small = shrink(values.double().numpy(), SHOWN_SIDE)
    heat = small / max(small.max(), np.finfo(float).tiny)
    return np.ma.array(heat.clip(10.0**-DECADES), mask=heat == 0)


def caption(field: Field) -> str:
    """What the figure says below a field: where half of it lies, and the share beyond the convolutions' square."""
    found = describe_field(field)
    if found["half_within"] is None:
        return "no gradient"
    (height, width), (row, column) = field.values.shape, field.middle
    covered = max(row, height - 1 - row, column, width - 1 - column) <= field.reach
    share = "the convolutions reach all of it" if covered else f"{100 * found['beyond']:.2g} % beyond the square"
    return f"half of it within {found['half_within']} px\n{share}"
