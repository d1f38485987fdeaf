"""python -m tools.export: files that compute what PyTorch computes, that say what they need, and that load again."""

import ast
import json
import sys
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import zoom
from torch import nn

import predict
from isic_polyp_rectal.task import CVC_CLINICDB
from models import build
from models.build import load_network
from recipes import RECIPES
from tests.support.places import ROOT
from tests.support.shallow import shallow_model
from tools import export
from utils import checkpoint
from utils.config import Config, to_dict
from utils.errors import UserError
from utils.preprocess import PICTURES, SLICES
from utils.preprocess.sizes import resize_logits

CT = Config(
    num_classes=3,
    preprocess=replace(SLICES, intensity="ct", orientation="SLP"),
    img_size=(32, 48),
    root_path="/home/me/data",
)
POLYPS = replace(CVC_CLINICDB, img_size=(32, 32), pretrained="/home/me/biformer.pth")
SCRIPT = ROOT / "docs" / "segment_onnx.py"
NAMES = {3: ["liver", "spleen"], 1: ["polyp"]}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Networks of few parts under the names that --network takes."""
    networks = {
        "heteromedseg": lambda cfg: shallow_model(cfg.num_classes, cfg.ssd),
        "conv": lambda cfg: nn.Conv2d(cfg.preprocess.channels, cfg.num_classes, 5, padding=2, bias=False),
    }
    monkeypatch.setattr(build, "NETWORKS", networks)


def save(path, cfg: Config, **changed):
    """A checkpoint as training writes it, with fresh weights."""
    torch.manual_seed(0)
    state = {"format": "heteromedseg", "config": to_dict(cfg), "class_names": NAMES[cfg.num_classes]}
    state |= {"epoch": 7, "selection": "validation", "split": "8 train + 2 test", "split_sha256": "ab" * 32}
    checkpoint.save(path, state | {"model": build.make_network(cfg).state_dict()} | changed)
    return path


def run(path, output, *words):
    export.main(["--checkpoint", str(path), "--output", str(output), *map(str, words)])
    return output


# --- ONNX ---------------------------------------------------------------------------------------


def onnx_of(path, output, *words):
    pytest.importorskip("onnxscript")
    return run(path, output, *words)


def test_the_networks_parts_are_those_of_pytorch_for_any_batch(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path = save(tmp_path / "best.pth", replace(CT, img_size=(64, 32)))
    session = runtime.InferenceSession(onnx_of(path, tmp_path / "network.onnx"))
    model = load_network(path, RECIPES).model
    for batch in (1, 3):
        images = torch.randn(batch, 1, 64, 32)
        with torch.inference_mode():
            expected = model(images).numpy()
        np.testing.assert_allclose(session.run(None, {"image": images.numpy()})[0], expected, atol=1e-4)
    words = session.get_modelmeta().custom_metadata_map
    assert json.loads(words["class_names"]) == ["liver", "spleen"]
    assert json.loads(words["img_size"]) == [64, 32]
    assert json.loads(words["preprocess"])["intensity"] == "ct"
    assert words["checkpoint_sha256"] == checkpoint.sha256(path)
    assert words["licence"].startswith("Apache-2.0")
    assert "not a medical device" in words["use"]
    assert "/home" not in str(words)


def segment(monkeypatch, *words):
    """Run docs/segment_onnx.py in this process."""
    monkeypatch.setattr(sys, "argv", ["segment_onnx.py", *map(str, words)])
    exec(compile(SCRIPT.read_text("utf-8"), SCRIPT.name, "exec"), {})


def test_the_script_without_pytorch_gives_the_masks_of_predict_for_pictures(tmp_path, monkeypatch):
    path = save(tmp_path / "best.pth", replace(POLYPS, network="conv"))
    network = onnx_of(path, tmp_path / "network.onnx")
    rng = np.random.default_rng(0)
    pictures = {
        "large": rng.integers(0, 256, (61, 50, 3), np.uint8),
        "low": rng.integers(0, 256, (20, 40, 3), np.uint8),
    }
    pictures |= {
        "grey": rng.integers(0, 256, (40, 44), np.uint8),
        "deep": rng.integers(0, 65536, (40, 44, 3), np.uint16),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        segment(monkeypatch, network, tmp_path / f"{name}.png")
        predict.main(words_of(path, tmp_path / f"{name}.png", tmp_path / "masks"))
        mask, expected = (cv2.imread(str(p / f"{name}_mask.png"), -1) for p in (tmp_path, tmp_path / "masks"))
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("size", "values"), [((32, 48), "hu"), ((20, 24), "fraction"), ((20, 24), "8 bit")])
def test_the_script_without_pytorch_gives_the_masks_of_predict_for_volumes(tmp_path, monkeypatch, size, values):
    path = save(tmp_path / "best.pth", replace(CT, network="conv", img_size=size))
    network = onnx_of(path, tmp_path / "network.onnx")
    array = np.random.default_rng(0).random((3, 28, 22))
    array = {"hu": array * 1500 - 1000, "fraction": array.astype(np.float32), "8 bit": array * 255}[values]
    array = array.astype({"hu": np.int16, "8 bit": np.uint8}.get(values, np.float32))
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((0.7, 0.8, 5))
    volume.SetOrigin((10, -20, 30))
    volume.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))
    sitk.WriteImage(volume, str(tmp_path / "scan.nii.gz"))
    segment(monkeypatch, network, tmp_path / "scan.nii.gz")
    predict.main(words_of(path, tmp_path / "scan.nii.gz", tmp_path / "masks"))
    mask, expected = (sitk.ReadImage(str(p / "scan_mask.nii.gz")) for p in (tmp_path, tmp_path / "masks"))
    for side in ("Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(mask, f"Get{side}")(), getattr(expected, f"Get{side}")(), atol=1e-6)
    mask, expected = map(sitk.GetArrayFromImage, (mask, expected))
    assert len(np.unique(mask)) > 1
    np.testing.assert_array_equal(mask, expected)


def words_of(path, source, output):
    words = ["--checkpoint", path, "--input", source, "--output_dir", output, "--device", "cpu", "--precision", "fp32"]
    return [str(word) for word in words]


@pytest.mark.parametrize(("n", "m"), [(512, 224), (61, 32), (20, 48), (224, 512)])
@pytest.mark.parametrize("cubic", [True, False])
def test_the_script_resizes_like_the_product(n, m, cubic):
    """512 -> 224 is a size at which SciPy's zoom gives zeros in the last row."""
    source = SCRIPT.read_text("utf-8")
    start, end = source.index("def weights"), source.index("network, file")
    for pre in (SLICES,) if cubic else (SLICES, PICTURES):
        names = {"np": np, "pre": {"resize": pre.resize}}
        exec(source[start:end], names)
        values = np.random.default_rng(0).random((n, n), np.float32)
        rows = names["weights"](n, m, cubic)
        logits = torch.from_numpy(values)[None, None]
        expected = zoom(values, m / n, order=3) if cubic else resize_logits(logits, (m, m), pre)[0, 0].numpy()
        np.testing.assert_allclose(
            rows @ values @ rows.T, expected, atol=2e-6 if cubic else 1e-4
        )  # PyTorch keeps places in float32


