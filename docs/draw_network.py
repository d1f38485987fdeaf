"""Draw the network: `python -m docs.draw_network` writes docs/network.svg.

Every number in the picture is read from a network that `build_model` returns, or from the constants of models/.
Lengths are in units of 1/100 inch, and y grows downwards. Levels count the resolutions, fine to coarse.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Line
from torch import nn

from models import HeteroMedSeg, build_model
from models.hetero_medseg import REGION
from models.layers import Mlp
from models.scsa import POOL
from models.vssd import STATE_SIZE
from tools.explain.figures import svg_of

SIDE = 224  # of the input for which sizes are given
NUM_CLASSES = 9  # of the network whose parameters are counted: background and eight organs
WIDTH, HEIGHT = 1200, 1130
ROWS = (62, 194, 330, 466, 593)  # y of the image, of the three levels and of the lowest map
GAPS = (126, 262, 398, 534)  # y between two of them
PANEL = 646  # y where the panels of the blocks begin
INK, MUTED = "#17202c", "#566171"
ROUND, PILL, CIRCLE = "round,pad=0,rounding_size=6", "round,pad=0,rounding_size=14", "circle,pad=0"
LOOKS = {  # fill, border and words
    "vssd": ("#dce8fc", "#2f63b5", "#133a78"),
    "bra": ("#d5f0e3", "#1b8259", "#0c4a31"),
    "scsa": ("#fdebcf", "#b46a00", "#6e4000"),
    "move": ("#ece4fa", "#7850ba", "#44257d"),
    "plain": ("white", "#6a7685", INK),
    "band": ("#f4f6f9", "#f4f6f9", INK),
}
LEGEND = {
    "C": "concatenation of channels",
    "↓": "convolution with a stride, followed by BatchNorm",
    "↑": "enlargement by pixel shuffle",
}
Pair = tuple[float, float]


def main() -> None:
    path = Path(__file__).with_name("network.svg")
    path.write_text(svg_of(draw(build_model(NUM_CLASSES))), encoding="utf-8")
    print(f"written: {path}")


def draw(network: HeteroMedSeg) -> Figure:
    """The whole picture of `network`."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    ax.axis("off")
    strides = [1, *(stage.stride for stage in network.decoder[::-1]), REGION]
    channels = ["", *(f"\n{down[0].in_channels} channels" for down in network.downsample)]
    channels.append(f"\n{network.downsample[-1][0].out_channels} channels")
    for y, stride, dim in zip(ROWS, strides, channels):
        box(ax, (WIDTH / 2, y), (WIDTH - 40, 74 if stride == REGION else 92), "band")
        words(ax, 36, y, f"{SIDE // stride} × {SIDE // stride}\nstride {stride}{dim}", 15, ha="left")
    for level in range(3):
        draw_level(ax, network, level)
    draw_ends(ax, network)
    for column, draw_block in enumerate((draw_vssd, draw_bra, draw_scsa)):
        box(ax, (208 + 392 * column, (PANEL + HEIGHT - 20) / 2), (376, HEIGHT - 20 - PANEL), "band")
        draw_block(ax, network, 20 + 392 * column)
    return figure


def draw_level(ax: Axes, network: HeteroMedSeg, level: int) -> None:
    """Encoder stage, skip and decoder stage of one resolution, with the steps to and from the next coarser one."""
    encoder, decoder, down = network.encoder[level], network.decoder[2 - level], network.downsample[level][0]
    y, turn, below = ROWS[level + 1], GAPS[level + 1], ROWS[level + 2]
    blocks = 270 + 42 * level
    join, gates, reduce, attend = (x - 42 * level for x in (668, 763, 889, 1062))
    last = level == 2
    arrow(ax, (blocks + 42, y), (blocks + 42, below - (20 if last else 36)))
    start = blocks + 42 if last else attend - 42
    arrow(ax, (start, below), *([(join, below)] if last else [(start, turn), (join, turn)]), (join, y + 16))
    box(ax, (blocks + 42, turn), (132, 28), "plain", f"Conv {kernel(down)} ↓ {down.stride[0]}", style=PILL)
    expand = f"PatchExpand ↑ {decoder.expand.scale}"
    box(ax, (join if last else (join + start) / 2, turn), (152, 28), "move", expand, style=PILL)
    arrow(ax, (blocks, y), (join - 16, y), color=LOOKS["scsa"][1], linestyle=(0, (5, 3)))
    words(ax, (blocks + join) / 2 + 45, y - 13, "skip", color=MUTED)
    for left, right in ((join, gates - 58), (gates, reduce - 46), (reduce, attend - 100)):
        arrow(ax, (left, y), (right, y))
    for x, look in ((blocks, "vssd"), (attend, "bra")):
        box(ax, (x + 6, y - 6), (200, 60), look)  # a second sheet: the stage has several blocks
    box(ax, (blocks, y), (200, 60), "vssd", f"VSSD block × {len(encoder)}\n{encoder[0].attn.num_heads} heads", 15)
    box(ax, (join, y), (32, 32), "plain", "C", 15, CIRCLE)
    box(ax, (gates, y), (116, 60), "scsa", f"SCSA\n{decoder.attention.num_heads} heads", 15)
    box(ax, (reduce, y), (92, 60), "plain", f"Linear\n{decoder.reduce.in_features} → {decoder.reduce.out_features}")
    routes = f"top-{decoder.blocks[0].attn.topk} regions, {decoder.blocks[0].attn.num_heads} heads"
    box(ax, (attend, y), (200, 60), "bra", f"BRA block × {len(decoder.blocks)}\n{routes}", 15)


