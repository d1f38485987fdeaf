"""Pictures of a prediction on its image: coloured prediction, white ground truth, legend, contact sheet.

Everything is uint8 RGB (H, W, 3). Small images are enlarged by a whole factor first, so that a
contour is a thin line on a visible picture and not a staircase of fat pixels. Cuts through a volume of known spacing
have their aspect in mm.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from einops import rearrange

from utils.files import write_atomically
from utils.inference.orientation import turn, turn_spacing

# Okabe and Ito's colours (two of them brighter, for dark tissue), then a magenta: told apart with any colour vision.
# Blue comes first: the one class of an endoscopic or skin image must stand out from red and brown.
PALETTE = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (70, 120, 255),
    (213, 94, 0),
    (255, 150, 210),
    (190, 30, 130),
)
WHITE, BLACK, PANEL = (255, 255, 255), (0, 0, 0), (24, 24, 24)
LEAST_SIDE = 512
NUM_SLICES, COLUMNS, MOST_SIDE = 6, 3, 1024  # of a contact sheet; the last of one slice in it, in pixels
# direction in which the slices grow -> where their rows and columns grow on a screen
RADIOLOGICAL = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "R": "IP", "L": "IP"}
FILL = 0.22  # opacity of the prediction's area
FONT, FONT_SCALE, LINE_HEIGHT = cv2.FONT_HERSHEY_SIMPLEX, 0.45, 22


def class_color(label: int) -> tuple[int, int, int]:
    """RGB of label 1, 2, …; after the palette's end its colours come again, darker."""
    rounds, index = divmod(label - 1, len(PALETTE))
    return tuple(int(c * 0.6**rounds) for c in PALETTE[index])


