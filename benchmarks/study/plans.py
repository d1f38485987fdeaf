"""Studies as values: what is trained on which data, with which flags and seeds. `benchmarks.study` runs them.

Folders of data are those of the README. The first arm of a plan is the one that the others are tested against.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.baselines import OTHERS, SMP


@dataclass(frozen=True)
class Plan:
    """Arms to train and test under the same rules.

    data: flags of train.py and test.py that name the data; train: flags of train.py for all arms
    arms: name -> flags of train.py that make the arm; seeds: each arm is trained once with each
    chosen_after: arm -> the seed whose figures of the other arms it was made from
    """

    data: tuple[str, ...]
    train: tuple[str, ...]
    arms: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...] = (1, 2, 3)
    chosen_after: Mapping[str, int] = field(default_factory=dict)


def flags(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# python prepare_data.py cvc CVC-ClinicDB data/CVC-ClinicDB --split video
CVC = flags("--dataset data/CVC-ClinicDB --recipe cvc_clinicdb --csvfile data/CVC-ClinicDB/test_train_data.csv")
# python prepare_data.py isic ISIC2018_Task1-2_Training_Input.zip ISIC2018_Task1_Training_GroundTruth.zip data/ISIC2018
ISIC = flags("--dataset data/ISIC2018 --recipe isic2018 --csvfile data/ISIC2018/test_train_data.csv --fold 0")
# python prepare_data.py acdc database.zip data/ACDC; its prepared.json has the lists and the classes
ACDC = flags("--dataset data/ACDC --recipe synapse")

CPU = flags("--img_size 128 --precision fp32")  # some hours a plan on two cores
# 4 minutes a run on a core
SMALL = flags("--img_size 64 --precision fp32 --batch_size 16 --epochs 6 --pretrained none")
SHORT = flags("--batch_size 16 --schedule cosine --warmup_epochs 1 --loss dice_bce --lr 0.0006 --epochs 15")
# From scratch, so that no network has weights that another lacks. Batch size, optimizer and rate are the recipe's.
GPU = flags("--precision bf16 --pretrained none --epochs 100 --schedule cosine --warmup_epochs 5")
GPU_PICTURES = (*GPU, *flags("--img_size 256 --loss dice_bce"))
GPU_SLICES = (*GPU, *flags("--img_size 224"))

NETWORKS = {
    "causal": (),
    "noncausal": flags("--ssd noncausal"),
    "bidirectional": flags("--ssd bidirectional"),
    **{name: ("--network", name) for name in (*SMP, *OTHERS)},
}
# What is unusual in the architecture, each with the usual form in its place
SUSPECTS = {
    "published": (),
    **{name: ("--variant", name) for name in ("residual_decoder", "single_norm", "head_scale", "gated_z")},
    "no_drop_path": flags("--drop_path 0"),
}


def some(*names: str) -> dict[str, tuple[str, ...]]:
    """The arms of NETWORKS with these names."""
    return {name: NETWORKS[name] for name in names}


def steps(warmup: int, ema: float, side: int) -> dict[str, tuple[str, ...]]:
    """What may help without another network, one by one and together, after the recipe as it was published.

    Choose among them on validation data: --val.
    warmup: epochs; side: of the larger input, in pixels
    ema: decay of the moving average; 1 / (1 - ema) updates must be a small part of a run
    """
    each = {
        "cosine": flags(f"--schedule cosine --warmup_epochs {warmup}"),
        "ema": flags(f"--ema {ema}"),
        "dice_bce": flags("--loss dice_bce"),
        "strong_augment": flags("--strong_augment"),
        "deep_supervision": flags("--deep_supervision"),
        "larger_input": flags(f"--img_size {side}"),
    }
    # together what helped most in better_arm_cpu with its first seed
    chosen = (*each["dice_bce"], *each["strong_augment"], *each["larger_input"])
    return {"published": (), **each, "chosen": chosen, "all": tuple(word for words in each.values() for word in words)}


PLANS = {
    "cvc_cpu": Plan(CVC, (*CPU, *SHORT), some("causal", "noncausal", "unet_resnet34", "nnunet_plain")),
    "acdc_cpu": Plan(ACDC, (*CPU, *flags("--epochs 5")), some("causal", "unet_resnet34")),
    "better_arm_cpu": Plan(CVC, SMALL, steps(warmup=1, ema=0.95, side=96), chosen_after={"chosen": 1}),
    # on GPUs, in order of worth
    "cvc_gpu": Plan(CVC, GPU_PICTURES, NETWORKS),
    "acdc_gpu": Plan(ACDC, GPU_SLICES, NETWORKS),
    "isic_gpu": Plan(ISIC, GPU_PICTURES, NETWORKS),
    "better_arm_gpu": Plan(
        CVC,
        flags("--img_size 256 --precision bf16 --pretrained none --epochs 100"),
        {**steps(warmup=5, ema=0.99, side=352), "longer": flags("--epochs 200")},
    ),
    "suspects_cvc_gpu": Plan(CVC, GPU_PICTURES, SUSPECTS),
    "suspects_acdc_gpu": Plan(ACDC, GPU_SLICES, SUSPECTS),
    "suspects_isic_gpu": Plan(ISIC, GPU_PICTURES, SUSPECTS),
    # a few minutes: does a study run?
    "cvc_tiny": Plan(
        CVC,
        flags("--img_size 64 --batch_size 16 --epochs 2 --pretrained none"),
        {"causal": flags("--width 32"), "unet_resnet34": NETWORKS["unet_resnet34"]},
        seeds=(1, 2),
    ),
}
