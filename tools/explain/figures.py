"""Figures of the decoder on one image as SVG: routes over the image, gates of the skips.

Shapes: S/T height and width of the network's input, H/W of a map, C channels.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from models.hetero_medseg import REGION
from tools.explain.drawing import Drawing, number
from tools.explain.internals import Gates, Routes

PANEL = 200
STYLE = """
.page{fill:#fff;stroke:#d5dae1}.ink{fill:#17202c}.muted{fill:#566171}.head{fill:#566171}
.line{fill:none;stroke:#566171;stroke-width:1.2}.rule{fill:none;stroke:#ccd3dc;stroke-width:1}
.below{fill:none;stroke:#1b8259;stroke-width:1.2}.skip{fill:none;stroke:#c77800;stroke-width:1.2}
.below-area{fill:#1b8259}.skip-area{fill:#c77800}.band{fill:#2f63b5;fill-opacity:.25}
.mean{fill:none;stroke:#2f63b5;stroke-width:1.8}.average{fill:none;stroke:#17202c;stroke-width:1.5;stroke-dasharray:5 4}
.dim{fill:#000;fill-opacity:.5;stroke:#fff;stroke-opacity:.18;stroke-width:.8}.net{fill:none;stroke:#fff;stroke-opacity:.3;stroke-width:.8}
.route{fill:#2fd08a;fill-opacity:.16;stroke:#2fd08a;stroke-width:1.6}
.query-edge{fill:none;stroke:#000;stroke-width:4.5}.query{fill:none;stroke:#ffb000;stroke-width:2.5}
.pixel{fill:#ffb000;stroke:#000;stroke-width:1.2}.spot{fill:none;stroke:#fff;stroke-width:1.4}
.reach{fill:none;stroke:#fff;stroke-width:1;stroke-dasharray:3 3}
.rank{fill:#fff;stroke:#000;stroke-width:2.5;paint-order:stroke}
@media (prefers-color-scheme:dark){
.page{fill:#12161d;stroke:#39424f}.ink{fill:#edf1f6}.muted{fill:#a9b4c2}.head{fill:#a9b4c2}
.line{stroke:#a9b4c2}.rule{stroke:#39424f}.below{stroke:#5ccb9c}.skip{stroke:#f0a840}
.below-area{fill:#5ccb9c}.skip-area{fill:#f0a840}.band{fill:#7fa9f3}.mean{stroke:#7fa9f3}.average{stroke:#edf1f6}}
"""


# --- routes -------------------------------------------------------------------------------------


def draw_routes(image: np.ndarray, routes: Sequence[Routes], pixel: tuple[int, int], title: str) -> str:
    """A panel for each block: the query's region framed, its routes lit and numbered by rank, the rest dimmed.

    in: image uint8 (S, T) or (S, T, 3) as the network sees it, pixel (row, column) in it
    """
    columns, step = 4, PANEL + 16
    scale = PANEL / image.shape[1]
    height = image.shape[0] * scale
    places, row, column = [], 0, 0
    for index, one in enumerate(routes):  # a stage starts a new row unless all its blocks fit into this one
        blocks = sum(other.stage == one.stage for other in routes)
        if column == columns or (one.block == 0 and column + min(blocks, columns) > columns):
            row, column = row + 1, 0
        places.append((index, row, column))
        column += 1
    pitch = height + 62
    picture = Drawing(16 + columns * step, 70 + (row + 1) * pitch, title, STYLE)
    picture.define_image("image", encode_png(image), PANEL, height, 'preserveAspectRatio="none"')
    picture.text(16, 30, title, "ink", 17, "start", bold=True)
    legend = "framed: the pixel's region; lit: the regions that it attends to, 1 the best; dot: the pixel"
    picture.text(16, 52, legend, "muted", 14, "start")
    for index, row, column in places:
        one, x, y = routes[index], 16 + column * step, 96 + row * pitch
        if one.block == 0:
            words = f"stride {one.stride}: {one.chosen.shape[1]} of {one.regions[0] * one.regions[1]} regions"
            picture.text(x, y - 8, words, "ink", 14, "start", bold=True)
        picture.use("image", x, y)
        draw_regions(picture, one, pixel, (x, y), scale, image.shape[:2])
        picture.text(x, y + height + 17, f"block {one.block + 1}", "muted", 14, "start")
    return picture.svg()


def draw_regions(
    picture: Drawing,
    routes: Routes,
    pixel: tuple[int, int],
    corner: tuple[float, float],
    scale: float,
    size: tuple[int, int],
) -> None:
    """Regions over an image whose upper left corner is `corner`; those at the border end where the image does."""
    query, chosen, _ = routes.of_pixel(pixel)

    def place(region: int) -> tuple[float, float, float, float]:
        row, column = divmod(region, routes.regions[1])
        top, left = row * REGION, column * REGION
        bottom, right = min(top + REGION, size[0]), min(left + REGION, size[1])
        x, y = corner[0] + left * scale, corner[1] + top * scale
        return x, y, (right - left) * scale, (bottom - top) * scale

    for region in range(routes.regions[0] * routes.regions[1]):
        picture.rect(*place(region), "net" if region in chosen else "dim")
    for rank, region in enumerate(chosen, 1):
        x, y, width, height = place(region)
        picture.rect(x + 1, y + 1, width - 2, height - 2, "route")
        picture.text(x + width / 2, y + height / 2 + 5, str(rank), "rank", 13, bold=True)
    picture.rect(*place(query), "query-edge")
    picture.rect(*place(query), "query")
    picture.circle(corner[0] + (pixel[1] + 0.5) * scale, corner[1] + (pixel[0] + 0.5) * scale, 3.5, "pixel")


# --- gates --------------------------------------------------------------------------------------


def draw_gates(image: np.ndarray, gates: Sequence[Gates], title: str) -> str:
    """A row for each skip: gates along the image's sides, and the gates of all channels, sorted."""
    side, strip, bars, gap = 150, 52, 320, 40
    height = side * image.shape[0] / image.shape[1]
    pitch = height + strip + 62
    picture = Drawing(1000, 72 + len(gates) * pitch, title, STYLE)
    picture.define_image("image", encode_png(image), side, height, 'preserveAspectRatio="none"')
    picture.text(16, 30, title, "ink", 17, "start", bold=True)
    legend = "curves: rows' and columns' gates, mean and 10 to 90 % of the channels; bars: gate of each channel"
    picture.text(16, 52, legend, "muted", 14, "start")
    for i, one in enumerate(gates):
        x, y = 36, 92 + i * pitch
        picture.text(16, y, f"skip at stride {one.stride}", "ink", 14, "start", bold=True)
        top = y + 12 + strip + 6
        picture.use("image", x, top)
        draw_line_gate(picture, one.columns, (x, top - 6 - strip), (side, strip), upright=False)
        draw_line_gate(picture, one.rows, (x + side + 6, top), (strip, height), upright=True)
        half = len(one.channels) // 2
        for part, (name, look) in enumerate((("coarser stage", "below"), ("skip", "skip"))):
            values = one.channels[part * half : (part + 1) * half]
            draw_bars(picture, values, name, look, (300 + part * (bars + gap), y + 18), (bars, height + strip))
    return picture.svg()


def draw_line_gate(
    picture: Drawing, gate: Tensor, corner: tuple[float, float], size: tuple[float, float], upright: bool
) -> None:
    """Mean and 10 to 90 % of the channels of a gate (length, C) along a side; 0 is the edge at the image."""
    (x, y), (width, height) = corner, size
    low, high = torch.quantile(gate, torch.tensor([0.1, 0.9], dtype=gate.dtype), dim=1)
    steps = (torch.arange(len(gate)) + 0.5) / len(gate)

    def curve(values: Tensor) -> list[tuple[float, float]]:
        pairs = zip(steps.tolist(), values.tolist())
        if upright:
            return [(x + v * width, y + s * height) for s, v in pairs]
        return [(x + s * width, y + height - v * height) for s, v in pairs]

    picture.rect(x, y, width, height, "rule")
    area = " ".join(f"{number(a)},{number(b)}" for a, b in [*curve(low), *reversed(curve(high))])
    picture.path(f"M{area}z", "band")
    picture.line(curve(gate.mean(1)), "mean")
    ends = ((x, "0"), (x + width, "1")) if upright else ((y + height, "0"), (y, "1"))
    for place, words in ends:
        if upright:
            picture.text(place, y + height + 14, words, "muted", 12)
        else:
            picture.text(x - 5, place + 4, words, "muted", 12, "end")


def draw_bars(
    picture: Drawing, values: Tensor, name: str, look: str, corner: tuple[float, float], size: tuple[float, float]
) -> None:
    """Sorted bars from 0 to 1, one a channel, with their mean."""
    (x, y), (width, height) = corner, size
    for level in (0, 0.5, 1):
        base = y + height * (1 - level)
        picture.line([(x, base), (x + width, base)], "rule")
        picture.text(x - 6, base + 4, str(level), "muted", 12, "end")
    step = width / len(values)
    bars = values.sort(descending=True).values.tolist()
    corners = "".join(f"V{number(y + height * (1 - v))}h{step:.4f}" for v in bars)
    picture.path(f"M{number(x)},{number(y + height)}{corners}V{number(y + height)}z", f"{look}-area")
    mean = float(values.mean())
    picture.line([(x, y + height * (1 - mean)), (x + width, y + height * (1 - mean))], "average")
    words = f"{name}: {len(values)} channels, mean {mean:.2f}"
    picture.text(x, y - 6, words, "ink", 14, "start")


def encode_png(image: np.ndarray) -> bytes:
    """PNG of a uint8 picture, grey (S, T) or RGB (S, T, 3)."""
    return cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[
        1
    ].tobytes()
