"""What a check found: errors, which spoil a training or its result, and notes, which a reader should know."""

import base64
from dataclasses import dataclass, field
from functools import partialmethod
from typing import Any

import cv2
import numpy as np

from utils.errors import counted

ERROR, NOTE = "error", "note"
SIDE = 160  # pixels of a thumbnail
MOST_THUMBNAILS = 12  # of one kind of finding
OUTLINE = (255, 64, 64)


@dataclass(frozen=True)
class Finding:
    """One thing found. kind: a short title that findings share; where: the file or files; thumbnails: data URLs."""

    level: str
    kind: str
    where: str
    text: str
    thumbnails: tuple[str, ...] = ()


@dataclass
class Report:
    """Findings of one folder, and tables for the page: title -> rows of cells, the first being the header."""

    layout: str
    findings: list[Finding] = field(default_factory=list)
    tables: dict[str, list[list[Any]]] = field(default_factory=dict)

    def _add(self, level: str, kind: str, where: str, text: str, *pictures: np.ndarray) -> None:
        shown = sum(1 for found in self.findings if found.kind == kind and found.thumbnails)
        urls = tuple(map(data_url, pictures)) if shown < MOST_THUMBNAILS else ()
        self.findings.append(Finding(level, kind, where, text, urls))

    error = partialmethod(_add, ERROR)  # kind, where, text, pictures (H, W, 3)
    note = partialmethod(_add, NOTE)

    @property
    def num_errors(self) -> int:
        return sum(found.level == ERROR for found in self.findings)

    @property
    def num_notes(self) -> int:
        return len(self.findings) - self.num_errors

    @property
    def verdict(self) -> str:
        return counted(self.num_errors, "error") if self.num_errors else "nothing is wrong"

    @property
    def notes(self) -> str:
        return counted(self.num_notes, "note")


def thumbnail(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """A small uint8 (h, w, 3) of an image, stretched to its own range, with the outline of a mask's foreground.

    in: image (H, W) or (H, W, 3) of any type; mask (H, W)
    """
    finite = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
    low, high = (0, 255) if image.dtype == np.uint8 else (float(finite.min()), float(finite.max()))
    grey = np.clip((finite - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    scale = SIDE / max(grey.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in grey.shape[1::-1])
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    small = np.repeat(small[..., None], 3, axis=2) if small.ndim == 2 else small.copy()
    if mask is not None and mask.any():
        inside = cv2.resize((mask > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        edge = inside != cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        small[edge] = OUTLINE
    return small


def data_url(picture: np.ndarray) -> str:
    """A picture (h, w, 3) RGB as a JPEG in a data URL."""
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
