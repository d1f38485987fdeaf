"""Networks of other packages: built by name, of any size of image, rebuilt from a checkpoint; absent packages."""

import importlib.util
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import nn

from models import baselines
from models.build import build_network, count_flops, load_network, make_network, name_weights
from models.memory import settle_memory
from recipes import RECIPES
from tests.support.toy import saved_state
from utils import checkpoint
from utils.config import Config
from utils.errors import UserError

CPU = torch.device("cpu")
CONFIG = Config(num_classes=3, img_size=(64, 64))
EVERY_KIND = ("unet_resnet34", "smp:FPN:resnet18", "nnunet_plain", "nnunet_residual", "swin_unetr")
PACKAGES = {"smp": "segmentation_models_pytorch", "nnunet": "dynamic_network_architectures", "swin": "monai"}
# these packages use what newer versions of PyTorch and NumPy call old
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_seed")]


@pytest.fixture
def _seed():
    torch.manual_seed(0)


def named(network):
    """CONFIG with the network; the test is skipped where its package is not installed."""
    kind = "smp" if network in baselines.SMP else network.split("_")[0].split(":")[0]
    if importlib.util.find_spec(PACKAGES[kind]) is None:
        pytest.skip(f"{PACKAGES[kind]} is not installed")
    return replace(CONFIG, network=network)


@pytest.mark.parametrize("network", EVERY_KIND)
@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (2, 3, 50, 71)])
def test_logits_have_the_size_of_the_image(network, shape):
    model = make_network(named(network)).eval()
    with torch.inference_mode():
        assert model(torch.randn(shape)).shape == (shape[0], 3, *shape[2:])


@pytest.mark.parametrize("network", ["unet_resnet34", "nnunet_plain"])
def test_one_channel_counts_as_three_equal_ones(network):
    model, x = make_network(named(network)).eval(), torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), model(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("network", ["smp:Unet:resnet18", "nnunet_plain"])
def test_every_parameter_gets_a_gradient(network):
    model = make_network(named(network)).train()
    model(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("network", EVERY_KIND)
def test_a_checkpoint_rebuilds_its_network(network, tmp_path):
    cfg = named(network)
    model = make_network(cfg).eval()
    checkpoint.save(tmp_path / "best_model.pth", saved_state(cfg, model))
    loaded = load_network(tmp_path / "best_model.pth", RECIPES)
    x = torch.randn(1, 1, 40, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.model(x), model(x))


def test_the_log_has_parameters_and_operations():
    model, notes = build_network(named("unet_resnet34"), CPU)
    assert notes == ("network unet_resnet34: 24,436,659 parameters", "initialised from scratch")
    small, large = (count_flops(model, replace(CONFIG, img_size=(side, side)), CPU) for side in (64, 128))
    assert large == pytest.approx(4 * small)


def test_a_size_that_the_other_network_does_not_take():
    def fussy(image):
        raise AssertionError("Input height (64) doesn't match model (224)")

    model = nn.Identity()
    model.forward = fussy
    with pytest.raises(UserError, match=r"--network smp:DPT:x: does not take images of 64x64 .*try another --img_size"):
        count_flops(model, replace(CONFIG, network="smp:DPT:x", img_size=(64, 64)), CPU)
    for error in (torch.OutOfMemoryError("CUDA out of memory"), NotImplementedError("aten::... on MPS")):
        model.forward = mock.Mock(side_effect=error)
        with pytest.raises(type(error)):
            count_flops(model, replace(CONFIG, network="smp:DPT:x"), CPU)


def test_every_short_name_is_one_of_its_package():
    smp = pytest.importorskip("segmentation_models_pytorch")
    for name in baselines.SMP.values():
        _, architecture, encoder = name.split(":")
        assert hasattr(smp, architecture)
        assert encoder in smp.encoders.get_encoder_names()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"network": "unet"}, "unet_resnet34, .*smp:ARCHITECTURE:ENCODER"),
        ({"network": "smp:Unet"}, "expected smp:ARCHITECTURE:ENCODER"),
        ({"network": "smp:Nothing:resnet18"}, "Nothing"),
        ({"network": "smp:Unet:nothing"}, "nothing"),
        ({"network": "nnunet_plain", "pretrained": "imagenet"}, "--pretrained imagenet: there are none"),
    ],
)
def test_refusals(fields, words):
    if fields["network"].startswith("smp:") and fields["network"].count(":") == 2:
        named(fields["network"])
    with pytest.raises(UserError, match=words):
        build_network(replace(CONFIG, **fields), CPU)


@pytest.mark.parametrize("network", ["unet_resnet34", "nnunet_residual", "swin_unetr"])
def test_a_missing_package_says_what_to_install(network, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UserError, match=f"--network {network}: needs the package .*requirements-baselines.txt"):
        make_network(replace(CONFIG, network=network))


def test_weights_are_recorded_as_they_were_asked_for():
    assert name_weights(replace(CONFIG, network="unet_resnet34")).pretrained == "none"
    assert name_weights(replace(CONFIG, network="unet_resnet34", pretrained="imagenet")).pretrained == "imagenet"


def test_recomputing_is_for_our_network_only(tmp_path):
    cfg = replace(CONFIG, network="nnunet_plain")
    settled, notes = settle_memory(cfg, CPU, "fp32", None, 0)
    assert (settled.recompute, notes) == ("no", ())
