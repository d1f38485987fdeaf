"""Volumes through a network of fixed input size: a label for every voxel, slice by slice.

B batch, K classes, D slices, H/W a slice's own height and width, S/T the network's. `forward` is any function from
a normalised batch (B, C, S, T) on the device to logits (B, K, S, T).

`standard` resizes logits to the slices' own grid; `legacy`, the rule of the published tables, resizes slices by
SciPy itself and labels back. `--fit slide` resizes nothing under either.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import torch

from utils.config import Config
from utils.inference.forward import Forward, labels_from_logits, probabilities
from utils.inference.windows import in_windows
from utils.preprocess.sizes import crop_margins, fit_image, network_input, resize_labels, resize_logits

MAX_LOGITS = 2**26  # values of logits at the slices' own size that are held at once: 256 MiB


def predict_volume(
    forward: Forward,
    image: np.ndarray,
    cfg: Config,
    device: torch.device,
    keep: Callable[[torch.Tensor], None] | None = None,
) -> np.ndarray:
    """Label every slice of a volume.

    in:  slices as `utils.preprocess.intensities.as_trained` gives them, (D, H, W) or (D, H, W, 3);
        keep: called with the probabilities (n, K, H, W) of the next slices under `standard`
    out: uint8 (D, H, W)
    """
    pre, native, labels = cfg.preprocess, image.shape[1:3], []
    legacy = cfg.protocol == "legacy" and pre.fit != "slide"
    with ThreadPoolExecutor() as pool, torch.inference_mode():
        slices = iter(image)
        # on the host: later slices while these are in the network
        if legacy or (pre.resize == "area" and pre.fit != "slide"):
            slices = pool.map(partial(fit_image, size=cfg.img_size, pre=pre), image)
        while batch := list(islice(slices, cfg.batch_size)):
            logits = in_windows(forward, network_input(batch, cfg.img_size, pre, device), cfg.img_size, cfg.batch_size)
            if legacy:
                labels.append(labels_from_logits(logits))
                continue
            at_once = max(1, MAX_LOGITS // (logits.shape[1] * native[0] * native[1]))
            for part in logits.split(at_once):
                part = resize_logits(part, native, pre)
                labels.append(labels_from_logits(part))
                if keep:
                    keep(probabilities(part))
        found = torch.cat(labels).cpu().numpy()
    return resize_labels(crop_margins(found, native, pre), native, pre) if legacy else found
