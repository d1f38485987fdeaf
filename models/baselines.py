"""Networks of other packages by name, to train and test under the same rules as HeteroMedSeg.

Their packages are listed in requirements-baselines.txt and imported when a network is named.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.layers import pad_to_multiples
from utils.config import Config
from utils.errors import UserError, import_baseline

# Short names of networks of segmentation_models_pytorch (SMP). Any other is `smp:ARCHITECTURE:ENCODER`.
SMP = {
    "unet_resnet34": "smp:Unet:resnet34",
    "unet_efficientnet_b4": "smp:Unet:efficientnet-b4",
    "unetplusplus_resnet34": "smp:UnetPlusPlus:resnet34",
    "deeplabv3plus_resnet34": "smp:DeepLabV3Plus:resnet34",
    "segformer_b2": "smp:Segformer:mit_b2",
}


class Baseline(nn.Module):
    """A network of another package that takes images as HeteroMedSeg does.

    One channel is repeated to three. Sides are extended to multiples of `multiple` by repeating the last pixels,
    and the logits are cropped back.

    in:  image (B, 1 or 3, H, W)
    out: logits (B, K, H, W)
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        x = pad_to_multiples(image.expand(-1, 3, -1, -1), self.multiple)
        return self.network(x.contiguous(memory_format=torch.channels_last))[:, :, :height, :width]


def build_baseline(cfg: Config, weights: str | None = None) -> Baseline:
    """The network that cfg.network names, with new weights.

    weights: "imagenet" for an encoder of SMP that was trained on ImageNet; its package downloads it
    raises: UserError for an unknown name, for a package that is not installed, for weights that do not exist
    """
    name = SMP.get(cfg.network, cfg.network)
    if name.startswith("smp:"):
        return Baseline(_smp(name, cfg, weights), 32)
    if weights is not None:
        raise UserError(f"--pretrained {weights}: there are none for --network {cfg.network}; leave it out")
    network, multiple = OTHERS[name](cfg)
    return Baseline(network, multiple)


def is_baseline(name: str) -> bool:
    """Whether `build_baseline` may know the network."""
    return name in SMP or name in OTHERS or name.startswith("smp:")


def _smp(name: str, cfg: Config, weights: str | None) -> nn.Module:
    parts = name.split(":")
    if len(parts) != 3:
        raise UserError(f"--network {cfg.network}: expected smp:ARCHITECTURE:ENCODER, as in smp:Unet:resnet34")
    smp = import_baseline("segmentation_models_pytorch", f"--network {cfg.network}")
    try:
        return smp.create_model(parts[1], parts[2], encoder_weights=weights, in_channels=3, classes=cfg.num_classes)
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].strip("'\"")
        raise UserError(f"--network {cfg.network}, --pretrained {weights or 'none'}: {reason}") from error


def _nnunet(kind: str, cfg: Config) -> tuple[nn.Module, int]:
    """nnU-Net's default 2-D network: 32 features doubled up to 512, pooling while the map's shorter side is at least 8.

    It is trained by the recipes here, without nnU-Net's own deep supervision.
    """
    unet = import_baseline("dynamic_network_architectures.architectures.unet", f"--network {cfg.network}")
    stages = max(2, min(cfg.img_size).bit_length() - 2)
    residual = kind == "ResidualEncoderUNet"
    blocks = (1, 3, 4, *[6] * stages)[:stages] if residual else (2,) * stages
    network = getattr(unet, kind)(
        input_channels=3,
        n_stages=stages,
        **{"n_blocks_per_stage" if residual else "n_conv_per_stage": blocks},
        n_conv_per_stage_decoder=[1 if residual else 2] * (stages - 1),
        features_per_stage=[min(32 * 2**i, 512) for i in range(stages)],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1] + [2] * (stages - 1),
        num_classes=cfg.num_classes,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    # the other classifiers serve deep supervision; DistributedDataParallel refuses weights that get no gradient
    network.decoder.seg_layers = network.decoder.seg_layers[-1:]
    return network, 2 ** (stages - 1)


def _swin_unetr(cfg: Config) -> tuple[nn.Module, int]:
    nets = import_baseline("monai.networks.nets", f"--network {cfg.network}")
    return nets.SwinUNETR(in_channels=3, out_channels=cfg.num_classes, feature_size=48, spatial_dims=2), 32


OTHERS: dict[str, Callable[[Config], tuple[nn.Module, int]]] = {
    "nnunet_plain": lambda cfg: _nnunet("PlainConvUNet", cfg),
    "nnunet_residual": lambda cfg: _nnunet("ResidualEncoderUNet", cfg),
    "swin_unetr": _swin_unetr,
}
NAMES = (*SMP, *OTHERS, "smp:ARCHITECTURE:ENCODER")
