"""Validation while training: Dice per case and class at the network's size, all cases in shared batches.

The cases' images stay in memory; the counts stay on the device until the last batch. The figures
choose a checkpoint; the ones to report come from test.py, at each case's own size.
Letters: N images of all cases, C channels, S/T the network's height and width, K classes as the network counts them.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils.distributed import all_reduce_sum, is_main, rank, world_size
from utils.inference.forward import Forward, labels_from_logits
from utils.results.overlay import overlay
from utils.training.task import Validation
from utils.training.validation import case_counts, dice_from_counts

PREVIEWS = 4


@dataclass(frozen=True)
class ValidationSet:
    """The images of all validation cases; calling it scores a network on them.

    images (N, C, S, T), integer or in [0, 1]; targets (N, S, T); cases (N,): the case each image belongs to
    """

    images: Tensor
    targets: Tensor
    cases: Tensor
    class_names: tuple[str, ...]
    num_classes: int
    batch_size: int

    def __call__(self, forward: Forward) -> Validation:
        """Score `forward` (images -> logits); ranks share the batches, all get the same result."""
        num_cases = int(self.cases.max()) + 1
        counts = torch.zeros(num_cases, self.num_classes, 3, dtype=torch.int64)
        shares = torch.arange(len(self.images)).split(self.batch_size)[rank() :: world_size()]
        for share in tqdm(shares, desc="validation", disable=None if is_main() else True, leave=False, mininterval=1.0):
            labels = labels_from_logits(forward(self.images[share]))
            targets, cases = self.targets[share].to(labels.device), self.cases[share].to(labels.device)
            counts = counts.to(labels.device) + case_counts(labels, targets, cases, num_cases, self.num_classes)
        dice = dice_from_counts(all_reduce_sum(counts)).cpu().numpy()[:, -len(self.class_names) :]
        means = [nan_mean(column) for column in dice.T]
        return Validation(dict(zip(self.class_names, means)), nan_mean(np.array(means)), self.previews(forward))

    def previews(self, forward: Forward) -> list[np.ndarray]:
        """Overlays of the image with most foreground in each of a few cases spread over the set; rank 0 only."""
        if not is_main():
            return []
        size = (self.targets > 0).flatten(1).sum(1)
        spread = torch.linspace(0, int(self.cases.max()), PREVIEWS).long().unique()
        chosen = [int(torch.where(self.cases == case, size, -1).argmax()) for case in spread]
        labels = labels_from_logits(forward(self.images[chosen])).cpu().numpy()
        return [
            overlay(as_picture(self.images[i]), label, self.targets[i].numpy(), max(self.num_classes, 2))
            for label, i in zip(labels, chosen)
        ]


def as_picture(image: Tensor) -> np.ndarray:
    """(C, S, T), integer or in [0, 1] -> uint8 (S, T, 3)."""
    if image.dtype.is_floating_point:
        image = (image.float().clamp(0, 1) * 255).round()
    return image.expand(3, -1, -1).permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def nan_mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else math.nan
