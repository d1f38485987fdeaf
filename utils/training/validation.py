"""Validation while training: Dice per case and class at the network's size.

The figures choose a checkpoint; the ones to report come from test.py, at each case's own size. Images of all
cases share the batches, and the slices of a volume may come in any order: pixels are counted on the device and
summed over batches and ranks, and each case's Dice is taken from its sums on the host.
Letters: B batch, C channels, N images, M cases, S/T the network's height and width, K classes as the network counts
them (background included; 1 for a binary mask).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils.distributed import all_reduce_sum, is_main, rank, world_size
from utils.inference.forward import Forward, labels_from_logits
from utils.inference.predict import in_windows
from utils.results.overlay import overlay
from utils.scoring.statistics import mean_over

PREVIEWS = 4
PREVIEW_SIDE = 256  # at least, in pixels: larger ones fill the event files


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
class ValidationSet:
    """The images of all validation cases; calling it scores a network on them.

    images (N, C, S, T), integer or in [0, 1]; targets (N, S, T); cases (N,): the case each image belongs to
    window: the network's input size; images and targets may be N tensors of their own sizes, which it sees through
        windows (`--fit slide`)
    """

    images: Tensor | Sequence[Tensor]
    targets: Tensor | Sequence[Tensor]
    cases: Tensor
    class_names: tuple[str, ...]
    num_classes: int
    batch_size: int
    window: tuple[int, int]

    def __call__(self, forward: Forward, device: torch.device) -> Validation:
        """Score `forward` (images -> logits on `device`). The ranks share the batches; all get the same result."""
        num_cases = int(self.cases.max()) + 1
        counts = torch.zeros(num_cases, self.num_classes, 3, dtype=torch.int64, device=device)
        at_once = self.batch_size if isinstance(self.images, Tensor) else 1
        shares = torch.arange(len(self.images)).split(at_once)[rank() :: world_size()]
        for share in tqdm(shares, desc="validation", disable=None if is_main() else True, leave=False, mininterval=1.0):
            labels, targets = self.look(forward, share)
            targets = targets.to(device, non_blocking=True)
            cases = self.cases[share].to(device, non_blocking=True)
            counts += case_counts(labels, targets, cases, num_cases, self.num_classes)
        dice = dice_from_counts(all_reduce_sum(counts).cpu().numpy())[:, -len(self.class_names) :]
        means = mean_over(dice, 0)
        by_class = dict(zip(self.class_names, means.tolist()))
        return Validation(by_class, float(mean_over(means, 0)), self.previews(forward))

    def look(self, forward: Forward, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true labels (B, H, W) of the `chosen` images."""
        if isinstance(self.images, Tensor):
            images, targets = self.images[chosen], self.targets[chosen]
        else:
            images, targets = (torch.stack([items[i] for i in chosen]) for items in (self.images, self.targets))
        return labels_from_logits(in_windows(forward, images, self.window, self.batch_size)), targets

    def previews(self, forward: Forward) -> list[np.ndarray]:
        """Overlays of a few cases, each the image with the most foreground; on ranks other than 0 none."""
        if not is_main():
            return []
        size = torch.stack([(target > 0).sum() for target in self.targets])
        spread = torch.linspace(0, int(self.cases.max()), PREVIEWS).long().unique()
        chosen = [int(torch.where(self.cases == case, size, -1).argmax()) for case in spread]
        pictures = []
        for i in chosen:
            labels, targets = self.look(forward, torch.tensor([i]))
            image = self.images[i].permute(1, 2, 0).contiguous().squeeze(-1).numpy()  # (H, W) or (H, W, 3)
            pair = labels[0].cpu().numpy(), targets[0].numpy()
            pictures.append(overlay(image, *pair, self.num_classes, least_side=PREVIEW_SIDE))
        return pictures


def case_counts(pred: Tensor, target: Tensor, case_index: Tensor, num_cases: int, num_classes: int) -> Tensor:
    """Pixels of every class in intersection, prediction and target, summed into their cases.

    in: label maps (B, H, W), in {0, 1} for one class; case_index int64 (B,) in [0, M), all on one device
    out: int64 (M, K, 3); class 0 is the background, or the mask where num_classes is 1
    """
    per_image = []
    for label in range(num_classes) if num_classes > 1 else (1,):
        p, t = (pred == label).flatten(1), (target == label).flatten(1)
        per_image.append(torch.stack([(p & t).sum(1), p.sum(1), t.sum(1)], dim=1))
    # int32 is enough for a batch, and Apple's GPU adds no int64 at indices before PyTorch 2.9
    counts = torch.zeros(num_cases, num_classes, 3, dtype=torch.int32, device=pred.device)
    return counts.index_add_(0, case_index, torch.stack(per_image, dim=1).int()).long()


def dice_from_counts(counts: np.ndarray) -> np.ndarray:
    """Dice per case and class: in (M, K, 3), out float64 (M, K); NaN where prediction and target are both empty."""
    both, pred, target = np.moveaxis(counts, -1, 0)
    size = pred + target
    return np.divide(2 * both, size, out=np.full(size.shape, np.nan), where=size > 0)
