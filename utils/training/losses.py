"""The training losses, over the batch of all ranks together.

Shapes: B batch, K classes (background included), H/W height and width. Logits are cast to
float32 first: sums over a batch of pixels do not fit half precision.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.distributed import all_reduce_sum
from utils.errors import UserError

Loss = Callable[[Tensor, Tensor], Tensor]


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss of a softmax over K classes, each class over the whole batch, mean of the K.

    in:  logits (B, K, H, W); target (B, H, W), integers 0..K-1
    out: scalar in [0, 1]; a class absent from target and prediction costs 0
    Source: V-Net (Milletari et al. 2016) with squares in the denominator, as in TransUNet.
    """
    prob = logits.float().softmax(dim=1)
    classes = torch.arange(prob.shape[1], device=target.device)[:, None, None]
    onehot = (target[:, None] == classes).to(prob.dtype)
    dims = (0, 2, 3)
    sums = torch.stack([(prob * onehot).sum(dims), (prob * prob).sum(dims) + onehot.sum(dims)])
    overlap, size = all_reduce_sum(sums)
    return (1 - (2 * overlap + 1e-5) / (size + 1e-5)).mean()


def cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, mean over all pixels of the batch.

    in:  logits (B, K, H, W); target (B, H, W), integers 0..K-1
    """
    return _global_mean(F.cross_entropy(logits.float(), target.long(), reduction="none"))


def binary_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss of a sigmoid over the whole batch, smooth 1.

    in:  logits (B, 1, H, W); target (B, H, W), 0 or 1
    out: scalar in [0, 1]; 0 when both are empty
    """
    prob = logits.float().sigmoid()[:, 0]
    target = target.to(prob.dtype)
    overlap, size = all_reduce_sum(torch.stack([(prob * target).sum(), prob.sum() + target.sum()]))
    return 1 - (2 * overlap + 1) / (size + 1)


def binary_cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, mean over all pixels; shapes as `binary_dice_loss`."""
    logits = logits.float()[:, 0]
    return _global_mean(F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none"))


def weighted_sum(logits: Tensor, target: Tensor, terms: tuple[tuple[float, Loss], ...]) -> Tensor:
    """Sum of `weight * loss` over `terms`."""
    return sum(weight * loss(logits, target) for weight, loss in terms)


MULTI_CLASS: dict[str, Loss] = {
    "ce_dice": partial(weighted_sum, terms=((0.4, cross_entropy_loss), (0.6, dice_loss))),
    "dice": dice_loss,
    "ce": cross_entropy_loss,
}
BINARY: dict[str, Loss] = {
    "dice": binary_dice_loss,
    "dice_bce": partial(weighted_sum, terms=((1.0, binary_dice_loss), (1.0, binary_cross_entropy_loss))),
    "bce": binary_cross_entropy_loss,
}


def loss_for(name: str, num_classes: int) -> Loss:
    """The loss called `name` for a network with `num_classes` outputs (1: a sigmoid).

    raises: UserError when the two do not go together
    """
    losses = BINARY if num_classes == 1 else MULTI_CLASS
    if name not in losses:
        kind = "one output (a binary task)" if num_classes == 1 else f"{num_classes} classes"
        raise UserError(f"--loss {name}: not defined for {kind}; expected one of {', '.join(losses)}")
    return losses[name]


def _global_mean(values: Tensor) -> Tensor:
    """Mean of `values` over the pixels of all ranks."""
    total = values.sum()
    total, count = all_reduce_sum(torch.stack([total, torch.full_like(total, values.numel())]))  # no copy from the CPU
    return total / count
