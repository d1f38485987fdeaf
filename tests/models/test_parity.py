"""The network against the published one's figures: modules, whole networks, gradients.

tests/golden holds a part of the figures (one sample, every n-th value); the whole is tested where it is at hand.
"""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.bra import BRA, BRABlock, choose_routes, to_regions
from models.layers import PatchExpand
from models.scsa import SCSA
from models.ssd import SSD_FORMS
from models.vssd import Mixer, VSSDBlock
from models.weights.released import PREFIX, released_name
from tests.support.fill import REFERENCE, fill_module, golden_image, golden_network
from tests.support.manifests import quick_model, shapes_of
from tests.support.places import GOLDEN
from tests.support.shallow import OneOfEach
from utils.config import Config
from utils.inference.forward import forward_fn

FORMS = ("causal", "noncausal")
BRA_NAMES = {"qkv.weight": "qkv.qkv.weight", "qkv.bias": "qkv.qkv.bias"}
BLOCK_NAMES = {f"attn.{ours}": f"attn.{theirs}" for ours, theirs in BRA_NAMES.items()}
BLOCK_NAMES |= {
    f"mlp.{a}.{leaf}": f"mlp.{b}.{leaf}" for a, b in (("fc1", 0), ("fc2", 3)) for leaf in ("weight", "bias")
}


def figures(module: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "modules" / f"{module}.npz") as file:
        return dict(file)


def assert_close(output: torch.Tensor, expected: np.ndarray, stride: int = 1, rel: float = 5e-6) -> None:
    found = output.detach().cpu().numpy().reshape(-1)[::stride]
    assert np.abs(found - expected.reshape(-1)).max() <= rel * np.abs(expected).max()


@pytest.mark.parametrize("form", FORMS)
def test_ssd(form, device, looser):
    golden = figures("ssd")
    x, dt, a, b, c, d = (torch.from_numpy(golden[f"in.{k}"]).to(device) for k in ("x", "dt", "A", "B", "C", "D"))
    assert_close(SSD_FORMS[form](x, dt, a, b, c) + d[:, None] * x, golden[f"out.{form}"], rel=2e-5 * looser)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "kind"), [("mixer", Mixer), ("vssd_block", VSSDBlock)])
def test_mixer_and_encoder_block(name, kind, form, device, looser):
    golden = figures(name)
    module = fill_module(kind(96, 3, form), name).to(device)
    x = torch.from_numpy(golden["in"]).view(1, 8, 8, 96).to(device)
    assert_close(module(x), golden[f"out.{form}"], int(golden["stride"]), 5e-6 * looser)


def test_scsa(device, looser):
    golden = figures("scsa_192")
    module = fill_module(SCSA(192, 8), "scsa_192").to(device)
    x = torch.from_numpy(golden["in"]).to(device).permute(0, 2, 3, 1)
    assert_close(module(x).permute(0, 3, 1, 2), golden["out"], int(golden["stride"]), 5e-6 * looser)


@pytest.mark.parametrize(("name", "dim", "side", "topk"), [("bra_96", 96, 7, 2), ("bra_64", 64, 4, 4)])
def test_routing_attention(name, dim, side, topk, device, looser):
    golden = figures(name)
    module = fill_module(BRA(dim, topk), name, BRA_NAMES).to(device)
    x = torch.from_numpy(golden["in"]).to(device)
    assert_close(module(x, (side, side)), golden["out"], int(golden["stride"]), 5e-6 * looser)
    q, k, _ = module.qkv(to_regions(x, side, side)).chunk(3, -1)
    assert np.array_equal(choose_routes(q, k, topk).sort(-1).values.cpu().numpy(), golden["routing"])


def test_decoder_block(device, looser):
    golden = figures("bra_block")
    module = fill_module(BRABlock(96, 2), "bra_block", BLOCK_NAMES).to(device)
    x = torch.from_numpy(golden["in"]).view(1, 14, 14, 96).to(device)
    assert_close(module(x, (7, 7)), golden["out"], int(golden["stride"]), 5e-6 * looser)


@pytest.mark.parametrize(("name", "dim_out", "scale"), [("patch_expand", 48, 2), ("final_expand", 96, 4)])
def test_expand(name, dim_out, scale, device, looser):
    golden = figures(name)
    module = fill_module(PatchExpand(96, dim_out, scale), name).to(device)
    x = torch.from_numpy(golden["in"]).view(1, 7, 7, 96).to(device)
    assert_close(module(x), golden["out"], int(golden["stride"]), 5e-6 * looser)


