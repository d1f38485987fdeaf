"""Computing activations again changes neither losses nor gradients, and is chosen where memory is short."""

import dataclasses

import pytest
import torch

from models import build_model
from models.build import build_network, step_bytes
from utils.config import Config

CPU = torch.device("cpu")


def gradients(recompute):
    torch.manual_seed(0)
    model = build_model(3, drop_path=0.3).train()
    model.recompute = recompute
    torch.manual_seed(1)
    loss = model(torch.randn(2, 1, 32, 64)).square().mean()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


def test_recomputing_changes_no_number():
    (kept, kept_gradients), (again, again_gradients) = gradients(False), gradients(True)
    assert kept == again
    for name, gradient in kept_gradients.items():
        torch.testing.assert_close(again_gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


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
