"""Weights that are not the released network's: each difference named, nothing loaded."""

import re

import pytest
import torch

from models.weights.released import load_released, released_num_classes
from tests.support.manifests import quick_model, state_of
from utils.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Thousands of small copies are faster without threads, above all on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model():
    return quick_model()


@pytest.fixture(scope="module")
def state():
    return state_of("synapse")


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "bra_unet.sccsa2.q.weight"), r"1 missing: sccsa2\.q\.weight$"),
        (lambda s: without(s, "bra_unet.stages.3.1.attn.D"), r"1 missing: stages\.3\.1\.attn\.D$"),
        (lambda s: without(s, "bra_unet.up4.norm.bias", "bra_unet.norm_up.bias"), r"2 missing: .*up4\.norm\.bias"),
        (lambda s: {n: v for n, v in s.items() if "sccsa" not in n}, r"51 missing: (\S+, ){3}…$"),
        (lambda s: s | {"bra_unet.stages.3.2.attn.D": torch.ones(24)}, r"1 unexpected: stages\.3\.2\.attn\.D \(24,\)$"),
        (lambda s: s | {"epoch": 3}, r"1 unexpected: epoch int$"),
        (
            lambda s: s | {"bra_unet.norm_up.bias": torch.ones(97)},
            r"1 of another shape: norm_up\.bias \(97,\) instead of \(96,\)$",
        ),
        (lambda s: s | {"bra_unet.norm_up.bias": torch.ones(1, 96)}, r"norm_up\.bias \(1, 96\) instead of \(96,\)$"),
        (lambda s: s | {"bra_unet.norm_up.bias": "x"}, r"norm_up\.bias str instead of \(96,\)$"),
        (
            lambda s: s | {"bra_unet.stages.3.0.attn.D": torch.ones(3)},
            r"stages\.3\.0\.attn\.D \(3,\) instead of \(24,\)$",
        ),
        (lambda s: s | {"bra_unet.norm_up.bias": torch.full((96,), torch.nan)}, r"1 not finite: norm_up\.bias$"),
    ],
)
def test_each_difference_is_named_and_nothing_is_loaded(model, state, change, message):
    with torch.no_grad():
        for parameter in (model.stem[0].bias, model.decoder[2].reduce.bias, model.head.classify.weight):
            parameter.fill_(-1)
    with pytest.raises(UserError) as caught:
        load_released(model, change(state), "files/a.pth")
    assert re.search(message, str(caught.value), re.MULTILINE), str(caught.value)
    assert str(caught.value).startswith("files/a.pth: differs from the published network's 467 entries")
    assert "Give a released file" in str(caught.value)
    assert (model.stem[0].bias == -1).all()
    assert (model.decoder[2].reduce.bias == -1).all()
    assert (model.head.classify.weight == -1).all()


def test_all_kinds_of_difference_in_one_message(model, state):
    state = without(state, "bra_unet.output.bias", "bra_unet.sccsa1.q.weight") | {
        "a": torch.ones(1),
        "bra_unet.norm_up.bias": torch.ones(1),
    }
    with pytest.raises(UserError, match=r"(?s)1 missing: .*1 unexpected: .*1 of another shape: "):
        load_released(model, state, "a.pth")


def test_an_entry_under_two_prefixes_is_refused(model, state):
    with pytest.raises(UserError, match=r"a\.pth: holds the same entry with and without"):
        load_released(model, state | {"norm_up.bias": torch.ones(96)}, "a.pth")


@pytest.mark.parametrize("network", ["biformer_base", "vssd_base"])
def test_another_networks_checkpoint_is_refused(network):
    with pytest.raises(UserError, match=r"a\.pth: not a released HeteroMedSeg checkpoint: none of its \d+ entries"):
        released_num_classes({"model": state_of(network)}, "a.pth")


@pytest.mark.parametrize("weight", [torch.tensor(1.0), [1, 2], torch.zeros(9, 96)])
def test_an_odd_classifier_is_refused(weight):
    with pytest.raises(UserError, match=r"is output\.weight"):
        released_num_classes({"output.weight": weight}, "a.pth")
