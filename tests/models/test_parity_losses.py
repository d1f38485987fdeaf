"""The losses against the published code's figures, and the widest skip attention where its figures are at hand."""

import numpy as np
import pytest
import torch

from models.scsa import SCSA
from tests.support.fill import REFERENCE, fill_module
from tests.support.places import GOLDEN
from utils.training.losses import MULTI_CLASS, binary_dice_loss, cross_entropy_loss, dice_loss


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "losses.npz") as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def test_multi_class_losses(golden):
    logits, labels = golden["logits"], golden["labels"]
    assert dice_loss(logits, labels).item() == pytest.approx(golden["dice"].item(), rel=1e-6)
    assert cross_entropy_loss(logits, labels).item() == pytest.approx(golden["ce"].item(), rel=1e-6)
    expected = 0.4 * golden["ce"].item() + 0.6 * golden["dice"].item()
    assert MULTI_CLASS["ce_dice"](logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_binary_dice(golden):
    loss = binary_dice_loss(golden["binary.logits"], golden["binary.mask"][:, 0])
    assert loss.item() == pytest.approx(golden["binary.dice"].item(), rel=1e-6)


@pytest.mark.skipif(not (REFERENCE / "golden_modules.npz").is_file(), reason="the large golden file is not here")
def test_widest_skip_attention():
    with np.load(REFERENCE / "golden_modules.npz") as file:
        image, expected = file["scsa_384.in"], file["scsa_384.out"]
    module = fill_module(SCSA(384, 12), "scsa_384")
    found = module(torch.from_numpy(image).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).detach().numpy()
    assert np.abs(found - expected).max() <= 5e-6 * np.abs(expected).max()
