"""Computing activations again changes neither losses nor gradients."""

import pytest
import torch

from models import build_model, fast
from models.bra import BRABlock
from models.build import build_network
from models.fast import images_at_once
from models.layers import Head
from models.vssd import VSSDBlock
from tests.support.shallow import SMALL
from utils.config import Config

CPU = torch.device("cpu")


def gradients(recompute, watch=None, decoder="bra"):
    """(loss, gradients and buffers by name) of one training step."""
    torch.manual_seed(0)
    model = build_model(3, drop_path=0.3, decoder=decoder, **SMALL).train()
    model.recompute = recompute
    for module in model.modules():
        if watch and isinstance(module, (VSSDBlock, BRABlock, Head)):
            module.register_forward_pre_hook(watch)
    torch.manual_seed(1)
    loss = model(torch.randn(5, 1, 32, 64)).square().mean()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()} | dict(model.named_buffers())


@pytest.mark.parametrize("decoder", ["bra", "conv"])
@pytest.mark.parametrize("at_once", [1, 300, 10**6], ids=["one image", "two images of the largest map", "all"])
def test_recomputing_changes_no_number(monkeypatch, at_once, decoder):
    """BatchNorm sees the whole batch, and counts it once."""
    monkeypatch.setitem(fast.PIXELS_AT_ONCE, "cpu", at_once)
    (kept, kept_values), (again, again_values) = (gradients(recompute, decoder=decoder) for recompute in (False, True))
    assert again == pytest.approx(kept, rel=1e-6)
    for name, value in kept_values.items():
        torch.testing.assert_close(again_values[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_no_part_takes_more_images_at_once_than_it_may(monkeypatch):
    monkeypatch.setitem(fast.PIXELS_AT_ONCE, "cpu", 300)  # the largest map has 8 x 16 pixels
    seen = set()
    gradients(True, lambda module, inputs: seen.add((inputs[0].shape[1], len(inputs[0]))))
    assert seen == {(8, 2), (8, 1), (4, 5), (2, 5)}


def test_images_at_once():
    maps, factors = torch.empty(8, 56, 56, 1), torch.empty(8, 2)
    assert images_at_once(maps, factors) == 2
    assert images_at_once(maps[:, :28, :28], maps) == 2, "the skip is larger than what it joins"
    assert images_at_once(maps[:, :28, :28], factors) == 8
    assert images_at_once(torch.empty(3, 256, 256, 1)) == 1, "never less than one"
    assert images_at_once(torch.empty(3, 56, 56, 1, device="meta")) == 64, "as on a GPU"


def test_recomputation_repeats_itself_bit_for_bit(monkeypatch):
    monkeypatch.setitem(fast.PIXELS_AT_ONCE, "cpu", 1)  # one image at a time
    (_, first), (_, second) = gradients(True), gradients(True)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("recompute", "expected"), [("yes", True), ("no", False)])
def test_a_built_network_does_as_the_config_says(recompute, expected):
    model, _ = build_network(Config(recompute=recompute, pretrained="none"), CPU)
    assert model.recompute is expected
