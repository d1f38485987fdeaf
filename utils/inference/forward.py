"""Make one function, images to logits, of one or several networks.

It may average over networks, over the four flips of an image and over its sizes, and may run
through torch.compile. B batch, C channels, K classes, S/T the networks' input size.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.config import Config
from utils.device import autocast
from utils.errors import UserError
from utils.log import log

Forward = Callable[[Tensor], Tensor]
PLAIN = Config()  # averages over nothing
FLIPS = ((), (-1,), (-2,), (-2, -1))
MULTIPLE = 32  # scaled sizes are rounded to it: the network would pad them


def forward_fn(
    models: Sequence[nn.Module], device: torch.device, precision: str = "fp32", cfg: Config = PLAIN
) -> Forward:
    """One function out of one or several networks, which are put into evaluation mode on `device`.

    It averages probabilities over the networks, under cfg.tta over the four flips of an image, and over cfg.tta_scales
    besides the image's own size. It then returns their logarithm (K > 1) or log-odds (K = 1), which arg max, softmax
    and sigmoid read like logits. With nothing to average it returns the logits. cfg.compile and cfg.graphs hold, too.
    in: (B, C, S, T); out: float32 (B, K, S, T)
    raises: UserError for scales that, after rounding, give the same size twice
    """
    planned = [scaled_size(cfg.img_size, scale) for scale in (1.0, *cfg.tta_scales)]
    listed = ", ".join("x".join(map(str, size)) for size in planned)
    if len(set(planned)) < len(planned):
        raise UserError(
            f"--tta_scales {','.join(f'{scale:g}' for scale in cfg.tta_scales)}: with the input itself they give the "
            f"sizes {listed} (multiples of {MULTIPLE}); expected each size once"
        )
    if cfg.tta_scales:
        log(f"averaging over the sizes {listed}")
    models = [model.to(device).eval() for model in models]
    networks = [Compiled(model, device, cfg.graphs) for model in models] if cfg.compile else models
    flips = FLIPS if cfg.tta else FLIPS[:1]

    @torch.inference_mode()
    def forward(batch: Tensor) -> Tensor:
        total = None
        own = batch.shape[-2:]
        sizes = [scaled_size(own, scale) for scale in (1.0, *cfg.tta_scales)]
        views = list(product(networks, sizes, flips))
        for network, size, dims in views:
            view = resized(batch, size).flip(dims)
            with autocast(device, precision):
                logits = network(view)
            logits = logits.flip(dims).float()
            if len(views) == 1:
                return logits
            probability = probabilities(resized(logits, own))
            total = probability if total is None else total + probability
        mean = total / len(views)
        return mean.logit(1e-7) if mean.shape[1] == 1 else mean.clamp_min(1e-30).log()

    return forward


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over K classes, sigmoid where K is 1."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def labels_from_logits(logits: Tensor) -> Tensor:
    """Arg max over classes, or for one class a probability of at least one half.

    in: (B, K, H, W); out: uint8 (B, H, W)
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] >= 0).to(torch.uint8)
    return logits.argmax(1).to(torch.uint8)


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """`size` times `scale`, each side rounded to a multiple of 32; at scale 1 as it is."""
    if scale == 1:
        return size[0], size[1]
    return tuple(max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in size)


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear on a grid that keeps the pixels' edges, without aliasing where it shrinks."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", antialias=True)


class Compiled:
    """A network in evaluation mode behind torch.compile; each size of image is compiled once, not each size of batch.

    A batch smaller than one before is filled up with zeros, which costs less than compiling again. On a CPU the
    weights are laid out once for all calls, so they must not change any more. With `graphs`, a GPU replays the whole
    pass as a CUDA graph.
    """

    def __init__(self, model: nn.Module, device: torch.device, graphs: bool = False) -> None:
        self.network = torch.compile(model, dynamic=False, mode="reduce-overhead" if graphs else None)
        self.graphs = graphs
        from torch._inductor import config  # takes more than a second to import

        self.settings = partial(config.patch, freezing=device.type == "cpu")  # an option of compile comes too late
        self.batch: Counter[tuple[int, ...]] = Counter()  # largest so far of each shape of image

    def __call__(self, images: Tensor) -> Tensor:
        shape, count = tuple(images.shape[1:]), len(images)
        self.batch[shape] = max(self.batch[shape], count)
        missing = self.batch[shape] - count
        filled = torch.cat([images, images.new_zeros(missing, *shape)]) if missing else images.contiguous()
        with self.settings():
            logits = self.network(filled)[:count]
        return logits.clone() if self.graphs else logits  # the next call overwrites what a graph returned
