"""Released weights: every entry in its place."""

from dataclasses import replace

import pytest
import torch

from models.build import load_network
from models.weights.released import (
    dead_stage,
    is_released,
    load_released,
    released_name,
    released_num_classes,
)
from recipes import RECIPES
from tests.support.manifests import quick_model, shapes_of, state_of
from tests.support.released import to_released
from utils import checkpoint

# Written by hand from the description of the released files, at least one for every part of the network.
KNOWN = {
    "downsample_layers.0.0.weight": "stem.0.weight",
    "downsample_layers.0.4.running_var": "stem.4.running_var",
    "downsample_layers.1.0.bias": "downsample.0.0.bias",
    "downsample_layers.2.1.num_batches_tracked": "downsample.1.1.num_batches_tracked",
    "downsample_layers.3.1.weight": "downsample.2.1.weight",
    "stages.0.0.cpe1.weight": "encoder.0.0.cpe1.weight",
    "stages.0.1.attn.A_log": "encoder.0.1.attn.A_log",
    "stages.1.0.mlp.fc1.weight": "encoder.1.0.mlp.fc1.weight",
    "stages.1.1.attn.conv2d.bias": "encoder.1.1.attn.conv2d.bias",
    "stages.2.0.norm1.bias": "encoder.2.0.norm1.bias",
    "stages.2.1.mlp.fc2.bias": "encoder.2.1.mlp.fc2.bias",
    "layers_up.0.expand.weight": "decoder.0.expand.expand.weight",
    "layers_up.0.norm.bias": "decoder.0.expand.norm.bias",
    "layers_up.1.upsample.expand.weight": "decoder.1.expand.expand.weight",
    "layers_up.2.upsample.norm.weight": "decoder.2.expand.norm.weight",
    "sccsa1.local_dwc.weight": "decoder.2.attention.local_dwc.weight",
    "sccsa2.norm_w.bias": "decoder.1.attention.norm_w.bias",
    "sccsa3.q.weight": "decoder.0.attention.q.weight",
    "concat_back_dim.1.weight": "decoder.0.reduce.weight",
    "concat_back_dim.2.bias": "decoder.1.reduce.bias",
    "concat_back_dim.3.weight": "decoder.2.reduce.weight",
    "layers_up.1.blocks.7.attn.qkv.qkv.weight": "decoder.0.blocks.7.attn.qkv.weight",
    "layers_up.1.blocks.0.mlp.0.weight": "decoder.0.blocks.0.mlp.fc1.weight",
    "layers_up.2.blocks.1.mlp.3.bias": "decoder.1.blocks.1.mlp.fc2.bias",
    "layers_up.2.blocks.0.attn.lepe.weight": "decoder.1.blocks.0.attn.lepe.weight",
    "layers_up.3.blocks.0.pos_embed.bias": "decoder.2.blocks.0.pos_embed.bias",
    "layers_up.3.blocks.1.norm2.weight": "decoder.2.blocks.1.norm2.weight",
    "norm_up.bias": "head.norm.bias",
    "up4.expand.weight": "head.expand.expand.weight",
    "up4.norm.weight": "head.expand.norm.weight",
    "output.weight": "head.classify.weight",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Thousands of small copies are faster without threads, above all on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model():
    return quick_model(9)


@pytest.fixture(scope="module")
def state():
    return state_of("synapse")


@pytest.mark.parametrize(("released", "own"), KNOWN.items())
def test_known_names(released, own):
    assert released_name(own) == released


@pytest.mark.parametrize("name", ["encoder.3.0.cpe1.weight", "head.weight", "", "decoder.3.attention.q.weight"])
def test_names_that_are_not_ours(name):
    with pytest.raises(KeyError):
        released_name(name)


@pytest.mark.parametrize("network", ["synapse", "binary"])
def test_names_and_shapes_account_for_all_467_entries(network):
    released = {name.removeprefix("bra_unet."): shape for name, shape in shapes_of(network).items()}
    own = {name: tuple(v.shape) for name, v in quick_model(9 if network == "synapse" else 1).state_dict().items()}
    assert {name: shape for name, shape in released.items() if name.startswith("stages.3.")} == dead_stage()
    assert {released_name(name): shape for name, shape in own.items()} | dead_stage() == released
    assert (len(released), len(dead_stage()), len(own)) == (467, 42, 425)


def test_every_tensor_lands_in_its_place_and_the_summary_says_so(model, state):
    summary = load_released(model, state, "synapse_84.00.pth")
    own = model.state_dict()
    for released, name in KNOWN.items():
        assert torch.equal(own[name], state["bra_unet." + released]), name
    for name, value in own.items():  # and the rest, by the names that the table above has checked
        assert torch.equal(value, state[f"bra_unet.{released_name(name)}"]), name
    assert (summary.tensors, summary.values, summary.total) == (425, 23_441_315, 23_441_315)
    assert list(summary.left_out.values()) == [(42, 14_471_824)]
    assert sum(p.numel() for p in model.parameters()) == 23_438_334
    text = str(summary)
    assert text.startswith("synapse_84.00.pth: loaded 425 tensors, 23,441,315 values, 100.0% of the network\n")
    assert "left out 42 tensors, 14,471,824 values: the fourth encoder stage" in text
    assert "SSD form set to causal" in text


@pytest.mark.parametrize("form", ["noncausal", "bidirectional"])
def test_the_ssd_form_is_causal_whatever_the_recipe_says(tmp_path, form):
    causal, image = quick_model().eval(), torch.rand(1, 1, 32, 64)
    torch.save(to_released(causal), tmp_path / "a.pth")
    found = load_network(tmp_path / "a.pth", {"other": replace(RECIPES["synapse"], ssd=form)}, "other")
    assert found.cfg.ssd == found.model.ssd == "causal"
    with torch.no_grad():
        assert torch.equal(found.model(image), causal(image))


@pytest.mark.parametrize("prefix", ["bra_unet.", "", "module.bra_unet.", "module."])
@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
def test_prefixes_and_nesting(model, state, prefix, nest):
    renamed = {prefix + name.removeprefix("bra_unet."): value for name, value in state.items()}
    checkpoint_ = nest(renamed)
    assert is_released(checkpoint_)
    assert released_num_classes(checkpoint_, "a.pth") == 9
    with torch.no_grad():
        model.head.norm.bias.zero_()
    assert load_released(model, checkpoint_, "a.pth").tensors == 425
    assert torch.equal(model.head.norm.bias, state["bra_unet.norm_up.bias"])


def test_what_is_not_released_is_known(model):
    assert not is_released(model.state_dict())
    assert not is_released({"model": model.state_dict(), "config": {}})
    assert not is_released(state_of("biformer_base"))
    assert not is_released(state_of("vssd_base"))
    assert not is_released({})


def test_a_full_file_in_the_old_format(tmp_path):
    torch.manual_seed(0)
    state = {name: value + torch.rand(value.shape).to(value.dtype) for name, value in state_of("binary").items()}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    read = checkpoint.read(tmp_path / "a.pth")
    model = quick_model(released_num_classes(read, "a.pth"))
    load_released(model, read, "a.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(value, state["bra_unet." + released_name(name)]), name
