"""What the training loop must know about a data set: a Task holds values and functions, so no subclass is needed.

Shapes: B batch, C image channels, K classes, H/W height and width.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.data import Dataset

from utils.preprocess import Preprocess
from utils.training.losses import Loss
from utils.training.validation import ValidationSet


@dataclass(frozen=True)
class Task:
    """A training task.

    train_set: items image (C, H, W) and target (H, W); an integer image is a fraction of its type's range
    augment: float images (B, C, H, W) in [0, 1], targets (B, H, W), generator, size of the global batch, place of the
        first image in it -> augmented images and targets
    preprocess: how images in [0, 1] become the input of the network
    loss: logits, targets -> scalar
    validate: scores a network; None without a validation part
    validated_on: the part that `validate` scores: "validation" or "test"
    found: lines for the log: which data was found
    split: description of the split, copied into every result
    split_sha256: `hash_names` of the training and validation cases
    cases: part ("train", "validation", and "earlier": those that --init brought) -> `hash_case` of its cases
    """

    name: str
    class_names: tuple[str, ...]
    train_set: Dataset
    augment: Callable[..., tuple[Tensor, Tensor]]
    preprocess: Preprocess
    loss: Loss
    validate: ValidationSet | None = None
    validated_on: str = "validation"
    found: tuple[str, ...] = ()
    split: str = ""
    split_sha256: str = ""
    cases: Mapping[str, Sequence[str]] = field(default_factory=dict)


def hash_case(name: str) -> str:
    """What a checkpoint keeps of the name of a case: enough to know the name again, not to tell it."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def hash_cases(train: Iterable[str], validation: Iterable[str]) -> dict[str, list[str]]:
    """`Task.cases` of the cases of both parts."""
    return {"train": sorted(map(hash_case, train)), "validation": sorted(map(hash_case, validation))}


def hash_names(*parts: Iterable[str]) -> str:
    """SHA-256 of the names in each part; their order does not matter, so equal splits have equal hashes."""
    lines = ("\n".join(sorted(names)) for names in parts)
    return hashlib.sha256("\n\n".join(lines).encode()).hexdigest()
