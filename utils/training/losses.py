"""The training losses, over the batch of all ranks together.

Shapes: B batch, K classes (background included), H/W height and width. Logits are cast to
float32 first: sums over a batch of pixels do not fit half precision. A binary task has logits (B, 1, H, W) of the
foreground; `weights`, one for each class with the background, weigh the pixels of a mean.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.distributed import all_reduce_sum
from utils.errors import UserError, import_baseline

Loss = Callable[[Tensor, Tensor], Tensor]
Weights = tuple[float, ...] | None


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


def cross_entropy_loss(logits: Tensor, target: Tensor, weights: Weights = None) -> Tensor:
    """Cross-entropy, mean over all pixels of the batch.

    in:  logits (B, K, H, W); target (B, H, W), integers 0..K-1
    """
    return _global_mean(F.cross_entropy(logits.float(), target.long(), reduction="none"), target, weights)


def ce_dice_loss(logits: Tensor, target: Tensor, weights: Weights = None) -> Tensor:
    """0.4 cross-entropy + 0.6 soft Dice."""
    return 0.4 * cross_entropy_loss(logits, target, weights) + 0.6 * dice_loss(logits, target)


def binary_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss of a sigmoid over the whole batch, smooth 1.

    in:  logits (B, 1, H, W); target (B, H, W), 0 or 1
    out: scalar in [0, 1]; 0 when both are empty
    """
    prob = logits.float().sigmoid()[:, 0]
    target = target.to(prob.dtype)
    overlap, size = all_reduce_sum(torch.stack([(prob * target).sum(), prob.sum() + target.sum()]))
    return 1 - (2 * overlap + 1) / (size + 1)


def binary_cross_entropy_loss(logits: Tensor, target: Tensor, weights: Weights = None) -> Tensor:
    """Binary cross-entropy, mean over all pixels; shapes as `binary_dice_loss`."""
    logits = logits.float()[:, 0]
    losses = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return _global_mean(losses, target, weights)


def dice_bce_loss(logits: Tensor, target: Tensor, weights: Weights = None) -> Tensor:
    """Soft Dice + binary cross-entropy."""
    return binary_dice_loss(logits, target) + binary_cross_entropy_loss(logits, target, weights)


def focal_loss(logits: Tensor, target: Tensor, weights: Weights = None) -> Tensor:
    """Cross-entropy times (1 - probability of the true class) ** 2, mean over all pixels.

    in:  logits (B, K, H, W), or (B, 1, H, W) of a binary task; target (B, H, W)
    Source: Lin et al. 2017, arXiv 1708.02002, with gamma 2 and without its alpha: give class weights in its place.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)  # a softmax over (0, x) is the sigmoid of x
    losses = F.cross_entropy(logits.float(), target.long(), reduction="none")
    return _global_mean((1 - (-losses).exp()) ** 2 * losses, target, weights)


def tversky_loss(logits: Tensor, target: Tensor, exponent: float = 1.0) -> Tensor:
    """(1 - Tversky index) ** exponent of each class over the whole batch, mean of the classes.

    The index is (TP + 1) / (TP + 0.3 FP + 0.7 FN + 1).
    in:  logits (B, K, H, W), or (B, 1, H, W) of a binary task, where only the foreground counts; target (B, H, W)
    out: scalar in [0, 1]
    Source: Salehi et al. 2017, arXiv 1706.05721; with exponent 0.75 the focal form of Abraham and Khan 2019,
        arXiv 1810.07842.
    """
    binary = logits.shape[1] == 1
    prob = logits.float().sigmoid() if binary else logits.float().softmax(dim=1)
    classes = torch.arange(prob.shape[1], device=target.device)[:, None, None] + int(binary)
    onehot = (target[:, None] == classes).to(prob.dtype)
    dims = (0, 2, 3)
    overlap, found, true = all_reduce_sum(torch.stack([(prob * onehot).sum(dims), prob.sum(dims), onehot.sum(dims)]))
    missing = 0.3 * (found - overlap) + 0.7 * (true - overlap)
    # 1 - index, written so that rounding cannot make it negative: a power of that has no gradient
    return (missing.clamp_min(1e-6) / (overlap + missing + 1)).pow(exponent).mean()


def lovasz_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss, over the images of this process.

    in:  logits (B, K, H, W), or (B, 1, H, W) of a binary task; target (B, H, W)
    Source: Berman et al. 2018, arXiv 1705.08790; computed by segmentation_models_pytorch.
    """
    mode = "binary" if logits.shape[1] == 1 else "multiclass"
    return _lovasz(mode)(logits.float(), target.long())


