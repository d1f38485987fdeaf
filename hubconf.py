"""torch.hub: `torch.hub.load(FOLDER_OR_REPOSITORY, "heteromedseg", ...)`. Nothing else here imports this file."""

from pathlib import Path

from torch import nn

from models import Predictor, build_model
from recipes import RECIPES

dependencies = ["torch", "einops", "numpy", "scipy", "cv2", "h5py", "tqdm"]


def heteromedseg(
    checkpoint: str | Path | None = None, num_classes: int = 9, ssd: str = "causal", recipe: str | None = None
) -> nn.Module:
    """The network: images (B, 1 or 3, H, W), normalised as in training, to logits (B, K, H, W).

    checkpoint: file whose weights and form it has, in evaluation mode; without one new weights, `num_classes` outputs
        (with the background, or 1) and the state-space form `ssd`
    recipe: that of released weights, which hold no settings
    """
    if checkpoint is None:
        return build_model(num_classes, ssd)
    return Predictor.load(checkpoint, device="cpu", recipes=RECIPES, recipe=recipe).models[0]


def heteromedseg_predictor(*checkpoints: str | Path, device: str = "auto", recipe: str | None = None, **settings):
    """A `models.Predictor`: raw images to masks, with the preprocessing of the training."""
    return Predictor.load(*checkpoints, device=device, recipes=RECIPES, recipe=recipe, **settings)
