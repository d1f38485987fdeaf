"""Draw the network: `python -m docs.draw_network` writes docs/network.svg.

Every number in the picture is read from a network that `build_model` returns, or from the constants of models/.
Lengths are in units of 1/100 inch, and y grows downwards.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Line
from torch import nn

from models import HeteroMedSeg, bra, build_model
from models.hetero_medseg import REGION
from models.scsa import POOL
from models.vssd import STATE_SIZE
from tools.output import svg_of

SIDE = 224  # of the input for which sizes are given
NUM_CLASSES = 9  # of the network whose parameters are counted: background and eight organs
WIDTH, HEIGHT = 1200, 1130
ROWS = range(62, 600, 132)  # y of the image, of the three resolutions and of the lowest map
HALF = 66  # from a row to the gap before or after it
BLOCKS, JOIN, GATES, REDUCE, ATTEND = 290, 610, 716, 856, 1046  # x of what stands in a row
PANEL = 646  # y where the panels of the blocks begin
INK, MUTED, BAND = "#17202c", "#566171", "#f4f6f9"
LOOKS = {  # fill, border and words
    "vssd": ("#dce8fc", "#2f63b5", "#133a78"),
    "bra": ("#d5f0e3", "#1b8259", "#0c4a31"),
    "scsa": ("#fdebcf", "#b46a00", "#6e4000"),
    "move": ("#ece4fa", "#7850ba", "#44257d"),
    "plain": ("white", "#6a7685", INK),
    "band": (BAND, BAND, INK),
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
    downs = [down[0] for down in network.downsample]
    strides = [1, *(stage.stride for stage in network.decoder[::-1]), REGION]
    channels = ["", *(f"\n{down.in_channels} channels" for down in downs), f"\n{downs[-1].out_channels} channels"]
    for y, stride, dim in zip(ROWS, strides, channels):
        box(ax, (WIDTH / 2, y), (WIDTH - 40, 92), "band")
        words(ax, 36, y, f"{SIDE // stride} × {SIDE // stride}\nstride {stride}{dim}", 15, ha="left")
    for level in range(3):
        draw_level(ax, network, level)
    draw_ends(ax, network)
    draw_panels(ax, network)
    return figure


def draw_level(ax: Axes, network: HeteroMedSeg, level: int) -> None:
    """Encoder stage, skip and decoder stage of a resolution (0 is the finest), and the steps to and from the next."""
    encoder, decoder, down = network.encoder[level], network.decoder[2 - level], network.downsample[level][0]
    y, turn, below = ROWS[level + 1], ROWS[level + 1] + HALF, ROWS[level + 2]
    arrow(ax, (BLOCKS, y), (BLOCKS, below - (21 if level == 2 else 36)))
    rise = [(BLOCKS, below), (JOIN, below)] if level == 2 else [(ATTEND, below), (ATTEND, turn), (JOIN, turn)]
    arrow(ax, *rise, (JOIN, y + 16))
    arrow(ax, (BLOCKS, y), (JOIN - 16, y), color=LOOKS["scsa"][1], linestyle=(0, (5, 3)))
    words(ax, 500, y - 13, "skip", color=MUTED)
    for left, right in ((JOIN, GATES - 58), (GATES, REDUCE - 46), (REDUCE, ATTEND - 100)):
        arrow(ax, (left, y), (right, y))
    for x, look in ((BLOCKS, "vssd"), (ATTEND, "bra")):
        box(ax, (x + 6, y - 6), (200, 60), look)  # a second sheet: the stage has several blocks
    attention = decoder.blocks[0].attn
    routes = f"top-{attention.topk} regions, {attention.qkv.in_features // bra.HEAD_DIM} heads"
    box(ax, (BLOCKS, y), (200, 60), "vssd", f"VSSD block × {len(encoder)}\n{encoder[0].attn.num_heads} heads", 15)
    box(ax, (BLOCKS, turn), (132, 28), "plain", convolution(down))
    box(ax, (JOIN, y), (32, 32), "plain", "C", 15)
    box(ax, (GATES, y), (116, 60), "scsa", f"SCSA\n{decoder.attention.num_heads} heads", 15)
    box(ax, (REDUCE, y), (92, 60), "plain", f"Linear\n{decoder.reduce.in_features} → {decoder.reduce.out_features}")
    box(ax, (ATTEND, y), (200, 60), "bra", f"BRA block × {len(decoder.blocks)}\n{routes}", 15)
    middle = JOIN if level == 2 else (JOIN + ATTEND) / 2
    box(ax, (middle, turn), (152, 28), "move", f"PatchExpand ↑ {decoder.expand.scale}")


def draw_ends(ax: Axes, network: HeteroMedSeg) -> None:
    """Image and stem, lowest map and legend, head and logits."""
    top, gap, bottom = ROWS[0], ROWS[0] + HALF, ROWS[4]
    first, second = network.stem[0], network.stem[3]
    classify = network.head.classify
    count = sum(weight.numel() for weight in network.parameters())
    arrow(ax, (BLOCKS, top), (BLOCKS, ROWS[1] - 36))
    arrow(ax, (ATTEND, ROWS[1]), (ATTEND, top), (856, top))
    stem = f"stem: {convolution(first)}, {first.out_channels} channels; GELU; {convolution(second)}"
    box(ax, (BLOCKS, gap), (430, 28), "plain", stem)
    box(ax, (ATTEND, gap), (226, 28), "move", f"LayerNorm, PatchExpand ↑ {network.head.expand.scale}")
    box(ax, (ATTEND, top), (176, 44), "plain", f"Conv {kernel(classify)}\n{classify.in_channels} → K classes")
    box(ax, (BLOCKS, bottom), (200, 42), "plain", "lowest map, no blocks")
    words(ax, 348, top, "image\n1 or 3 channels", 15, ha="left")
    words(ax, 580, top, f"{count / 1e6:.2f} M parameters\nfor {network.num_classes} classes", 15)
    words(ax, 756, top, "logits\nK channels", 15, ha="right")
    legend = "C: concatenation of channels\n↓: convolution with a stride, followed by BatchNorm"
    words(ax, 700, bottom, f"{legend}\n↑: enlargement by pixel shuffle", color=MUTED, ha="left")
    for x, colors in ((BLOCKS, ["#97a1ae"] * 3), (812, ["#2f63b5", "#e0902a", "#1b8259"])):  # a body with three organs
        ax.add_patch(Ellipse((x, top), 84, 62, color="#c9d0d9"))
        for (dx, dy, width, height), color in zip(((-15, -3, 34, 28), (20, -2, 18, 26), (2, 16, 14, 12)), colors):
            ax.add_patch(Ellipse((x + dx, top + dy), width, height, color=color))


def draw_panels(ax: Axes, network: HeteroMedSeg) -> None:
    """The steps of the blocks and of SCSA, what a token sees in each form of SSD, and how a region chooses routes."""
    vssd, attend, scsa = network.encoder[0][0], network.decoder[0].blocks[0], network.decoder[0].attention
    mlp = f"LayerNorm | MLP, {vssd.mlp.fc1.out_features // vssd.mlp.fc1.in_features} C hidden | +"
    steps = f"DWConv {kernel(vssd.cpe1)} | + | LayerNorm | vssd: mixer | + | DWConv {kernel(vssd.cpe2)} | + | {mlp}"
    mixer = f"vssd: Linear | vssd: x, B, C: DWConv {kernel(vssd.attn.conv2d)}\nSiLU; Δ: softplus"
    mixer += f" | vssd: SSD + D x\nstate {STATE_SIZE} | vssd: LayerNorm | × | vssd: Linear"
    panel(ax, 20, "VSSD block\nof the encoder, C channels", 128, steps)
    words(ax, 302, PANEL + 66, "mixer, a 2-D Mamba-2", color=MUTED)
    chain(ax, 302, PANEL + 90, 164, mixer, first=1)
    words(ax, 212, PANEL + 198, "z", 12)
    age = 12 - np.arange(25.0)  # of each token, seen from the middle one
    forms = {"causal": 0.85**age * (age >= 0), "noncausal": 0.5, "bidirectional": 0.85 ** abs(age)}
    for row, (form, seen) in enumerate(forms.items()):
        grid(ax, 230, PANEL + 347 + 38 * row, 6.5, np.where(age == 0, 1.3, seen).reshape(5, 5), "Blues")
        words(ax, 274, PANEL + 363 + 38 * row, form, ha="left")

    mlp = f"LayerNorm b | MLP, {attend.mlp.fc1.out_features // attend.mlp.fc1.in_features} C hidden | +"
    steps = f"LayerNorm a | DWConv {kernel(attend.pos_embed)} | + | LayerNorm a | bra: BRA | + | {mlp}"
    routing = f"regions of {REGION} × {REGION}\ninput pixels: mean q, k | bra: q · k: top-k regions | "
    routing += f"bra: pixels attend to all\npixels of those | + DWConv {kernel(attend.attn.lepe)} of v\nLinear"
    panel(ax, 412, "BRA block\nof the decoder, C channels", 128, steps, first=1)
    note = "LayerNorm a: one set of weights, used twice;\nno residual around the block"
    words(ax, 428, PANEL + 440, note, color=MUTED, ha="left")
    words(ax, 694, PANEL + 66, "routing attention", color=MUTED)
    regions = np.full((7, 7), 0.15)
    regions[1:3, 2:4], regions[3, 3] = 0.7, 1.3
    grid(ax, 642, PANEL + 84, 15, regions, "Greens")
    chain(ax, 694, PANEL + 204, 168, routing)

    widths = ", ".join(map(kernel, (scsa.local_dwc, scsa.global_dwc_s, scsa.global_dwc_m, scsa.global_dwc_l)))
    heads = ", ".join(str(stage.attention.num_heads) for stage in network.decoder)
    steps = f"means of rows, of columns | scsa: DWConv1d {widths} on a quarter\nof the channels each; shared | "
    steps += f"GroupNorm, σ: gates of rows, columns | × | AvgPool {POOL}×{POOL}, GroupNorm | "
    steps += f"q, k, v: a factor a channel | scsa: attention between channels\n{heads} heads, coarse to fine | "
    steps += "mean over pixels, σ: gates of channels | ×"
    panel(ax, 804, "SCSA\nwhere the skips join, 2 C channels", 280, steps)


def panel(ax: Axes, left: float, title: str, width: float, steps: str, first: int = 0) -> None:
    """A panel with its title and the chain of its steps."""
    box(ax, (left + 188, (PANEL + HEIGHT - 20) / 2), (376, HEIGHT - 20 - PANEL), "band")
    words(ax, left + 16, PANEL + 36, title, 16, ha="left")
    chain(ax, left + width / 2 + 42, PANEL + 70, width, steps, first)


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
            box(ax, (x, middle), (20, 20), "plain", step, 15)
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


def convolution(conv: nn.Conv2d) -> str:
    return f"Conv {kernel(conv)} ↓ {conv.stride[0]}"


def box(ax: Axes, at: Pair, size: Pair, look: str, text: str = "", font: float = 13.5) -> None:
    """A box with its middle at `at`, and words in it; a square one becomes a circle. Bands lie below the arrows."""
    fill, border, ink = LOOKS[look]
    corner, layer = (at[0] - size[0] / 2, at[1] - size[1] / 2), 0.5 if look == "band" else 1
    style = "circle,pad=0" if size[0] == size[1] else "round,pad=0,rounding_size=6"
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