def draw_ends(ax: Axes, network: HeteroMedSeg) -> None:
    """Image and stem, lowest map and legend, head and logits."""
    top, bottom = ROWS[0], ROWS[4]
    first, second = (f"Conv {kernel(conv)} ↓ {conv.stride[0]}" for conv in (network.stem[0], network.stem[3]))
    stem = f"stem: {first}, {network.stem[0].out_channels} channels; GELU; {second}"
    arrow(ax, (214, top), (214, ROWS[1] - 36))
    box(ax, (382, GAPS[0]), (430, 28), "plain", stem, style=PILL)
    words(ax, 272, top, "image\n1 or 3 channels", 15, ha="left")
    count = sum(weight.numel() for weight in network.parameters())
    words(ax, 560, top, f"{count / 1e6:.2f} M parameters\nfor {network.num_classes} classes", 15)
    box(ax, (396, bottom), (200, 42), "plain", "lowest map, no blocks")
    for row, (mark, meaning) in enumerate(LEGEND.items(), -1):
        words(ax, 660, bottom + 20 * row, mark)
        words(ax, 680, bottom + 20 * row, meaning, color=MUTED, ha="left")
    arrow(ax, (1062, ROWS[1]), (1062, top), (856, top))
    box(ax, (1062, GAPS[0]), (226, 28), "move", f"LayerNorm, PatchExpand ↑ {network.head.expand.scale}", style=PILL)
    classify = network.head.classify
    box(ax, (1062, top), (176, 44), "plain", f"Conv {kernel(classify)}\n{classify.in_channels} → K classes")
    words(ax, 756, top, "logits\nK channels", 15, ha="right")
    for x, colors in ((214, ["#97a1ae"] * 3), (812, ["#2f63b5", "#e0902a", "#1b8259"])):  # a body with three organs
        ax.add_patch(Ellipse((x, top), 84, 62, color="#c9d0d9"))
        for (dx, dy, width, height), color in zip(((-15, -3, 34, 28), (20, -2, 18, 26), (2, 16, 14, 12)), colors):
            ax.add_patch(Ellipse((x + dx, top + dy), width, height, color=color))


def draw_vssd(ax: Axes, network: HeteroMedSeg, left: float) -> None:
    """The block, its mixer, and what the middle token sees in the three forms of SSD."""
    block = network.encoder[0][0]
    first, second = (f"DWConv {kernel(conv)}" for conv in (block.cpe1, block.cpe2))
    words(ax, left + 16, PANEL + 36, "VSSD block\nof the encoder, C channels", 16, ha="left")
    steps = f"{first} | + | LayerNorm | vssd: mixer | + | {second} | + | LayerNorm | {hidden(block.mlp)} | +"
    chain(ax, left + 106, PANEL + 70, 128, steps)
    words(ax, left + 282, PANEL + 66, "mixer, a 2-D Mamba-2", color=MUTED)
    mixer = f"vssd: Linear | vssd: x, B, C: DWConv {kernel(block.attn.conv2d)}\nSiLU; Δ: softplus"
    mixer += f" | vssd: SSD + D x\nstate {STATE_SIZE} | vssd: LayerNorm | × | vssd: Linear"
    chain(ax, left + 282, PANEL + 90, 164, mixer, first=1)
    words(ax, left + 192, PANEL + 198, "z", 12)
    age = 12 - np.arange(25.0)  # of each token, seen from the middle one
    forms = {"causal": 0.85**age * (age >= 0), "noncausal": 0.5, "bidirectional": 0.85 ** abs(age)}
    for row, (form, seen) in enumerate(forms.items()):
        grid(ax, left + 210, PANEL + 347 + 38 * row, 6.5, np.where(age == 0, 1.3, seen).reshape(5, 5), "Blues")
        words(ax, left + 254, PANEL + 363 + 38 * row, form, ha="left")


