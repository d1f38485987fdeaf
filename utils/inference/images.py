"""Pictures through a network of fixed input size: probabilities at each picture's own size.

B batch, K classes, H/W a picture's own height and width, S/T the network's. `forward` is any function from a
normalised batch (B, C, S, T) on the device to logits (B, K, S, T).
"""

from collections.abc import Sequence

import numpy as np
import torch

from utils.config import Config
from utils.inference.forward import Forward, probabilities
from utils.inference.windows import in_windows
from utils.preprocess.sizes import network_input, resize_logits


def predict_images(
    forward: Forward, images: Sequence[np.ndarray], cfg: Config, device: torch.device
) -> list[np.ndarray]:
    """Probabilities of one batch of pictures, whose own sizes may differ.

    in:  as `utils.preprocess.intensities.as_trained` gives them, (H, W) or (H, W, 3)
    out: float32 (H, W) for a binary network, else (K, H, W); (S, T) instead of (H, W) under `legacy`, unless cfg's
        images are seen through windows (`--fit slide`)
    """
    pre, maps = cfg.preprocess, []
    legacy, slide = cfg.protocol == "legacy", pre.fit == "slide"
    with torch.inference_mode():
        for group in [[image] for image in images] if slide else [images]:
            batch = network_input(group, cfg.img_size, pre, device)
            logits = in_windows(forward, batch, cfg.img_size, cfg.batch_size)
            for image, one in zip(group, logits.split(1)):
                one = one if legacy and not slide else resize_logits(one, image.shape[:2], pre)
                maps.append(probabilities(one)[0].squeeze(0).cpu().numpy())
    return maps


def decide(probabilities: np.ndarray) -> np.ndarray:
    """Labels of one picture: (H, W) -> bool, where the probability is at least one half; (K, H, W) -> uint8, arg max"""
    return probabilities >= 0.5 if probabilities.ndim == 2 else probabilities.argmax(0).astype(np.uint8)
