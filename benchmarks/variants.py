"""What is measured, named in one word: `plain-fp32`, `ours-bf16-compiled`, `ours-fp32-allocator`, `unet_resnet34-bf16`.

The word starts with a network; the rest, in any order, says what differs from the first choices of CHOICES.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from benchmarks.plain import Plain
from models import build_model
from models.baselines import build_baseline
from utils.config import Config

NUM_CLASSES = 9
PEERS = ("unet_resnet34", "unet_efficientnet_b4", "segformer_b2", "nnunet_plain", "nnunet_residual")
CHOICES = {
    "precision": ("fp32", "bf16"),
    "mode": ("eager", "compiled", "graphs"),  # graphs: torch.compile(mode="reduce-overhead"), CUDA only
    "ssd": ("causal", "noncausal", "bidirectional"),
    "scan": ("auto", "products"),  # products: without mamba_ssm's kernel even where it is installed
    "activations": ("stored", "recompute"),  # kept for the backward pass, or computed again in it (ours only)
    "memory": ("returned", "allocator"),  # freed memory goes back to the system, or is kept as train.py does (CPU)
}


@dataclass(frozen=True)
class Variant:
    network: str
    precision: str = "fp32"
    mode: str = "eager"
    ssd: str = "causal"
    scan: str = "auto"
    activations: str = "stored"
    memory: str = "returned"

    @property
    def name(self) -> str:
        """The shortest word for it."""
        rest = (getattr(self, f) for f in CHOICES if getattr(self, f) != CHOICES[f][0] or f == "precision")
        return "-".join((self.network, *rest))


def parse_variant(word: str) -> Variant:
    """The variant that `word` names.

    raises: ValueError for a word that is none
    """
    network, *rest = word.split("-")
    if network not in NETWORKS:
        raise ValueError(f"variant {word}: no network {network}; expected one of {', '.join(NETWORKS)}")
    fields = {choice: field for field, choices in CHOICES.items() for choice in choices}
    if unknown := [given for given in rest if given not in fields]:
        raise ValueError(f"variant {word}: no such word {unknown[0]}; expected {', '.join(fields)}")
    return Variant(network, **{fields[given]: given for given in rest})


def build_network(variant: Variant, size: int) -> nn.Module:
    """A freshly initialised network of `variant` for images (B, 3, size, size).

    raises: UserError where its package is not installed
    """
    network = NETWORKS[variant.network](size, variant.ssd)
    if variant.activations == "recompute":
        network.recompute = True
    return network


def _peer(name: str, size: int, _: str) -> nn.Module:
    return build_baseline(Config(network=name, num_classes=NUM_CLASSES, img_size=(size, size)))


# name -> (side, form of SSD) -> network
NETWORKS: dict[str, Callable[[int, str], nn.Module]] = {
    "ours": lambda _, ssd: build_model(NUM_CLASSES, ssd),
    "plain": lambda _, ssd: Plain(NUM_CLASSES, ssd),
    **{name: partial(_peer, name) for name in PEERS},
}
