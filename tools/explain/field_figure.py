"""Receptive fields as one SVG figure: a row for each stage of the encoder, a column for each SSD form."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from tools.explain.drawing import Drawing, number
from tools.explain.figures import PANEL, STYLE, encode_png
from tools.explain.receptive_field import Field, describe_field

DECADES = 6  # of the colour scale
HEAT_SIDE = 128  # fields are shown with at most this many pixels a side
NOTES = (
    "gradient of a stage's middle feature with respect to the input, 1 its largest; black: none at all",
    "dashed: what the convolutions reach without SSD",
)


def draw_fields(fields: Sequence[Field], title: str) -> str:
    """A row for each stage, a column for each form; each panel has a logarithmic scale of its own."""
    forms = list(dict.fromkeys(field.form for field in fields))
    stages = sorted({field.stage for field in fields})
    height = PANEL * fields[0].values.shape[0] / fields[0].values.shape[1]
    left, step, pitch = 110, PANEL + 24, height + 56
    picture = Drawing(max(left + len(forms) * step, 720), 116 + len(stages) * pitch + 46, title, STYLE)
    table = cv2.applyColorMap(np.linspace(0, 255, 17).astype(np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1] / 255
    picture.definitions.append(heat_filter(table))
    picture.text(16, 30, title, "ink", 17, "start", bold=True)
    for line, words in enumerate(NOTES):
        picture.text(16, 52 + 20 * line, words, "muted", 14, "start")
    for column, form in enumerate(forms):
        picture.text(left + column * step + PANEL / 2, 102, form, "ink", 15, bold=True)
    for field in fields:
        x, y = left + forms.index(field.form) * step, 114 + stages.index(field.stage) * pitch
        name = f"{field.form}{field.stage}"
        picture.define_image(
            name, heat_png(field.values), PANEL, height, 'preserveAspectRatio="none" filter="url(#heat)"'
        )
        picture.use(name, x, y)
        draw_reach(picture, field, (x, y), PANEL / field.values.shape[1])
        found = describe_field(field)
        if found["beyond"] is not None:
            picture.text(x, y + height + 17, f"half of it within {found['half_within']} px", "muted", 13, "start")
            if not covers(field):
                picture.text(x, y + height + 34, f"{percent(found['beyond'])} beyond the square", "muted", 13, "start")
        if field.form == forms[0]:
            picture.text(16, y + 20, f"stage {field.stage + 1}", "ink", 15, "start", bold=True)
            picture.text(16, y + 40, f"stride {field.stride}", "muted", 14, "start")
    draw_scale(picture, table, (left, 116 + len(stages) * pitch), len(forms) * step - 24)
    return picture.svg()


def draw_reach(picture: Drawing, field: Field, corner: tuple[float, float], scale: float) -> None:
    """The measured feature's middle, and the square that the convolutions alone reach, cut off at the border."""
    (height, width), (row, column) = field.values.shape, field.middle
    top, bottom = max(row - field.reach, 0), min(row + field.reach + 1, height)
    left, right = max(column - field.reach, 0), min(column + field.reach + 1, width)
    x, y = corner
    picture.circle(x + (column + 0.5) * scale, y + (row + 0.5) * scale, 4, "spot")
    picture.rect(x + left * scale, y + top * scale, (right - left) * scale, (bottom - top) * scale, "reach")


def covers(field: Field) -> bool:
    """Whether the convolutions alone reach every pixel."""
    return all(
        middle <= field.reach and side - 1 - middle <= field.reach
        for middle, side in zip(field.middle, field.values.shape)
    )


def percent(share: float) -> str:
    """A share in per cent with two digits: 12 %, 1.2 %, 0.0012 %."""
    if 0 < share < 1e-6:
        return "< 0.0001 %"
    return f"{float(f'{100 * share:.2g}'):.5f}".rstrip("0").rstrip(".") + " %"


def heat_filter(table: np.ndarray) -> str:
    """An SVG filter that turns grey into the colours of `table` (n, 3), from black to white."""
    rows = (f'<feFunc{name} type="table" tableValues="{" ".join(map(number, c))}"/>' for name, c in zip("RGB", table.T))
    transfer = f"<feComponentTransfer>{''.join(rows)}</feComponentTransfer>"
    return f'<filter id="heat" color-interpolation-filters="sRGB">{transfer}</filter>'


def heat_png(values: Tensor) -> bytes:
    """Logarithm of `values` as a grey PNG: 0 for nothing at all, then 16 for 10**-DECADES and less, up to 255."""
    shown = values[None, None]
    factor = -(-max(values.shape) // HEAT_SIDE)
    if factor > 1:
        shown = torch.nn.functional.avg_pool2d(shown, factor, ceil_mode=True)
    shown = shown[0, 0].numpy()
    largest = max(shown.max(), np.finfo(np.float64).tiny)
    level = 1 + np.log10(np.maximum(shown / largest, 10.0**-DECADES)) / DECADES
    grey = np.where(shown > 0, 16 + 4 * np.rint(level * 239 / 4), 0)
    return encode_png(np.minimum(grey, 255).astype(np.uint8))


def draw_scale(picture: Drawing, table: np.ndarray, corner: tuple[float, float], width: float) -> None:
    """The colour scale, a box a colour, with a mark at every decade."""
    (x, y), boxes = corner, 60
    for i in range(boxes):
        grey = (16 + 239 * (i + 0.5) / boxes) / 255 * (len(table) - 1)
        color = [np.interp(grey, range(len(table)), c) * 255 for c in table.T]
        place = f'x="{number(x + i * width / boxes)}" y="{number(y)}" width="{number(width / boxes + 0.5)}" height="12"'
        picture.parts.append(f'<rect fill="rgb({",".join(f"{c:.0f}" for c in color)})" {place}/>')
    for decade in range(DECADES + 1):
        words = {0: "1", 1: "0.1"}.get(decade, f"1e-{decade}")
        picture.text(x + width * (1 - decade / DECADES), y + 30, words, "muted", 13)
