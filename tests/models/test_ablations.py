"""Parts left out, formulas changed, other widths and depths; the defaults stay the published network."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from models import build_model
from models.bra import HEAD_DIM, BRABlock, to_regions
from models.build import build_network, load_network
from models.layers import ConvBlock
from models.scsa import SCSA
from models.ssd import SSD_FORMS
from models.vssd import Mixer
from models.weights.released import load_released
from tests.support.fill import fill_module
from tests.support.released import to_released
from tests.support.shallow import shallow_model
from utils import checkpoint
from utils.config import FIELDS, Config, to_dict
from utils.errors import UserError

CHANGED = FIELDS["variant"].metadata["choices"][1:]
SMALL = {"width": 32, "encoder_depths": (1, 2, 1), "decoder_depths": (2, 1, 1)}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"skips": "plain"},
        {"decoder": "conv"},
        {"skips": "plain", "decoder": "conv", "ssd": "noncausal"},
        {"width": 64},
        *({"variant": name} for name in CHANGED),
        {"variant": "gated_z", "decoder": "conv"},
    ],
)
def test_every_form_trains(parts):
    torch.manual_seed(0)
    model = build_model(4, drop_path=0.0, **(SMALL | parts)).train()
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
        ({"variant": "other"}, "variant: found 'other', expected one of published, residual_decoder"),
        ({"variant": "single_norm", "decoder": "conv"}, "variant single_norm: changes the blocks of decoder bra"),
    ],
)
def test_refusals(parts, words):
    with pytest.raises(UserError, match=words):
        build_model(4, **parts)


@pytest.mark.parametrize("parts", [{"skips": "plain"}, {"decoder": "conv"}, {"width": 64}])
def test_released_weights_refuse_another_architecture_by_name(parts):
    with pytest.raises(UserError, match=r"(?s)differs from the published network.*(sccsa|layers_up|downsample_layers)"):
        load_released(build_model(9, **parts), to_released(build_model(9)), "synapse.pth")


# --- variants ---------------------------------------------------------------------------------------


def changed(model, variant):
    """`model` with the same weights and the formula of `variant`."""
    other = shallow_model(4, variant=variant).eval()
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("variant", CHANGED)
def test_a_variant_computes_something_else_with_the_same_weights(variant):
    published = fill_module(shallow_model(4), "published").eval()
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, found = published(image), changed(published, variant)(image)
    assert found.shape == expected.shape
    assert float((found - expected).detach().abs().max()) > 0.01
    assert torch.equal(changed(published, "published")(image), expected)


def filled_block(variant):
    block = BRABlock(64, 2, variant)
    return fill_module(block, "block").double()


def rest_of(block, x):
    return x + block.mlp(block.norm2(x))


def test_blocks_of_the_variants_step_by_step():
    x = torch.randn(2, 8, 8, 64, dtype=torch.float64)
    residual, single, scaled = (filled_block(name) for name in ("residual_decoder", "single_norm", "head_scale"))
    y = x + residual.pos_embed(x)
    y = y + residual.attn(residual.norm1(y), (2, 2))
    torch.testing.assert_close(residual(x, (2, 2)), rest_of(residual, y))
    y = single.norm1(x)
    y = y + single.pos_embed(y)
    y = y + single.attn(y, (2, 2))
    torch.testing.assert_close(single(x, (2, 2)), rest_of(single, y))
    assert [block.attn.scale for block in (single, scaled)] == [64**-0.5, HEAD_DIM**-0.5]


def test_the_scale_is_that_of_the_softmax():
    """One region: plain attention of heads of 32 channels over all its pixels."""
    attention = filled_block("head_scale").attn
    x = torch.randn(1, 4, 4, 64, dtype=torch.float64)
    q, k, v = attention.qkv(to_regions(x, 1, 1))[0, 0].view(16, 3, 2, HEAD_DIM).permute(1, 2, 0, 3)
    y = (q @ k.transpose(1, 2) / HEAD_DIM**0.5).softmax(-1) @ v  # (heads, pixels, 32)
    values = attention.qkv(x).chunk(3, dim=-1)[2]
    expected = attention.wo(y.transpose(0, 1).reshape(1, 4, 4, 64) + attention.lepe(values))
    torch.testing.assert_close(attention(x, (1, 1)), expected)


def test_a_gate_is_silu_of_z():
    """With z of one value in all channels, the mixers differ by the factor sigmoid(z)."""
    plain, gated = Mixer(32, 1, "noncausal"), Mixer(32, 1, "noncausal", gated=True)
    fill_module(plain, "mixer")
    with torch.no_grad():
        plain.in_proj.weight[: plain.dim_inner] = 0.3 / 32
    gated.load_state_dict(plain.state_dict())
    u = torch.randn(1, 4, 4, 32)
    z = 0.3 * u.mean(-1, keepdim=True)
    torch.testing.assert_close(gated(u), plain(u) * F.silu(z) / z, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_of_a_variant_is_loaded_as_itself_and_starts_no_other(tmp_path):
    cfg = Config(variant="single_norm", width=32, encoder_depths=(1, 1, 1), decoder_depths=(1, 1, 1), pretrained="none")
    model, _ = build_network(cfg, torch.device("cpu"))
    state = {"format": "heteromedseg", "config": to_dict(cfg), "selection": "last", "model": model.state_dict()}
    checkpoint.save(tmp_path / "net.pth", state | {"class_names": [f"class {k}" for k in range(1, 9)]})
    image = torch.randn(1, 1, 64, 64)
    loaded = load_network(tmp_path / "net.pth", {}).model
    assert torch.equal(loaded(image), model.eval()(image))
    for variant in FIELDS["variant"].metadata["choices"]:
        start = dataclasses.replace(cfg, variant=variant, init=str(tmp_path / "net.pth"))
        if variant == cfg.variant:
            build_network(start, torch.device("cpu"))
            continue
        with pytest.raises(UserError, match=f"net.pth: of --variant single_norm; expected one of --variant {variant}"):
            build_network(start, torch.device("cpu"))


def test_released_weights_start_no_variant(tmp_path):
    torch.save(to_released(build_model(9)), tmp_path / "synapse.pth")
    with pytest.raises(UserError, match="of --variant published; expected one of --variant gated_z"):
        build_network(Config(variant="gated_z", init=str(tmp_path / "synapse.pth")), torch.device("cpu"))


def test_the_flag_offers_what_there_is():
    assert FIELDS["ssd"].metadata["choices"] == tuple(SSD_FORMS)