def overlay(
    image: np.ndarray,
    prediction: np.ndarray,
    target: np.ndarray | None,
    num_classes: int,
    title: str | None = None,
    least_side: int = LEAST_SIDE,
    spacing: Sequence[float] | None = None,
    most_side: int | None = None,
) -> np.ndarray:
    """Prediction as coloured contour and tint, ground truth, if there is one, as a white contour with a dark edge.

    in: image (H, W) or (H, W, 3), uint8 or floats in [0, 1]; label maps (H, W), boolean for one class;
        num_classes as the network counts them; title: a line above the picture;
        least_side: in pixels, smaller images are enlarged to it, at most until the longer side is four times as long;
        spacing: (y, x) of the pixels; most_side: in pixels, larger images are shrunk to it
    out: uint8 (H', W', 3), without spacing and most_side H' and W' multiples of H and W but for the title
    """
    height, width = sides(image.shape[:2], spacing)
    longest = max(height, width)
    factor = max(1, min(math.ceil(least_side / min(height, width)), (most_side or 4 * least_side) // longest))
    factor = min(factor, most_side / longest) if most_side else factor
    size = max(1, round(height * factor)), max(1, round(width * factor))
    canvas = resize(to_rgb(image), size, cv2.INTER_CUBIC)
    prediction = cv2.resize(prediction.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    truth = (
        target if target is None else cv2.resize(target.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    )
    width = max(2, round(min(canvas.shape[:2]) / 400))
    labels = range(1, max(num_classes, 2))
    for label in labels:
        area = prediction == label
        canvas[area] = np.rint((1 - FILL) * canvas[area] + FILL * np.array(class_color(label))).astype(np.uint8)
    for color, wider in ((BLACK, 2), (WHITE, 0)) if truth is not None else ():
        for label in labels:
            _contour(canvas, truth == label, color, width + wider)
    for label in labels:
        _contour(canvas, prediction == label, class_color(label), width)
    return canvas if title is None else np.vstack([_title(canvas.shape[1], title), canvas])


def contact_sheet(
    image: np.ndarray,
    prediction: np.ndarray,
    target: np.ndarray | None,
    num_classes: int,
    class_names: Sequence[str],
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Overlays of several slices of one volume, with a legend; the slice with most wrong pixels is among them.

    Without a target it is the slice with most foreground.
    in: image (D, H, W), label maps (D, H, W); class_names without the background; spacing (z, y, x)
    out: at most COLUMNS * (MOST_SIDE + 4) wide, at least LEAST_SIDE
    """
    truth = np.zeros_like(prediction) if target is None else target
    chosen = choose_slices(prediction, truth, NUM_SLICES)
    shown_as = {"spacing": spacing and spacing[1:], "most_side": MOST_SIDE}
    pictures = [
        overlay(
            image[i], prediction[i], None if target is None else target[i], num_classes, f"slice {i + 1}", **shown_as
        )
        for i in chosen
    ]
    gap, blank = 4, np.full_like(pictures[0], PANEL[0])
    columns = min(COLUMNS, len(pictures))
    pictures += [blank] * (-len(pictures) % columns)
    framed = np.pad(pictures, ((0, 0), (0, gap), (0, gap), (0, 0)))
    sheet = rearrange(framed, "(r c) h w rgb -> (r h) (c w) rgb", c=columns)
    sheet = np.pad(sheet, ((0, 0), (0, max(0, LEAST_SIDE - sheet.shape[1])), (0, 0)))  # room for the legend
    shown = np.stack([prediction[chosen], truth[chosen]])
    present = [k for k in range(1, max(num_classes, 2)) if (shown == k).any()]
    return np.vstack([sheet, _legend(sheet.shape[1], present, class_names, target is not None)])


def upright(orientation: str, spacing: Sequence[float] | None, *arrays: np.ndarray | None) -> tuple[Any, ...]:
    """Volumes (D, H, W) as a radiologist sees their slices, then their spacing; as stored if not known."""
    view = orientation[:1] + RADIOLOGICAL.get(orientation[:1], "")
    turned = [None if array is None else turn(array, orientation, view) for array in arrays]
    return *turned, spacing and turn_spacing(spacing, orientation, view)


def choose_slices(prediction: np.ndarray, target: np.ndarray, num_slices: int) -> list[int]:
    """Indices of slices to show, in order: the worst one, and others spread evenly over those with a label."""
    filled = np.flatnonzero(((prediction != 0) | (target != 0)).any(axis=(1, 2)))
    if not len(filled):
        filled = np.arange(len(prediction))
    chosen = filled[np.unique(np.linspace(0, len(filled) - 1, min(num_slices, len(filled))).round().astype(int))]
    wrong = (prediction != target).sum(axis=(1, 2))
    worst = int(wrong.argmax())
    if wrong[worst] and worst not in chosen:
        chosen[np.abs(chosen - worst).argmin()] = worst
    return sorted(int(i) for i in chosen)


def save_overlay(path: str | Path, picture: np.ndarray) -> None:
    """Write an RGB picture as PNG, making its folder."""
    write_atomically(path, cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes())


def to_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of a grey or RGB image; floats in [0, 1] are clipped and scaled."""
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def sides(shape: Sequence[int], spacing: Sequence[float] | None) -> tuple[float, float]:
    """Height and width of a cut in units of the smaller side of its pixels. in: (H, W); spacing (y, x)"""
    height, width = spacing or (1, 1)
    return shape[0] * max(1, height / width), shape[1] * max(1, width / height)


def resize(picture: np.ndarray, size: tuple[int, int], enlarging: int) -> np.ndarray:
    """A picture at `size` (H, W), by the mean of areas if it shrinks, else by the interpolation `enlarging`."""
    shrinks = size[0] < picture.shape[0] or size[1] < picture.shape[1]
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if shrinks else enlarging)


def _contour(canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], width: int) -> None:
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, lines, -1, color, width, cv2.LINE_AA)


def _title(width: int, text: str) -> np.ndarray:
    bar = np.full((LINE_HEIGHT, width, 3), PANEL, np.uint8)
    cv2.putText(bar, text, (6, LINE_HEIGHT - 7), FONT, FONT_SCALE, WHITE, 1, cv2.LINE_AA)
    return bar


def _legend(width: int, labels: Sequence[int], class_names: Sequence[str], truth: bool) -> np.ndarray:
    """A strip that names the white line, if there is one, and the colour of every class, wrapped to the width."""
    entries = [
        *([("ground truth", None)] if truth else []),
        *((class_names[label - 1], class_color(label)) for label in labels),
    ]
    strip = np.full((LINE_HEIGHT * max(len(entries), 1) + 6, width, 3), PANEL, np.uint8)  # as if each had its own line
    x, y = 8, 0
    for text, color in entries:
        length = 28 + cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0] + 14
        if x + length > width and x > 8:
            x, y = 8, y + LINE_HEIGHT
        middle = y + LINE_HEIGHT // 2 + 2
        if color is None:
            cv2.line(strip, (x, middle), (x + 18, middle), WHITE, 2)
        else:
            cv2.rectangle(strip, (x, middle - 6), (x + 18, middle + 6), color, -1)
        cv2.putText(strip, text, (x + 25, middle + 5), FONT, FONT_SCALE, WHITE, 1, cv2.LINE_AA)
        x += length
    return strip[: y + LINE_HEIGHT + 6]