def test_the_script_refuses_values_and_settings_that_it_does_not_know(tmp_path, monkeypatch):
    path = save(tmp_path / "best.pth", replace(CT, network="conv", preprocess=SLICES))
    network = onnx_of(path, tmp_path / "network.onnx")
    array = np.random.default_rng(0).integers(0, 900, (2, 40, 40)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "mr.nii.gz"))
    with pytest.raises(SystemExit, match=r"int16 0 to 899 as unknown.*'percentile'"):
        segment(monkeypatch, network, tmp_path / "mr.nii.gz")
    with pytest.raises(SystemExit, match="as unit"):
        segment(monkeypatch, network, tmp_path / "mr.nii.gz", "unit")
    segment(monkeypatch, network, tmp_path / "mr.nii.gz", "percentile")
    assert (tmp_path / "mr_mask.nii.gz").is_file()


def test_the_script_says_how_it_is_called_and_what_it_wrote(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"python segment_onnx.py NETWORK.onnx FILE"):
        segment(monkeypatch, "network.onnx")
    network = onnx_of(save(tmp_path / "best.pth", replace(POLYPS, network="conv")), tmp_path / "network.onnx")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 44, 3), np.uint8))
    capsys.readouterr()
    segment(monkeypatch, network, tmp_path / "a.png")
    assert capsys.readouterr().out == f"{tmp_path / 'a_mask.png'}\n"


