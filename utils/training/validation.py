"""Dice of whole cases from batches at the network's size, without ever waiting for the device.

B batch, K classes as the network counts them (background included; 1 for a binary mask), N cases.
Counts add up over batches and over ranks (`utils.distributed.all_reduce_sum`); a case's Dice is taken
from its sums, so the slices of a volume may come in any order and batch.
"""

import torch
from torch import Tensor


def case_counts(pred: Tensor, target: Tensor, case_index: Tensor, num_cases: int, num_classes: int) -> Tensor:
    """Pixels of every class in intersection, prediction and target, summed into their cases.

    in: label maps (B, H, W), in {0, 1} for one class; case_index int64 (B,) in [0, N), all on one device
    out: int64 (N, K, 3); class 0 is the background, or the mask where num_classes is 1
    """
    per_image = []
    for label in range(num_classes) if num_classes > 1 else (1,):
        p, t = (pred == label).flatten(1), (target == label).flatten(1)
        per_image.append(torch.stack([(p & t).sum(1), p.sum(1), t.sum(1)], dim=1))
    counts = torch.zeros(num_cases, num_classes, 3, dtype=torch.int64, device=pred.device)
    return counts.index_add_(0, case_index, torch.stack(per_image, dim=1))


def dice_from_counts(counts: Tensor) -> Tensor:
    """Dice per case and class: in (N, K, 3), out float64 (N, K); NaN where prediction and target are both empty."""
    both, pred, target = counts.double().unbind(-1)
    return 2 * both / (pred + target)  # 0 / 0 is NaN
