"""Pictures through a network of fixed input size: probabilities at each picture's own size.

B batch, K classes, H/W a picture's own height and width, S/T the network's. `forward` is any function from a
normalised batch (B, C, S, T) on the device to logits (B, K, S, T).
"""

from collections.abc import Sequence

import numpy as np
import torch

from utils.inference.forward import Forward, probabilities
from utils.preprocess import Preprocess, network_input, resize_logits


def predict_images(
    forward: Forward,
    images: Sequence[np.ndarray],
    img_size: tuple[int, int],
    pre: Preprocess,
    device: torch.device,
    protocol: str = "standard",
) -> list[np.ndarray]:
    """Probabilities of one batch of pictures, whose own sizes may differ.

    in:  as `utils.preprocess.as_trained` gives them, (H, W) or (H, W, 3)
    out: float32 (H, W) for a binary network, else (K, H, W); (S, T) instead of (H, W) under `legacy`
    """
    maps = []
    with torch.inference_mode():
        logits = forward(network_input(images, img_size, pre, device)).float()
        for image, one in zip(images, logits.split(1)):
            size = one.shape[-2:] if protocol == "legacy" else image.shape[:2]
            maps.append(probabilities(resize_logits(one, size, pre))[0].squeeze(0).cpu().numpy())
    return maps
