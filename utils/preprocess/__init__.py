"""How an image becomes what the network sees, and how its output comes back to the image's own grid.

Training sets, validation, test.py, predict.py and the tools all call the functions of this package with the
`Preprocess` of the run's Config, so that training and testing see an image alike: `intensities.py` makes values in
[0, 1], `sizes.py` brings them to the network's input size, and labels and logits back.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

from utils.fields import check_saved

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZES = ("spline", "area")
INTENSITIES = ("ct", "range", "percentile", "unit")
FITS = ("squash", "pad", "slide")
WINDOW = (-125.0, 275.0)  # HU, the window of Synapse
UNKNOWN = "unknown"
AXES = ("RL", "AP", "IS")  # the two ends of each axis of a patient
ORIENTATIONS = ("", *("".join(ends) for axes in permutations(AXES) for ends in product(*axes)))
HU_OF_AIR = -500.0  # every CT shows air below this, whatever its calibration


@dataclass(frozen=True)
class Preprocess:
    """What a network was trained to see; part of Config, and so of every checkpoint.

    channels: 1 (slices) or 3 (RGB)
    resize: "spline", a cubic spline on a grid that keeps the corners, of floats (the slices of Synapse); or
        "area", the mean of areas where an image shrinks, on a grid that keeps the edges, of 8-bit values (pictures)
    mean, std: what normalises values in [0, 1], one for each channel
    intensity: how the values in [0, 1] were made of raw ones, one of INTENSITIES, or "unknown"
    orientation: the patient's direction (R or L, A or P, I or S) in which the axes (slice, row, column) of the training
        arrays grow, such as "SPL"; "" where it is not known: volumes are then taken as stored
    fit: how an image of another aspect or size is given to the network, one of FITS: "squash" resizes it to the
        network's size, as published; "pad" keeps its aspect and fills up with 0; "slide" keeps its own resolution and
        looks through overlapping windows of the network's size
    """

    channels: int
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    intensity: str = UNKNOWN
    orientation: str = ""
    fit: str = "squash"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocess":
        """The value that `dataclasses.asdict` and JSON made of one. raises: ValueError that says what was expected"""
        known, needed = {field.name: field for field in dataclasses.fields(cls)}, {"channels", "resize", "mean", "std"}
        if not isinstance(values, Mapping) or not needed <= values.keys() <= known.keys():
            raise ValueError(f"a dict of {', '.join(known)}")
        empty = {"orientation": ""} if values.get("orientation") == "" else {}
        pre = cls(**{name: check_saved(known[name], value) for name, value in values.items() if name not in empty})
        choices = {"channels": (1, 3), "resize": RESIZES, "intensity": (*INTENSITIES, UNKNOWN)}
        for name, expected in (choices | {"orientation": ORIENTATIONS, "fit": FITS}).items():
            if getattr(pre, name) not in expected:
                raise ValueError(f"{name} to be one of {', '.join(map(str, expected))}")
        if not len(pre.mean) == len(pre.std) == pre.channels or min(pre.std) <= 0:
            raise ValueError("a mean and an std above 0 for each channel")
        return pre


SLICES = Preprocess(channels=1, resize="spline", mean=(0.5,), std=(0.5,))
PICTURES = Preprocess(channels=3, resize="area", mean=IMAGENET_MEAN, std=IMAGENET_STD, intensity="range")
