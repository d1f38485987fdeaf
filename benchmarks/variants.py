"""What is measured, named in one word: `plain-fp32`, `ours-bf16-compiled`, `ours-fp32-allocator`, `unet_resnet34-bf16`.

The word starts with a network; the rest, in any order, says what differs from the first choices of CHOICES.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.plain import Plain
from models import build_model

NUM_CLASSES = 9
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

    raises: ImportError where its package is not installed
    """
    network = NETWORKS[variant.network](size, variant.ssd)
    if variant.activations == "recompute":
        network.recompute = True
    return network


def _smp(architecture: str, encoder: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    return getattr(smp, architecture)(encoder, encoder_weights=None, in_channels=3, classes=NUM_CLASSES)


def _nnunet(kind: str, size: int) -> nn.Module:
    """nnU-Net's default 2-D plan: 32 features doubled up to 512, pooling while a side stays at least 4."""
    from dynamic_network_architectures.architectures import unet

    stages = max(1, size.bit_length() - 2)
    blocks: dict[str, Any] = {"n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1)}
    if kind == "ResidualEncoderUNet":
        residual = (1, 3, 4, *[6] * stages)[:stages]
        blocks = {"n_blocks_per_stage": residual, "n_conv_per_stage_decoder": [1] * (stages - 1)}
    return getattr(unet, kind)(
        input_channels=3,
        n_stages=stages,
        features_per_stage=[min(32 * 2**i, 512) for i in range(stages)],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1] + [2] * (stages - 1),
        num_classes=NUM_CLASSES,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **blocks,
    )


# name -> (side, form of SSD) -> network
NETWORKS: dict[str, Callable[[int, str], nn.Module]] = {
    "ours": lambda _, ssd: build_model(NUM_CLASSES, ssd),
    "plain": lambda _, ssd: Plain(NUM_CLASSES, ssd),
    "unet_resnet34": lambda *_: _smp("Unet", "resnet34"),
    "unet_efficientnet_b4": lambda *_: _smp("Unet", "efficientnet-b4"),
    "segformer_b2": lambda *_: _smp("Segformer", "mit_b2"),
    "nnunet_plain": lambda size, _: _nnunet("PlainConvUNet", size),
    "nnunet_residual": lambda size, _: _nnunet("ResidualEncoderUNet", size),
}
PEERS = tuple(name for name in NETWORKS if name not in ("ours", "plain"))
