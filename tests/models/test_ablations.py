"""Parts left out, other widths and depths; the defaults stay the published network."""

import pytest
import torch

from models import build_model
from models.bra import BRABlock
from models.layers import ConvBlock
from models.scsa import SCSA
from models.weights.released import load_released
from tests.support.released import to_released
from utils.errors import UserError

SMALL = {"width": 32, "encoder_depths": (1, 2, 1), "decoder_depths": (2, 1, 1)}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"skips": "plain"},
        {"decoder": "conv"},
        {"skips": "plain", "decoder": "conv", "ssd": "noncausal"},
        SMALL,
        {"width": 64},
    ],
)
def test_every_form_trains(parts):
    torch.manual_seed(0)
    model = build_model(4, drop_path=0.0, **parts).train()
    logits = model(torch.randn(2, 1, 50, 64))
    assert logits.shape == (2, 4, 50, 64)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def test_what_is_left_out_is_not_there():
    published, plain, conv = build_model(4), build_model(4, skips="plain"), build_model(4, decoder="conv")
    assert [count(m, SCSA) for m in (published, plain, conv)] == [3, 0, 3]
    assert [count(m, BRABlock) for m in (published, plain, conv)] == [12, 12, 0]
    assert [count(m, ConvBlock) for m in (published, plain, conv)] == [0, 0, 12]


def test_depths_and_width_count_blocks_and_channels():
    model = build_model(4, **SMALL)
    assert [len(blocks) for blocks in model.encoder] == [1, 2, 1]
    assert [len(stage.blocks) for stage in model.decoder] == [2, 1, 1]
    assert [down[0].in_channels for down in model.downsample] == [32, 64, 128]
    assert len(model.drop_rates) == 8


def test_stochastic_depth_drops_the_convolution_branch():
    torch.manual_seed(0)
    block, x = ConvBlock(32).train(), torch.randn(2, 8, 8, 32)
    keep = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    y = block(x, (1, 1), keep)
    assert torch.equal(y[0], x[0])
    assert not torch.equal(y[1], x[1])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"skips": "none"}, "skips: found 'none', expected one of scsa, plain"),
        ({"decoder": "cnn"}, "expected one of bra, conv"),
        ({"width": 40}, "expected a multiple of 32"),
        ({"encoder_depths": (2, 2)}, "three numbers"),
        ({"decoder_depths": (2, 0, 2)}, "three numbers"),
    ],
)
def test_refusals(parts, words):
    with pytest.raises(UserError, match=words):
        build_model(4, **parts)


@pytest.mark.parametrize("parts", [{"skips": "plain"}, {"decoder": "conv"}, {"width": 64}])
def test_released_weights_refuse_another_architecture_by_name(parts):
    with pytest.raises(UserError, match=r"(?s)differs from the published network.*(sccsa|layers_up|downsample_layers)"):
        load_released(build_model(9, **parts), to_released(build_model(9)), "synapse.pth")
