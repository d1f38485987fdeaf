"""python -m tools.export: files that compute what PyTorch computes, that say what they need, and that load again."""

import copy
import json
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import predict
from models import build
from models.bra import BRABlock
from models.build import load_network
from models.layers import to_nchw, to_nhwc
from models.scsa import SCSA
from models.vssd import VSSDBlock
from recipes import RECIPES
from tests.support.exporting import CT, NAMES, POLYPS, SCRIPT, onnx_of, run, save, small_networks, words_of  # noqa: F401 - a fixture
from tests.support.manifests import quick_model
from tests.support.released import to_released
from tools import export
from utils import checkpoint
from utils.config import Config
from utils.errors import UserError
from utils.inference.forward import forward_fn

# --- ONNX ---------------------------------------------------------------------------------------


class OneMap(nn.Module):
    """A block of the encoder, a gate of the skips and a block of the decoder; in/out: (B, H, W, 32)."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.encode, self.gate, self.decode = VSSDBlock(32, 1, form), SCSA(32, 4), BRABlock(32, 8)

    def forward(self, x):
        return self.decode(self.gate(self.encode(x)), (x.shape[1] // 4, x.shape[2] // 4))


class AtStride8(nn.Module):
    """Blocks of the network between an image and logits. Exporting the whole network takes minutes."""

    def __init__(self, blocks: nn.Module, cfg: Config) -> None:
        super().__init__()
        self.stem = nn.Conv2d(cfg.preprocess.channels, 32, 8, stride=8)
        self.blocks = blocks
        self.head = nn.ConvTranspose2d(32, cfg.num_classes, 8, stride=8)

    def forward(self, image):
        return self.head(to_nchw(self.blocks(to_nhwc(self.stem(image)))))


def test_a_file_computes_what_pytorch_does_for_any_batch_and_size(tmp_path, monkeypatch):
    """A file for one size holds the same operators, with one size in the place of any."""
    monkeypatch.setitem(build.NETWORKS, "heteromedseg", lambda cfg: AtStride8(OneMap(cfg.ssd), cfg))
    path = save(tmp_path / "best.pth", replace(CT, img_size=(128, 160)))
    other = onnx_of(path, tmp_path / "network.onnx", "--size", "any")
    ours, theirs = (load_network(one, RECIPES).model for one in (path, other))
    for shape in ((1, 1, 128, 128), (3, 1, 224, 192), (1, 1, 448, 160)):
        images = torch.randn(shape)
        with torch.inference_mode():
            torch.testing.assert_close(theirs(images), ours(images), atol=1e-4, rtol=0)
    for size in ((96, 128), (128, 144)):
        with pytest.raises(UserError, match=rf"multiples of 32 from 128, not of {size[0]}x{size[1]}"):
            theirs(torch.zeros(1, 1, *size))
    assert theirs.session.get_modelmeta().custom_metadata_map["sizes"].startswith("multiples of 32 from 128")


def test_a_file_for_one_size_takes_any_batch_and_says_what_it_is(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path = save(tmp_path / "best.pth", replace(CT, network="conv"))
    session = runtime.InferenceSession(onnx_of(path, tmp_path / "network.onnx"))
    model = load_network(path, RECIPES).model
    for batch in (1, 3):
        images = torch.randn(batch, 1, 32, 48)
        with torch.inference_mode():
            expected = model(images).numpy()
        np.testing.assert_allclose(session.run(None, {"image": images.numpy()})[0], expected, atol=1e-4)
    words = session.get_modelmeta().custom_metadata_map
    assert json.loads(words["class_names"]) == ["liver", "spleen"]
    assert json.loads(words["img_size"]) == [32, 48]
    assert json.loads(words["preprocess"])["intensity"] == "ct"
    assert words["checkpoint_sha256"] == checkpoint.sha256(path)
    assert words["licence"].startswith("Apache-2.0")
    assert "not a medical device" in words["use"]
    assert "/home" not in str(words)


@pytest.mark.parametrize(
    ("changed", "words", "found"),
    [
        ({}, (), "images of 32x48"),
        ({"img_size": (128, 128), "network": "conv"}, (), "network conv"),
        ({"img_size": (128, 128)}, ("--format", "safetensors"), "format safetensors"),
    ],
)
def test_any_size_is_refused_where_it_cannot_hold(tmp_path, changed, words, found):
    pytest.importorskip("onnxscript")
    output = tmp_path / ("network.safetensors" if words else "network.onnx")
    with pytest.raises(UserError, match=f"--size any: .*{found}.*leave it out"):
        run(save(tmp_path / "best.pth", replace(CT, **changed)), output, "--size", "any", *words)


# --- safetensors --------------------------------------------------------------------------------


def test_safetensors_hold_the_same_network_and_no_local_path(tmp_path):
    path = save(tmp_path / "best.pth", replace(POLYPS, dataset="/private/me/polyps", csvfile="/private/me/split.csv"))
    other = run(path, tmp_path / "network.safetensors", "--format", "safetensors")
    first, second = (load_network(one, RECIPES) for one in (path, other))
    assert first.model.state_dict().keys() == second.model.state_dict().keys()
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert second.trained == replace(
        first.trained, dataset="polyps", csvfile=None, pretrained="biformer.pth", output_dir=Config.output_dir
    )
    assert second.class_names == ("polyp",)
    for key in ("epoch", "selection", "split", "split_sha256"):
        assert second.origin[key] == first.origin[key]
    assert b"/private/me" not in other.read_bytes()
    with safe_open(other, framework="np") as file:
        words = file.metadata()
    assert json.loads(words["preprocess"]) == json.loads(json.dumps(asdict(POLYPS.preprocess)))
    assert words["licence"].startswith("Apache-2.0")


def test_safetensors_know_the_cases_and_not_where_the_training_began(tmp_path):
    cases = {"train": ["0123456789abcdef"], "validation": []}
    path = save(
        tmp_path / "best.pth", replace(POLYPS, network="conv", pretrained="auto", init="/private/me/a.pth"), cases=cases
    )
    other = run(path, tmp_path / "network.safetensors", "--format", "safetensors")
    assert load_network(other, RECIPES).cases == cases
    assert load_network(other, RECIPES).trained.init == "a.pth"
    assert b"/private/me" not in other.read_bytes()


def test_released_weights_become_safetensors(tmp_path, monkeypatch):
    monkeypatch.setitem(build.NETWORKS, "heteromedseg", lambda cfg: build.build_model(cfg.num_classes, cfg.ssd))
    torch.save(to_released(quick_model(9)), tmp_path / "synapse_84.00.pth")
    loaded = load_network(tmp_path / "synapse_84.00.pth", RECIPES, "synapse")
    export.write_safetensors(tmp_path / "network.safetensors", loaded)
    again = load_network(tmp_path / "network.safetensors", RECIPES)
    assert again.origin["selection"] == "as published"
    assert again.class_names[0] == "aorta"


def test_predict_takes_safetensors(tmp_path):
    path = save(tmp_path / "best.pth", replace(POLYPS, network="conv"))
    other = run(path, tmp_path / "network.safetensors", "--format", "safetensors")
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 44, 3), np.uint8))
    for one in (path, other):
        predict.main(words_of(one, tmp_path / "a.png", tmp_path / one.suffix))
    assert (tmp_path / ".pth/a_mask.png").read_bytes() == (tmp_path / ".safetensors/a_mask.png").read_bytes()


def test_predict_takes_an_onnx_file_in_the_place_of_a_checkpoint(tmp_path, capsys):
    path = save(tmp_path / "best.pth", replace(POLYPS, network="conv", dataset="/private/me/polyps"))
    other = onnx_of(path, tmp_path / "network.onnx")
    assert b"/private/me" not in other.read_bytes()
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 44, 3), np.uint8))
    for one in (path, other):
        predict.main([*words_of(one, tmp_path / "a.png", tmp_path / one.suffix), "--tta"])
    assert (tmp_path / ".pth/a_mask.png").read_bytes() == (tmp_path / ".onnx/a_mask.png").read_bytes()
    found = load_network(other, RECIPES)
    assert found.notes == ("network run by ONNX Runtime, float32 on the CPU",)
    assert found.origin["selection"] == "validation"
    with pytest.raises(UserError, match="takes images of 32x32, not of 64x64"):
        found.model(torch.zeros(1, 3, 64, 64))
    assert found.cfg.precision == "fp32"
    with pytest.raises(UserError, match="computes in float32"):
        forward_fn([found.model], torch.device("cpu"), "bf16")(torch.zeros(1, 3, 32, 32))
    other.write_bytes(other.read_bytes()[:200])
    with pytest.raises(UserError, match=r"network.onnx: damaged, or no ONNX file"):
        load_network(other, RECIPES)


def test_safetensors_that_are_damaged_or_from_elsewhere_are_refused(tmp_path):
    path = save(tmp_path / "best.pth", replace(POLYPS, network="conv"))
    other = run(path, tmp_path / "network.safetensors", "--format", "safetensors")
    whole = other.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"\xff" * 64, whole[:8] + b"x" + whole[9:]):
        other.write_bytes(damaged)
        with pytest.raises(UserError, match=r"network.safetensors: .*copy it again"):
            load_network(other, RECIPES)
    other.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="its content is not what was saved"):
        load_network(other, RECIPES)
    save_file({"conv.weight": torch.zeros(3)}, other)
    with pytest.raises(UserError, match="no settings of this project"):
        load_network(other, RECIPES)


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["squash", "slide"])
def test_the_check_takes_the_images_that_are_given(tmp_path, monkeypatch, fit):
    path = save(tmp_path / "best.pth", replace(CT, network="conv", preprocess=replace(CT.preprocess, fit=fit)))
    np.save(tmp_path / "volume.npy", np.random.default_rng(0).random((9, 50, 40)))
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 44, 3), np.uint8))
    seen = []
    monkeypatch.setattr(export, "compare", lambda loaded, run, images: seen.append(images) or "")
    words = ["--format", "safetensors", "--images", tmp_path / "volume.npy", tmp_path / "a.png"]
    run(path, tmp_path / "network.safetensors", *words)
    assert seen[0][0].shape == (5, 1, 32, 48)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    path = save(tmp_path / "best.pth", replace(CT, network="conv"))
    write = export.write_safetensors

    def negated(part, loaded):
        model = copy.deepcopy(loaded.model)
        for parameter in model.parameters():
            parameter.data.neg_()
        write(part, replace(loaded, model=model))

    monkeypatch.setattr(export, "write_safetensors", negated)
    with pytest.raises(UserError, match=r"not that of the checkpoint: logits differ .* labels in \d+ of 6144 pixels"):
        run(path, tmp_path / "network.safetensors", "--format", "safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["best.pth"]


def test_an_exporter_that_fails_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def fails(*given, **named):
        raise RuntimeError("Constraints violated (batch)")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(
        UserError, match=r"PyTorch .* cannot export the network; pip install .* brings versions that can"
    ):
        run(save(tmp_path / "best.pth", replace(CT, network="conv")), tmp_path / "network.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["best.pth"]


def test_refusals_come_before_the_work(tmp_path, monkeypatch):
    path = save(tmp_path / "best.pth", replace(CT, network="conv"))
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"old")
    for output, words, message in (
        (kept, (), "is there already; give --force"),
        (tmp_path / "network.onnx", (), r"ends in \.safetensors"),
        (tmp_path / "nowhere" / "network.safetensors", (), "no folder .*nowhere"),
        (tmp_path / "network.safetensors", ("--images", tmp_path / "none.png"), "none.png: no such file"),
    ):
        with pytest.raises(UserError, match=message):
            run(path, output, "--format", "safetensors", *words)
    assert kept.read_bytes() == b"old"
    run(path, kept, "--format", "safetensors", "--force")
    assert load_network(kept, RECIPES).cfg.num_classes == 3
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"--format onnx: needs onnx, onnxscript, onnxruntime; pip install -r"):
        run(path, tmp_path / "network.onnx")