NETWORKS = [("synapse", (2, 1, 224, 224), 9), ("binary", (1, 3, 256, 256), 1), ("rectal", (1, 3, 224, 224), 1)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("tag", "shape", "num_classes"), NETWORKS)
def test_whole_network(tag, shape, num_classes, form, device, looser):
    with torch.inference_mode():
        logits = golden_network(num_classes, form).to(device)(golden_image(tag, shape).to(device)).cpu()
    with np.load(GOLDEN / "networks.npz") as golden:
        assert_close(logits[..., ::16, ::16], golden[f"{tag}_{form}_logits_stride16"], rel=1e-5 * looser)
        means = logits.double().mean((2, 3))
        assert np.allclose(means, golden[f"{tag}_{form}_mean_per_class"], rtol=1e-5 * looser, atol=1e-6 * looser)
    if (REFERENCE / "golden_full.npz").exists():
        with np.load(REFERENCE / "golden_full.npz") as golden:
            assert_close(logits[..., ::4, ::4], golden[f"{tag}_{form}_logits_stride4"], rel=1e-5 * looser)


@pytest.mark.parametrize("form", FORMS)
def test_blocks_compile_with_their_gradients(form, device, looser):
    """As one graph each, without generating code, with stochastic depth. The decoder is that of every form."""
    torch.manual_seed(0)
    model, blocks = (OneOfEach(form, stride=2), (2,)) if form == "causal" else (VSSDBlock(32, 1, form), ())
    model, x = model.to(device), torch.randn(2, 32, 48, 32, device=device)
    keep = torch.tensor([[1.25, 0], [0, 1.25]], device=device).expand(*blocks, 2, 2)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    (out, *gradients), (plain_out, *plain_gradients) = (
        (y := network(x, keep), *torch.autograd.grad(y.square().mean(), list(model.parameters())))
        for network in (compiled, model)
    )
    torch.testing.assert_close(out, plain_out, rtol=1e-4 * looser, atol=1e-5 * looser)
    torch.testing.assert_close(gradients, plain_gradients, rtol=1e-3 * looser, atol=1e-6 * looser)


@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler of torch.compile is not installed")
def test_compiled_blocks(device, looser):
    """Against the blocks as they are, which the other tests hold to the golden files."""
    torch.manual_seed(0)
    model = OneOfEach("causal", stride=2)
    x = torch.randn(2, 32, 48, 32).to(device)
    compiled, plain = (forward_fn([model], device, cfg=Config(compile=compiled))(x) for compiled in (True, False))
    torch.testing.assert_close(compiled, plain, rtol=1e-4 * looser, atol=1e-5 * looser)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_stays_near(form, device):
    """Single routes may tip over, so the largest difference is no measure; the mean one is."""
    image = golden_image("synapse", (2, 1, 224, 224)).to(device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        logits = golden_network(9, form).to(device)(image)[..., ::16, ::16].float().cpu().numpy()
    with np.load(GOLDEN / "networks.npz") as golden:
        expected = golden[f"synapse_{form}_logits_stride16"]
    assert np.abs(logits - expected).mean() < 0.04 * np.abs(expected).mean()


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form, device64):
    """Norm of every parameter's gradient for 0.4 cross-entropy + 0.6 Dice, in float64."""
    golden = json.loads((GOLDEN / "gradients.json").read_text(encoding="utf-8"))[form]
    model = golden_network(9, form).double().to(device64)
    labels = np.random.default_rng(3).integers(0, 9, (2, 28, 28)).repeat(8, 1).repeat(8, 2)
    labels = torch.from_numpy(labels).to(device64)
    logits = model(golden_image("grad.synapse", (2, 1, 224, 224)).double().to(device64))
    p, t = logits.softmax(1), F.one_hot(labels, 9).movedim(-1, 1)
    overlap, sizes = (p * t).sum((0, 2, 3)), (p * p + t).sum((0, 2, 3))
    dice = (1 - (2 * overlap + 1e-5) / (sizes + 1e-5)).mean()
    loss = 0.4 * F.cross_entropy(logits, labels) + 0.6 * dice
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-9)
    norms = {PREFIX + released_name(name): p.grad.norm().item() for name, p in model.named_parameters()}
    assert norms.keys() == golden["grad_l2"].keys()
    for name, norm in norms.items():
        assert norm == pytest.approx(golden["grad_l2"][name], rel=1e-6, abs=1e-13), name


def test_parameters():
    model = quick_model(9)
    assert sum(p.numel() for p in model.parameters()) == 23_438_334
    published = {name: shape for name, shape in shapes_of("synapse").items() if ".stages.3." not in name}
    assert {PREFIX + released_name(name): tuple(v.shape) for name, v in model.state_dict().items()} == published
