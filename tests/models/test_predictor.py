"""Predictor: the same mask as predict.py, arrays of every kind and orientation, refusals, the hub's folder."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import predict
from models import Predictor, build_model
from models.build import Loaded
from recipes import RECIPES
from tests.support.manifests import quick_model
from tests.support.released import to_released
from tests.support.shallow import SMALL
from tests.support.toy_checkpoints import TOY, save_toy
from utils.errors import UserError
from utils.inference.orientation import turn
from utils.inherited import passed_on
from utils.log import logging_to

PICTURES = replace(RECIPES["cvc_clinicdb"], network=TOY, img_size=(32, 32))
ORGANS = replace(RECIPES["phantom"], network=TOY, img_size=(32, 32))
NAMES = [f"organ {k}" for k in range(1, 9)]
RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 1000, (4, 20, 24), dtype=np.int16)


@pytest.fixture
def polyps(tmp_path, monkeypatch):
    return save_toy(tmp_path / "polyps.pth", monkeypatch, PICTURES, ["polyp"])


@pytest.fixture
def organs(tmp_path, monkeypatch):
    return save_toy(tmp_path / "organs.pth", monkeypatch, ORGANS, NAMES)


def load(*paths, **settings):
    return Predictor.load(*paths, device="cpu", precision="fp32", **settings)


def test_pictures_give_the_mask_of_predict_py(polyps, tmp_path):
    array = RNG.integers(0, 255, (40, 50, 3), np.uint8)
    np.save(tmp_path / "a.npy", array)
    flags = ["--checkpoint", polyps, "--input", tmp_path / "a.npy", "--output_dir", tmp_path / "out", "--device", "cpu"]
    predict.main([*map(str, flags), "--precision", "fp32"])
    import cv2

    mask = load(polyps).predict(array)
    assert (mask.shape, mask.dtype) == ((40, 50), bool)
    assert 0 < mask.mean() < 1
    assert np.array_equal(mask * 255, cv2.imread(str(tmp_path / "out" / "a_mask.png"), cv2.IMREAD_UNCHANGED))
    assert np.array_equal(mask, load(polyps, polyps).predict(np.dstack([array, array[..., :1]])))  # alpha is not seen


def test_volumes_in_any_orientation(organs):
    predictor = load(organs)
    assert predictor.class_names == tuple(NAMES)
    mask = predictor.predict(HU, spacing=(5, 0.7, 0.7))
    assert (mask.shape, mask.dtype) == (HU.shape, np.uint8)
    assert len(np.unique(mask)) > 2
    for stored in ("SPL", "LIA", "PRS"):
        found = predictor.predict(turn(HU, "SPL", stored), orientation=stored)
        assert np.array_equal(turn(found, stored, "SPL"), mask)
    narrow = HU[..., :3]  # no colour picture, as its orientation tells
    assert predictor.predict(narrow, (1, 1, 1), "SPL").shape == narrow.shape


def test_colours_that_come_first_are_no_volume_of_three_slices(polyps):
    first = RNG.integers(0, 255, (3, 40, 50), np.uint8)
    with pytest.raises(UserError, match=r"array \(3, 40, 50\): has its colours first; expected \(H, W, 3\)"):
        load(polyps).predict(first)


def test_an_array_that_is_cut_across_its_thick_slices_gets_a_warning(organs, tmp_path):
    with logging_to(tmp_path / "log.txt"):
        load(organs).predict(HU, (8, 1.5, 1.5), "SPL")
        assert not (tmp_path / "log.txt").read_text("utf-8").count("thick")
        load(organs).predict(HU, np.array((8, 1.5, 1.4)), "LPS")
    expected = "warning: array is cut across thick slices: turned to SPL as in training, its slices lie 1.4 mm apart"
    assert expected in (tmp_path / "log.txt").read_text("utf-8")


def test_settings_are_those_of_predict_py(organs):
    whole, largest = load(organs).predict(HU), load(organs, keep_largest=True).predict(HU)
    assert (whole > 0).sum() > (largest > 0).sum() > 0
    mr = HU - HU.min()
    with pytest.raises(UserError, match="which shows air below"):
        load(organs).predict(mr)
    assert load(organs, intensity="percentile").predict(mr).shape == mr.shape


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"intensity": "CT"}, "intensity='CT': expected one of auto, ct"),
        ({"tta": "no"}, "tta='no': expected True or False"),
        ({"fit": "pad"}, "fit: no setting of a prediction"),
        ({"keep_largst": True}, "keep_largst: no setting of a prediction"),
    ],
)
def test_settings_that_there_are_not(organs, setting, message):
    with pytest.raises(UserError, match=message):
        load(organs, **setting)


@pytest.mark.parametrize(
    ("array", "given", "message"),
    [
        (np.zeros(3), {}, r"array: found float64 of shape \(3,\), expected real numbers"),
        (np.zeros((2, 3, 4, 5)), {}, r"shape \(2, 3, 4, 5\)"),
        (np.zeros((2, 0)), {}, r"shape \(2, 0\)"),
        (np.zeros((4, 5), complex), {}, "complex128"),
        (np.full((4, 5), np.nan), {}, "array: found 20 of 20 values that are not finite"),
        (np.zeros((4, 5)), {"spacing": (1, 2, 3)}, "expected 2 positive numbers in mm"),
        (np.zeros((4, 5)), {"spacing": (1, 0)}, "expected 2 positive numbers in mm"),
        (np.zeros((4, 5)), {"orientation": "SPL"}, "orientation 'SPL': expected"),
        (np.zeros((4, 5, 6)), {"orientation": "SPI"}, "orientation 'SPI': expected three letters"),
    ],
)
def test_refusals(organs, array, given, message):
    with pytest.raises(UserError, match=message):
        load(organs).predict(array, **given)


def test_checkpoints_that_do_not_say_how_their_images_were_made(organs, tmp_path):
    with pytest.raises(UserError, match="no checkpoint named"):
        Predictor.load()
    torch.save(to_released(quick_model(9)), tmp_path / "synapse_84.00.pth")
    with pytest.raises(UserError, match="released weights hold no settings"):
        load(tmp_path / "synapse_84.00.pth")
    released = load(tmp_path / "synapse_84.00.pth", recipes=RECIPES, recipe="synapse")
    assert released.class_names == tuple(f"class {k}" for k in range(1, 9))


# --- the hub ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    places = dict.fromkeys(("dataset", "root_path", "init"), "/somewhere/private")
    trained = replace(RECIPES["rectal"], img_size=(32, 64), precision="bf16", **places, **SMALL)
    more = {"trained": trained, "cases": {"train": ["0123456789abcdef"]}}
    origin = {"file": "net.pth", "selection": "last", "epoch": 3}
    return Predictor(
        [Loaded(build_model(1, **SMALL).eval(), passed_on(trained), ("tumour <b>",), origin, **more)], "cpu"
    )


def test_what_is_saved_for_the_hub_is_loaded_again(network, tmp_path):
    pytest.importorskip("huggingface_hub")
    folder = tmp_path / "saved"
    network.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = Predictor.from_pretrained(folder, device="cpu")
    assert again.cfg.preprocess == network.cfg.preprocess
    assert (again.cfg.img_size, again.class_names) == ((32, 64), ("tumour <b>",))
    assert (again.cfg.precision, again.loaded[0].trained.precision) == ("auto", "bf16")
    assert again.loaded[0].cases == {"train": ["0123456789abcdef"]}
    assert again.loaded[0].origin["epoch"] == 3
    array = RNG.integers(0, 255, (40, 50, 3), np.uint8)
    assert np.array_equal(again.predict(array), network.predict(array))
    for name, weight in network.models[0].state_dict().items():
        assert torch.equal(again.models[0].state_dict()[name], weight)
    card = (folder / "README.md").read_text(encoding="utf-8")
    for words in ("license: apache-2.0", "image-segmentation", r"marks tumour \<b> in RGB images", "Not a medical"):
        assert words in card
    for path in folder.iterdir():
        assert b"/somewhere" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ("squash", "resized to 32x64 (height x width)."),
        (
            "pad",
            "resized to fit into 32x64 (height x width), their aspect kept, the rest filled up with 0.",
        ),
        ("slide", "at their own resolution, through overlapping windows of 32x64 (height x width)."),
    ],
)
def test_the_card_for_the_hub_says_how_images_are_fitted(network, tmp_path, monkeypatch, fit, words):
    pytest.importorskip("huggingface_hub")
    cfg = replace(network.cfg, preprocess=replace(network.cfg.preprocess, fit=fit))
    monkeypatch.setattr(network, "cfg", cfg)
    network.save_pretrained(tmp_path)
    assert f"in RGB images, {words}" in (tmp_path / "README.md").read_text(encoding="utf-8")


class FakeHub:
    """Keeps in a folder what is uploaded, in the place of huggingface_hub.HfApi."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, token=None):
        return self

    def create_repo(self, repo_id, **options):
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, repo_id, folder_path, **options):
        shutil.copytree(folder_path, self.folder / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def download(self, repo_id, filename, revision=None):
        return str(self.folder / repo_id / filename)


def test_what_is_pushed_to_the_hub_is_loaded_from_it(network, tmp_path, monkeypatch):
    package = pytest.importorskip("huggingface_hub")
    hub = FakeHub(tmp_path)
    monkeypatch.setattr(package, "HfApi", hub)
    monkeypatch.setattr(package, "hf_hub_download", hub.download)
    assert network.push_to_hub("somebody/network") == "https://hub/somebody/network/commit/1"
    uploaded = tmp_path / "somebody/network"
    assert sorted(path.name for path in uploaded.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert "license: apache-2.0" in (uploaded / "README.md").read_text(encoding="utf-8")
    again = Predictor.from_pretrained("somebody/network", device="cpu")
    array = RNG.integers(0, 255, (40, 50, 3), np.uint8)
    assert np.array_equal(again.predict(array), network.predict(array))
    hub.create_repo = lambda **_: (_ for _ in ()).throw(OSError("401: log in first"))
    with pytest.raises(UserError, match=r"somebody/network: not uploaded.*401: log in first"):
        network.push_to_hub("somebody/network")


def test_hub_refusals(network, organs, tmp_path):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        Predictor.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="found 1 networks toy, expected one heteromedseg"):
        load(organs).save_pretrained(tmp_path / "x")
    with pytest.raises(UserError, match="found 2 networks"):
        load(organs, organs).save_pretrained(tmp_path / "x")


def test_what_is_missing_without_huggingface_hub_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"huggingface_hub is not installed; pip install -r requirements-hub\.txt"):
        Predictor.from_pretrained("somebody/network")