def draw_bra(ax: Axes, network: HeteroMedSeg, left: float) -> None:
    """The block, and how a region chooses its routes."""
    block = network.decoder[0].blocks[0]
    words(ax, left + 16, PANEL + 36, "BRA block\nof the decoder, C channels", 16, ha="left")
    steps = f"LayerNorm a | DWConv {kernel(block.pos_embed)} | + | LayerNorm a | bra: BRA | +"
    chain(ax, left + 106, PANEL + 70, 128, f"{steps} | LayerNorm b | {hidden(block.mlp)} | +", first=1)
    note = "LayerNorm a: one set of weights, used twice;\nno residual around the block"
    words(ax, left + 16, PANEL + 440, note, color=MUTED, ha="left")
    words(ax, left + 282, PANEL + 66, "routing attention", color=MUTED)
    regions = np.full((7, 7), 0.15)
    regions[1:3, 2:4], regions[3, 3] = 0.7, 1.3
    grid(ax, left + 230, PANEL + 84, 15, regions, "Greens")
    routing = f"regions of {REGION} × {REGION}\ninput pixels: mean q, k | bra: q · k: top-k regions | "
    routing += f"bra: pixels attend to all\npixels of those | + DWConv {kernel(block.attn.lepe)} of v\nLinear"
    chain(ax, left + 282, PANEL + 204, 168, routing)


def draw_scsa(ax: Axes, network: HeteroMedSeg, left: float) -> None:
    """Gates of rows and columns, then of channels."""
    scsa = network.decoder[0].attention
    widths = ", ".join(map(kernel, (scsa.local_dwc, scsa.global_dwc_s, scsa.global_dwc_m, scsa.global_dwc_l)))
    heads = ", ".join(str(stage.attention.num_heads) for stage in network.decoder)
    words(ax, left + 16, PANEL + 36, "SCSA\nwhere the skips join, 2 C channels", 16, ha="left")
    steps = f"means of rows, of columns | scsa: DWConv1d {widths} on a quarter\nof the channels each; shared | "
    steps += (
        f"GroupNorm, σ: gates of rows, columns | × | AvgPool {POOL}×{POOL}, GroupNorm | q, k, v: a factor a channel | "
    )
    steps += (
        f"scsa: attention between channels\n{heads} heads, coarse to fine | mean over pixels, σ: gates of channels | ×"
    )
    chain(ax, left + 206, PANEL + 74, 280, steps)


def chain(ax: Axes, x: float, top: float, width: float, steps: str, first: int = 0) -> None:
    """Steps in a column, separated by " | "; a step may start with its look, as in "bra: words".

    A "+" or "×" joins what comes from above with what went into the step after the last join (at first: step `first`).
    """
    y, branch = top, top - 4
    for number, step in enumerate(steps.split(" | ")):
        height = 20 if step in "+×" else 27 + 16 * step.count("\n")
        middle = y + height / 2
        if number == first:
            branch = y - 4
        if step in "+×":
            side = x - width / 2 - 14
            arrow(ax, (x, branch), (side, branch), (side, middle), (x - 10, middle))
            box(ax, (x, middle), (20, 20), "plain", step, 15, CIRCLE)
            branch = y + height + 7
        else:
            look, _, text = step.partition(": ")
            look, text = (look, text) if look in LOOKS else ("plain", step)
            box(ax, (x, middle), (width, height), look, text)
        y += height + 11
    arrow(ax, (x, top - 10), (x, y + 8))


def kernel(conv: nn.Module) -> str:
    """Size of a convolution's kernel, as in 3×3."""
    return "×".join(map(str, conv.kernel_size))


def hidden(mlp: Mlp) -> str:
    return f"MLP, {mlp.fc1.out_features // mlp.fc1.in_features} C hidden"


def box(ax: Axes, at: Pair, size: Pair, look: str, text: str = "", font: float = 13.5, style: str = ROUND) -> None:
    """A box with its middle at `at`, and words in it. Bands lie below the arrows, other boxes on top of them."""
    fill, border, ink = LOOKS[look]
    corner, layer = (at[0] - size[0] / 2, at[1] - size[1] / 2), 0.5 if look == "band" else 1
    ax.add_patch(FancyBboxPatch(corner, *size, style, facecolor=fill, edgecolor=border, zorder=layer))
    words(ax, *at, text, font, ink)


def words(ax: Axes, x: float, y: float, text: str, font: float = 13.5, color: str = INK, ha: str = "center") -> None:
    """Lines of text with their middle at y. In a large font, the first line is bold and the others are smaller."""
    lines = text.split("\n")
    for row, line in enumerate(lines):
        bold = font >= 15 and row == 0
        middle = y + (row - (len(lines) - 1) / 2) * font * 1.25
        look = {"size": 0.72 * (font if bold else min(font, 14)), "weight": "bold" if bold else "normal"}
        ax.text(x, middle, line, color=color, ha=ha, va="center", **look)


def arrow(ax: Axes, *points: Pair, color: str = MUTED, linestyle: Any = "-") -> None:
    """A line through the points, with an arrowhead at the last one."""
    look = {"arrowstyle": "-|>,head_width=2.5,head_length=5", "color": color, "linestyle": linestyle}
    ax.add_patch(FancyArrowPatch(path=Line(points), joinstyle="miter", zorder=0.9, **look))


def grid(ax: Axes, x: float, y: float, cell: float, values: np.ndarray, colors: str) -> None:
    """Square cells, each with the color of its value."""
    edges = cell * np.arange(len(values) + 1)
    ax.pcolormesh(x + edges, y + edges, values, cmap=colors, vmin=0, vmax=1.4, edgecolors="white", linewidth=0.8)


if __name__ == "__main__":
    main()
