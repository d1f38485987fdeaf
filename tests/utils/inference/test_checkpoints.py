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


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, True),
        ({"dataset": "isic2018"}, True),  # the recipe of the training, as in the published command
        ({"dataset": "data/isic"}, True),
        ({"dataset": "data/../data/isic/", "root_path": "data/../data/isic/"}, True),
        ({"dataset": "cvc_clinicdb"}, False),
        ({"dataset": "data/other", "root_path": "data/other"}, False),
    ],
)
def test_the_csv_of_the_training_is_not_that_of_other_data(given, kept):
    own = {"root_path": "data/isic", "csvfile": "data/isic/split.csv", "list_dir": None}
    trained = Config(dataset="data/isic", recipe="isic2018", **own)
    other = {"root_path": None, "csvfile": None, "list_dir": None}
    cfg = settle(trained, given)
    assert {name: getattr(cfg, name) for name in own} == (own if kept else other) | {
        name: value for name, value in given.items() if name != "dataset"
    }
    assert settle(trained, given | {"csvfile": "new.csv"}).csvfile == "new.csv"


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