def test_the_script_is_short_and_needs_four_packages():
    tree = ast.parse(SCRIPT.read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"json", "sys", "cv2", "numpy", "onnxruntime", "SimpleITK"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert SCRIPT.read_text("utf-8").count("\n") <= 60


# --- safetensors --------------------------------------------------------------------------------


def test_safetensors_hold_the_same_network_and_no_local_path(tmp_path):
    path = save(tmp_path / "best.pth", replace(POLYPS, dataset="/home/me/polyps", csvfile="/home/me/split.csv"))
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
    assert b"/home/me" not in other.read_bytes()
    with safe_open(other, framework="np") as file:
        words = file.metadata()
    assert json.loads(words["preprocess"]) == json.loads(json.dumps(asdict(POLYPS.preprocess)))
    assert words["licence"].startswith("Apache-2.0")


def test_predict_takes_safetensors(tmp_path):
    path = save(tmp_path / "best.pth", replace(POLYPS, network="conv"))
    other = run(path, tmp_path / "network.safetensors", "--format", "safetensors")
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 44, 3), np.uint8))
    for one in (path, other):
        predict.main(words_of(one, tmp_path / "a.png", tmp_path / one.suffix))
    assert (tmp_path / ".pth/a_mask.png").read_bytes() == (tmp_path / ".safetensors/a_mask.png").read_bytes()


def test_safetensors_that_are_damaged_or_from_elsewhere_are_refused(tmp_path):
    path = save(tmp_path / "best.pth", replace(POLYPS, network="conv"))
    other = run(path, tmp_path / "network.safetensors", "--format", "safetensors")
    whole = other.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"\xff" * 64, whole[:8] + b"x" + whole[9:]):
        other.write_bytes(damaged)
        with pytest.raises(UserError, match=r"network.safetensors: .*copy it again"):
            load_network(other, RECIPES)
    save_file({"conv.weight": torch.zeros(3)}, other)
    with pytest.raises(UserError, match="no settings of this project"):
        load_network(other, RECIPES)


# --- both ---------------------------------------------------------------------------------------


def test_the_check_takes_the_images_that_are_given(tmp_path, monkeypatch):
    path = save(tmp_path / "best.pth", replace(CT, network="conv"))
    np.save(tmp_path / "volume.npy", np.random.default_rng(0).random((9, 50, 40)))
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 44, 3), np.uint8))
    seen = []
    monkeypatch.setattr(export, "compare", lambda loaded, run, images: seen.append(images) or "")
    words = ["--format", "safetensors", "--images", tmp_path / "volume.npy", tmp_path / "a.png"]
    run(path, tmp_path / "network.safetensors", *words)
    assert seen[0].shape == (5, 1, 32, 48)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    path = save(tmp_path / "best.pth", replace(CT, network="conv"))
    wrong = lambda part, loaded: part.write_bytes(b"x") and (lambda batch: -loaded.model(batch))  # noqa: E731
    monkeypatch.setattr(export, "write_safetensors", wrong)
    with pytest.raises(UserError, match=r"not that of the checkpoint: logits differ .* labels in \d+ of 6144 pixels"):
        run(path, tmp_path / "network.safetensors", "--format", "safetensors")
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
