"""Which checkpoints go together, and the settings of test.py: the checkpoint's, but for those of training alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from utils.config import Config
from utils.errors import UserError
from utils.inference.checkpoints import check_alike, settle
from utils.inherited import passed_on
from utils.preprocess import PICTURES


def test_the_precision_of_training_is_not_that_of_testing():
    trained = Config(precision="bf16")
    assert settle(passed_on(trained), {}).precision == "auto"
    assert settle(passed_on(trained), {"precision": "fp16"}).precision == "fp16"


def loaded(file, class_names=("polyp",), **changed):
    cfg = Config(num_classes=1, preprocess=replace(PICTURES, **changed))
    return SimpleNamespace(origin={"file": file}, cfg=cfg, class_names=class_names)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (loaded("b.pth", fit="slide"), r"preprocess\.fit: squash, slide \(a\.pth, b\.pth\)"),
        (loaded("b.pth", orientation="SPL"), r"preprocess\.orientation: , SPL"),
        (loaded("b.pth", intensity="percentile"), r"preprocess\.intensity: range, percentile"),
        (loaded("b.pth", std=(1.0, 1.0, 1.0)), r"preprocess\.std"),
        (loaded("b.pth", class_names=("adenoma",)), r"class names: \('polyp',\), \('adenoma',\)"),
    ],
)
def test_networks_that_see_images_differently_are_not_averaged(other, found):
    with pytest.raises(UserError, match=f"cannot average networks of different {found}"):
        check_alike([loaded("a.pth"), other])
    check_alike([loaded("a.pth"), loaded("a.pth"), loaded("c.pth", class_names=None)])
