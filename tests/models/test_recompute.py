"""Computing activations again changes neither losses nor gradients, and is chosen where memory is short."""

import dataclasses

import pytest
import torch

from models import build_model, fast
from models.bra import BRABlock
from models.build import build_network, step_bytes
from models.fast import images_at_once
from models.head import Head
from models.vssd import VSSDBlock
from utils.config import Config

CPU = torch.device("cpu")


def gradients(recompute, watch=None):
    torch.manual_seed(0)
    model = build_model(3, drop_path=0.3).train()
    model.recompute = recompute
    for module in model.modules():
        if watch and isinstance(module, (VSSDBlock, BRABlock, Head)):
            module.register_forward_pre_hook(watch)
    torch.manual_seed(1)
    loss = model(torch.randn(5, 1, 32, 64)).square().mean()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("at_once", [1, 300, 10**6], ids=["one image", "two images of the largest map", "all"])
def test_recomputing_changes_no_number(monkeypatch, at_once):
    monkeypatch.setitem(fast.PIXELS_AT_ONCE, "cpu", at_once)
    (kept, kept_gradients), (again, again_gradients) = gradients(False), gradients(True)
    assert again == pytest.approx(kept, rel=1e-6)
    for name, gradient in kept_gradients.items():
        torch.testing.assert_close(again_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


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


@pytest.mark.parametrize(
    ("recompute", "gigabytes", "expected"),
    [("auto", 100, False), ("auto", 1, True), ("yes", 100, True), ("no", 1, False)],
)
def test_it_is_chosen_where_memory_is_short(monkeypatch, recompute, gigabytes, expected):
    monkeypatch.setattr("models.build.free_memory", lambda device: gigabytes * 1e9)
    cfg = Config(recompute=recompute, pretrained="none", precision="fp32", batch_size=24)
    model, notes = build_network(cfg, CPU)
    assert model.recompute is expected
    assert any("computed again" in note for note in notes) is expected


def test_the_estimate_follows_batch_size_side_and_precision():
    cfg = Config(batch_size=8, img_size=(224, 224), precision="fp32")
    need = step_bytes(cfg, CPU)
    assert 4e9 < need < 6e9
    assert step_bytes(dataclasses.replace(cfg, batch_size=16), CPU) > 1.5 * need
    assert step_bytes(dataclasses.replace(cfg, img_size=(448, 224)), CPU) > 1.5 * need
    assert step_bytes(dataclasses.replace(cfg, precision="bf16"), CPU) < need
    assert step_bytes(dataclasses.replace(cfg, recompute="auto"), CPU) == need, "auto asks what keeping all would take"
    less = dataclasses.replace(cfg, batch_size=24, recompute="yes")
    assert 3.2e9 < step_bytes(less, CPU) < 4e9, "3.6 GB were measured"
    assert step_bytes(dataclasses.replace(less, precision="bf16"), CPU) < step_bytes(less, CPU)
