"""A result does not depend on the machine: whatever evaluates asks for the precision of evaluation."""

import dataclasses

import pytest

import test as test_script
from isic_polyp_rectal import cross_validation
from isic_polyp_rectal.task import ISIC2018
from models import build_model
from tests.support.shallow import SMALL
from utils import checkpoint
from utils.config import to_dict


class Asked(Exception):
    pass


def ask(name, device, evaluating=False):
    raise Asked(name, evaluating)


def test_test_py_whatever_precision_training_had(tmp_path, monkeypatch):
    cfg = dataclasses.replace(ISIC2018, precision="bf16", **SMALL)
    state = {"format": "heteromedseg", "model": build_model(1, **SMALL).state_dict(), "config": to_dict(cfg)}
    checkpoint.save(tmp_path / "net.pth", state | {"class_names": ["lesion"], "selection": "last"})
    monkeypatch.setattr(test_script, "choose_precision", ask)
    for flags, expected in (([], "auto"), (["--precision", "bf16"], "bf16")):
        with pytest.raises(Asked) as asked:
            test_script.main(["--checkpoint", str(tmp_path / "net.pth"), "--device", "cpu", *flags])
        assert asked.value.args == (expected, True)


def test_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(cross_validation, "choose_precision", ask)
    resumed = dataclasses.replace(ISIC2018, output_dir=str(tmp_path), device="cpu", precision="bf16")
    with pytest.raises(Asked) as asked:
        cross_validation.summarise_folds(resumed, [])
    assert asked.value.args == ("auto", True)
