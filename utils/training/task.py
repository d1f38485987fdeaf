"""What the engine must know about a data set, as values and functions: no class per data set.

Shapes: B batch, C image channels, K classes, H/W height and width.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from utils.inference.forward import Forward
from utils.training.losses import Loss


@dataclass(frozen=True)
class Validation:
    """Scores of one validation: Dice per foreground class, their mean, and a few pictures.

    dice: class name -> mean over cases, NaN where no case has the class
    previews: uint8 (H, W, 3) overlays
    """

    dice: dict[str, float]
    mean_dice: float
    previews: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class Task:
    """A training task.

    train_set: items image (C, H, W) and target (H, W); an integer image is a fraction of its type's range
    augment: float images (B, C, H, W) in [0, 1], targets (B, H, W), random draws -> the same, changed together
    normalise: images in [0, 1] -> what the network wants
    loss: logits, targets -> scalar
    validate: forward function -> Validation; None without a validation part
    validated_on: which part that is: "validation" or "test"
    found: lines that say what data was found
    split: which split is in use, in words, for every result
    split_sha256: `hash_names` of what is trained and validated on
    """

    name: str
    class_names: tuple[str, ...]
    train_set: Dataset
    augment: Callable[..., tuple[Tensor, Tensor]]
    normalise: Callable[[Tensor], Tensor]
    loss: Loss
    validate: Callable[[Forward], Validation] | None = None
    validated_on: str = "validation"
    found: tuple[str, ...] = field(default_factory=tuple)
    split: str = ""
    split_sha256: str = ""


def hash_names(*parts: Iterable[str]) -> str:
    """SHA-256 of which names are in which part, whatever their order; equal for equal splits on any machine."""
    lines = ("\n".join(sorted(names)) for names in parts)
    return hashlib.sha256("\n\n".join(lines).encode()).hexdigest()
