"""Studies as values: what is trained on which data, with which flags and seeds. `benchmarks.study` runs them.

Folders of data are those of the README. The first arm of a plan is the one that the others are tested against.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Arms to train and test under the same rules.

    data: flags of train.py and test.py that name the data; train: flags of train.py for all arms
    arms: name -> flags of train.py that make the arm; seeds: each arm is trained once with each
    """

    data: tuple[str, ...]
    train: tuple[str, ...]
    arms: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...] = (1, 2, 3)


def flags(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CVC = flags("--dataset data/CVC-ClinicDB --recipe cvc_clinicdb --csvfile data/CVC-ClinicDB/test_train_data.csv")
ACDC = flags("--dataset data/ACDC --recipe synapse")
CPU = flags("--img_size 128 --precision fp32")
SHORT = flags("--batch_size 16 --schedule cosine --warmup_epochs 1 --loss dice_bce --lr 0.0006")
NETWORKS = {
    "causal": (),
    "noncausal": flags("--ssd noncausal"),
    "unet_resnet34": flags("--network unet_resnet34"),
    "nnunet_plain": flags("--network nnunet_plain"),
}
# What may help without another network, one by one and together; chosen on validation data
STEPS = {
    "published": (),
    "cosine": flags("--schedule cosine --warmup_epochs 1"),
    "ema": flags("--ema 0.99"),
    "dice_bce": flags("--loss dice_bce"),
    "all": flags("--schedule cosine --warmup_epochs 1 --ema 0.99 --loss dice_bce"),
}
PLANS = {
    # prepare_data.py cvc ... --split video; two CPU cores, from scratch
    "cvc_cpu": Plan(CVC, (*CPU, *SHORT, *flags("--epochs 15")), NETWORKS),
    "acdc_cpu": Plan(
        ACDC, (*CPU, *flags("--epochs 5")), {name: NETWORKS[name] for name in ("causal", "unet_resnet34")}
    ),
    "better_arm_cpu": Plan(CVC, (*CPU, *flags("--batch_size 16 --epochs 6")), STEPS),
    # a few minutes: does a study run?
    "cvc_tiny": Plan(
        CVC,
        flags("--img_size 64 --batch_size 16 --epochs 2 --width 32 --pretrained none"),
        {name: NETWORKS[name] for name in ("causal", "unet_resnet34")},
        seeds=(1, 2),
    ),
}
