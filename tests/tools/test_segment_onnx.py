"""docs/segment_onnx.py: the masks of predict.py without PyTorch and without this repository."""

import ast
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import zoom

import predict
from tests.support.exporting import CT, NAMES, POLYPS, SCRIPT, onnx_of, run, save, small_networks, words_of  # noqa: F401 - a fixture
from utils.config import settle_preprocess
from utils.preprocess import PICTURES, SLICES
from utils.preprocess.sizes import resize_logits


def segment(monkeypatch, *words):
    """Run docs/segment_onnx.py in this process."""
    monkeypatch.setattr(sys, "argv", ["segment_onnx.py", *map(str, words)])
    exec(compile(SCRIPT.read_text("utf-8"), SCRIPT.name, "exec"), {})


@pytest.mark.parametrize(("fit", "intensity"), [("squash", "auto"), ("pad", "auto"), ("squash", "percentile")])
def test_the_script_without_pytorch_gives_the_masks_of_predict_for_pictures(tmp_path, monkeypatch, fit, intensity):
    cfg = replace(POLYPS, network="conv", fit=fit, intensity=intensity)
    path = save(tmp_path / "best.pth", settle_preprocess(cfg))
    network = onnx_of(path, tmp_path / "network.onnx")
    rng = np.random.default_rng(0)
    pictures = {
        "large": rng.integers(0, 256, (61, 50, 3), np.uint8),
        "low": rng.integers(0, 256, (20, 40, 3), np.uint8),
    }
    pictures |= {
        "grey": rng.integers(90, 120, (40, 44), np.uint8),
        "deep": rng.integers(0, 65536, (40, 44, 3), np.uint16),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        segment(monkeypatch, network, tmp_path / f"{name}.png")
        predict.main(words_of(path, tmp_path / f"{name}.png", tmp_path / "masks"))
        mask, expected = (cv2.imread(str(p / f"{name}_mask.png"), -1) for p in (tmp_path, tmp_path / "masks"))
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("fit", "size", "values", "trained"),
    [
        ("squash", (32, 48), "hu", "ct"),
        ("squash", (20, 24), "fraction", "ct"),
        ("squash", (20, 24), "fraction", "percentile"),
        ("squash", (20, 24), "8 bit", "percentile"),
        ("squash", (20, 24), "8 bit", "unit"),
        ("pad", (32, 48), "hu", "ct"),
        ("pad", (20, 24), "8 bit", "percentile"),
    ],
)
def test_the_script_without_pytorch_gives_the_masks_of_predict_for_volumes(
    tmp_path, monkeypatch, fit, size, values, trained
):
    """8 bits and fractions are dark but for a few voxels."""
    pre = replace(CT.preprocess, fit=fit, intensity=trained)
    path = save(tmp_path / "best.pth", replace(CT, network="conv", img_size=size, preprocess=pre))
    network = onnx_of(path, tmp_path / "network.onnx")
    array = np.random.default_rng(0).random((3, 28, 22))
    array **= 1 if values == "hu" else 8
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
    onnx = pytest.importorskip("onnx")
    path = save(tmp_path / "best.pth", replace(CT, network="conv", preprocess=SLICES))
    network = onnx_of(path, tmp_path / "network.onnx")
    array = np.random.default_rng(0).integers(0, 900, (2, 40, 40)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "mr.nii.gz"))
    with pytest.raises(SystemExit, match=r"int16 0 to 899 as unknown.*'percentile'"):
        segment(monkeypatch, network, tmp_path / "mr.nii.gz")
    with pytest.raises(SystemExit, match="as unit"):
        segment(monkeypatch, network, tmp_path / "mr.nii.gz", "unit")
    on_ct = onnx_of(save(tmp_path / "ct.pth", replace(CT, network="conv")), tmp_path / "ct.onnx")
    sitk.WriteImage(sitk.GetImageFromArray(array.clip(0, 255).astype(np.uint8)), str(tmp_path / "dark.nii.gz"))
    with pytest.raises(SystemExit, match="uint8 0 to 255 as ct"):
        segment(monkeypatch, on_ct, tmp_path / "dark.nii.gz")
    slide = save(tmp_path / "slide.pth", replace(CT, network="conv", preprocess=replace(SLICES, fit="slide")))
    other = onnx_of(slide, tmp_path / "slide.onnx")
    with pytest.raises(SystemExit, match="not slide"):
        segment(monkeypatch, other, tmp_path / "mr.nii.gz", "percentile")
    segment(monkeypatch, network, tmp_path / "mr.nii.gz", "percentile")
    assert (tmp_path / "mr_mask.nii.gz").is_file()
    bare = onnx.load(network)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    with pytest.raises(SystemExit, match=r"bare\.onnx: does not say how its images were made; export .* again"):
        segment(monkeypatch, tmp_path / "bare.onnx", tmp_path / "mr.nii.gz", "percentile")


def test_the_script_tells_of_volumes_that_lie_otherwise_than_in_training(tmp_path, monkeypatch, capsys):
    network = onnx_of(save(tmp_path / "best.pth", replace(CT, network="conv")), tmp_path / "network.onnx")
    array = np.random.default_rng(0).integers(-1000, 900, (4, 40, 40)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array[:, :1]), str(tmp_path / "thin.nii.gz"))
    with pytest.raises(SystemExit, match=r"thin.nii.gz: one slice of another direction than in training \(SLP\)"):
        segment(monkeypatch, network, tmp_path / "thin.nii.gz")
    for name, spacing in (("axial", (1, 1, 8)), ("sagittal", (8, 1, 1))):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        capsys.readouterr()
        segment(monkeypatch, network, tmp_path / f"{name}.nii.gz")
        assert ("cut across thick slices" in capsys.readouterr().err) == (name == "sagittal")


def test_the_script_says_how_it_is_called_and_what_it_wrote(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"python segment_onnx.py NETWORK.onnx FILE"):
        segment(monkeypatch, "network.onnx")
    network = onnx_of(save(tmp_path / "best.pth", replace(POLYPS, network="conv")), tmp_path / "network.onnx")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 44, 3), np.uint8))
    capsys.readouterr()
    segment(monkeypatch, network, tmp_path / "a.png")
    assert capsys.readouterr().out == f"{tmp_path / 'a_mask.png'}\n"


def test_the_script_needs_four_packages():
    tree = ast.parse(SCRIPT.read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"json", "sys", "cv2", "numpy", "onnxruntime", "SimpleITK"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