@cache
def _lovasz(mode: str) -> Loss:
    return import_baseline("segmentation_models_pytorch.losses", "--loss lovasz").LovaszLoss(mode)


def mean_over_stages(loss: Loss, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
    """`loss` of the logits; under deep supervision the mean of those of each stage, with weights 1, 1/2, 1/4, ...

    logits: (B, K, H, W), or a list of these, the network's output first; target (B, H, W)
    Source: the weights are nnU-Net's.
    """
    if isinstance(logits, Tensor):
        return loss(logits, target)
    weights = [0.5**depth for depth in range(len(logits))]
    return sum(weight * loss(stage, target) for weight, stage in zip(weights, logits)) / sum(weights)


WEIGHTED = ("ce", "ce_dice", "bce", "dice_bce", "focal")
EITHER: dict[str, Loss] = {
    "focal": focal_loss,
    "tversky": tversky_loss,
    "focal_tversky": partial(tversky_loss, exponent=0.75),
    "lovasz": lovasz_loss,
}
MULTI_CLASS: dict[str, Loss] = {
    "ce_dice": ce_dice_loss,
    "dice": dice_loss,
    "ce": cross_entropy_loss,
    **EITHER,
}
BINARY: dict[str, Loss] = {
    "dice": binary_dice_loss,
    "dice_bce": dice_bce_loss,
    "bce": binary_cross_entropy_loss,
    **EITHER,
}


def loss_for(name: str, num_classes: int, weights: Weights = None) -> Loss:
    """The loss called `name` for a network with `num_classes` outputs (1: a sigmoid).

    weights: of the pixels of each class, the background first, in losses that are means over pixels
    raises: UserError when they do not go together, or for a package that is not installed
    """
    losses = BINARY if num_classes == 1 else MULTI_CLASS
    if name not in losses:
        kind = "one output (a binary task)" if num_classes == 1 else f"{num_classes} classes"
        raise UserError(f"--loss {name}: not defined for {kind}; expected one of {', '.join(losses)}")
    if name == "lovasz":
        _lovasz("binary" if num_classes == 1 else "multiclass")
    loss = losses[name]
    if weights is None:
        return loss
    if len(weights) != max(num_classes, 2) or sum(weights) <= 0:
        raise UserError(
            f"--class_weights {', '.join(map(str, weights))}: expected {max(num_classes, 2)} numbers, the background's "
            "first, not all of them 0"
        )
    if name not in WEIGHTED:
        raise UserError(f"--class_weights: --loss {name} has none; expected one of {', '.join(WEIGHTED)}")
    return partial(loss, weights=weights)


def _global_mean(values: Tensor, target: Tensor | None = None, weights: Weights = None) -> Tensor:
    """Mean of `values` (B, H, W) over the pixels of all ranks, each weighed by its class in `target`."""
    if weights is None:
        total = values.sum()
        count = torch.full_like(total, values.numel())  # no copy from the CPU
    else:
        shares = sum((target == label) * weight for label, weight in enumerate(weights))
        total, count = (values * shares).sum(), shares.sum()
    total, count = all_reduce_sum(torch.stack([total, count]))
    return total / count.clamp_min(1e-12)
