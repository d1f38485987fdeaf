"""One function out of networks: averaging over networks, flips and sizes, precision, torch.compile."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import build_model
from tests.support.shallow import SMALL
from tests.support.shapes import Shapes
from utils.config import Config
from utils.errors import UserError
from utils.inference.forward import Compiled, forward_fn, labels_from_logits, scaled_size

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def _device(on_device, monkeypatch):
    monkeypatch.setattr(f"{__name__}.DEVICE", on_device)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_are_averaged_over_networks_and_flips(classes, tta):
    models = [Shapes(classes, seed=s) for s in (1, 2)]
    x = torch.randn(2, 1, 12, 16, generator=torch.Generator(DEVICE).manual_seed(0))
    logits = forward_fn(models, DEVICE, cfg=Config(tta=tta))(x)
    activation = torch.sigmoid if classes == 1 else partial(torch.softmax, dim=1)
    flips = [(), (2,), (3,), (2, 3)] if tta else [()]
    each = [activation(m(x.flip(f))).flip(f) for m in models for f in flips]
    expected = torch.stack(each).mean(0)
    torch.testing.assert_close(activation(logits), expected.detach(), atol=2e-6, rtol=1e-5)


def test_one_network_gives_its_logits_in_evaluation_mode_without_gradients():
    model = Shapes()
    assert model.training
    x = torch.randn(1, 1, 8, 8)
    logits = forward_fn([model], DEVICE)(x)
    assert not model.training
    assert logits.is_inference()
    torch.testing.assert_close(logits, model(x).detach(), atol=0, rtol=0)


def test_certain_networks_do_not_become_infinite():
    class Certain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x * 0 + 500, x * 0 - 500], 1)

    multi = forward_fn([Certain(), Certain()], DEVICE)(torch.zeros(1, 1, 2, 2))
    assert torch.isfinite(multi).all()
    assert (multi.argmax(1) == 0).all()


def test_precision_is_applied_and_logits_are_float32():
    seen = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.is_autocast_enabled(x.device.type))
            return (x @ x.mT).to(torch.bfloat16) if seen[-1] else x @ x.mT

    for precision, cast in (("fp32", False), ("bf16", True)):
        assert forward_fn([Spy()], DEVICE, precision)(torch.randn(1, 1, 4, 4)).dtype == torch.float32
        assert seen[-1] is cast


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((224, 224), 1.25, (288, 288)),
        ((224, 160), 0.75, (160, 128)),
        ((100, 90), 1, (100, 90)),
        ((32, 64), 0.2, (32, 32)),
    ],
)
def test_scaled_sizes(size, scale, expected):
    assert scaled_size(size, scale) == expected


@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_are_averaged_over_sizes(tta):
    model = Shapes(3)
    x = torch.randn(2, 1, 64, 96, generator=torch.Generator(DEVICE).manual_seed(0))
    logits = forward_fn([model], DEVICE, cfg=Config(tta=tta, tta_scales=(0.5, 2)))(x)
    views = []
    for size in ((64, 96), (32, 64), (128, 192)):  # 48 / 32 is rounded to the even number, 2
        small = F.interpolate(x, size, mode="bilinear", antialias=True) if size != (64, 96) else x
        for flip in [(), (2,), (3,), (2, 3)] if tta else [()]:
            out = model(small.flip(flip)).flip(flip)
            views.append(F.interpolate(out, (64, 96), mode="bilinear", antialias=True).softmax(1))
    torch.testing.assert_close(logits.softmax(1), torch.stack(views).mean(0).detach(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("side", "scales"), [(64, (0.75, 1.25)), (96, (0.5, 0.6)), (96, (1.0,))])
def test_scales_that_give_the_same_size_after_rounding_are_refused(side, scales):
    cfg = Config(img_size=(side, side), tta_scales=scales)
    with pytest.raises(
        UserError, match=rf"--tta_scales {scales[0]:g}.* sizes {side}x{side}, .*expected each size once"
    ):
        forward_fn([nn.Identity()], DEVICE, cfg=cfg)
    forward_fn([nn.Identity()], DEVICE, cfg=Config(img_size=(64, 64), tta_scales=(0.5, 1.5)))


def test_a_smaller_batch_is_filled_up_instead_of_compiled_again(monkeypatch):
    seen, given = [], []

    def pretend(model, **options):
        given.append(options)
        return lambda x: seen.append((len(x), torch._inductor.config.freezing)) or model(x)

    monkeypatch.setattr(torch, "compile", pretend)
    model = Shapes().eval()
    network = Compiled(model, DEVICE)
    for count in (3, 2, 1, 5, 4):
        x = torch.randn(count, 1, 8, 8)
        torch.testing.assert_close(network(x), model(x))
    network(torch.randn(1, 1, 8, 9))  # another size of image
    assert seen == [(count, DEVICE.type == "cpu") for count in (3, 3, 3, 5, 5, 1)]
    Compiled(model, DEVICE, graphs=True)
    assert given == [{"dynamic": False, "mode": None}, {"dynamic": False, "mode": "reduce-overhead"}]
    assert not torch._inductor.config.freezing


def test_compiled_networks_give_the_same_logits_whatever_the_batch(monkeypatch):
    """Traced, but without generating code, which takes long; tests/models/test_parity.py generates it."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    models = [Shapes(3, seed=s) for s in (1, 2)]
    x = torch.randn(3, 1, 16, 16)
    expected = forward_fn(models, DEVICE, cfg=Config(tta=True))
    compiled = forward_fn(models, DEVICE, cfg=Config(tta=True, compile=True))
    torch.testing.assert_close(compiled(x), expected(x), atol=1e-5, rtol=1e-5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (1, 2):
            torch.testing.assert_close(compiled(x[:count]), expected(x[:count]), atol=1e-5, rtol=1e-5)


def test_the_network_itself_takes_scaled_images():
    model = build_model(2, **SMALL).eval()
    out = forward_fn([model], DEVICE, cfg=Config(tta_scales=(0.75,)))(torch.rand(1, 3, 64, 96))
    assert out.shape == (1, 2, 64, 96)
    torch.testing.assert_close(out.exp().sum(1), torch.ones(1, 64, 96))


def test_labels_are_the_arg_max_or_a_probability_of_at_least_one_half():
    assert labels_from_logits(torch.tensor([[[[-1.0, 0.0, 2.0]]]])).tolist() == [[[0, 1, 1]]]
    several = labels_from_logits(torch.tensor([0.0, 3.0, 1.0]).reshape(1, 3, 1, 1))
    assert (several.tolist(), several.dtype) == ([[[1]]], torch.uint8)
