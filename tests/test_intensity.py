"""`--fit` and `--intensity` of a training reach the data, the checkpoint's Preprocess, testing and prediction alike."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import h5py
import numpy as np
import pytest
import torch

import predict
import test as test_script
import train
from datasets.files.image import read_image
from datasets.images.check import check_pairs
from datasets.images.pairs import ImageMaskSet, pair_files
from datasets.volumes.lists import read_list
from datasets.volumes.sets import SliceVolumes, SynapseSlices, SynapseVolumes, check_slices, check_volumes
from tests.datasets.prepare.test_volumes import draw, prepare, write_nifti
from tests.support.toy_checkpoints import TOY, save_toy
from utils.config import Config, from_dict, to_dict
from utils.errors import UserError
from utils.inference.segment import segment
from utils.preprocess import PICTURES, SLICES
from utils.preprocess.intensities import normalise, to_unit

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


@pytest.fixture
def pictures(tmp_path):
    """Two images of 12 bits in files of 16 bits, with masks."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), RNG.integers(0, 4096, (20, 30), np.uint16))
        cv2.imwrite(
            str(tmp_path / "masks" / f"{name}.png"), np.kron(np.eye(2), np.ones((10, 15))).astype(np.uint8) * 255
        )
    return tmp_path


def test_pictures_of_12_bits_are_dark_unless_stretched(pictures):
    pairs = pair_files(pictures)
    dark, _ = ImageMaskSet(pairs, (20, 30))[0]
    bright, _ = ImageMaskSet(pairs, (20, 30), intensity="percentile")[0]
    assert dark.max() <= 16
    assert (int(bright.min()), int(bright.max())) == (0, 255)
    stored = cv2.imread(str(pairs[0].image), cv2.IMREAD_UNCHANGED)
    expected = np.rint(to_unit(stored, "percentile", "") * 255)
    assert np.array_equal(bright.numpy(), np.stack([expected] * 3))
    assert any("16 bits" in note for note in check_pairs(pairs).notes)
    assert not any("16 bits" in note for note in check_pairs(pairs, intensity="percentile").notes)
    with pytest.raises(UserError, match="--intensity unit: found values"):
        check_pairs(pairs, intensity="unit")


@pytest.mark.parametrize("intensity", ["percentile", "range"])
def test_prediction_with_the_checkpoints_intensity_sees_what_training_saw(pictures, intensity):
    data = ImageMaskSet(pair_files(pictures), (20, 30), pre=PICTURES, intensity=intensity)
    expected = normalise(data[1][0][None].float() / 255, PICTURES)
    seen = []
    cfg = Config(num_classes=1, preprocess=PICTURES, img_size=(20, 30), intensity=intensity)
    stored = cv2.imread(str(pictures / "images" / "b.png"), cv2.IMREAD_UNCHANGED)
    network = SimpleNamespace(cfg=cfg, forward=lambda x: seen.append(x) or x[:, :1], device=CPU)
    segment(network, stored, False, "b.png")
    torch.testing.assert_close(seen[0], expected)


@pytest.fixture
def volumes(tmp_path):
    """One case of MR-like integers as slices and as a volume, and a second, much brighter one."""
    (tmp_path / "train_npz").mkdir()
    (tmp_path / "test_vol_h5").mkdir()
    for case, top in (("case1", 900), ("case2", 3000)):
        image, label = RNG.integers(0, top, (3, 16, 16)).astype(np.int16), RNG.integers(0, 3, (3, 16, 16))
        image[1] //= 2
        for index in range(3):
            np.savez(tmp_path / "train_npz" / f"{case}_slice{index}.npz", image=image[index], label=label[index])
        with h5py.File(tmp_path / "test_vol_h5" / f"{case}.h5", "w") as file:
            file["image"], file["label"] = image, label
    return tmp_path


NAMES = [f"{case}_slice{index}" for case in ("case2", "case1") for index in (2, 0, 1)]


@pytest.mark.parametrize("intensity", ["percentile", "ct", "range"])
def test_slices_and_volumes_of_a_case_have_the_same_intensities(volumes, intensity):
    folder, whole = volumes / "train_npz", SynapseVolumes(volumes / "test_vol_h5", ["case1", "case2"], intensity)
    slices = SynapseSlices(folder, NAMES, (16, 16), SLICES, intensity)
    held_out = SliceVolumes(folder, NAMES, intensity)
    for number, case in enumerate(("case1", "case2")):
        image = whole[number].image
        assert image.dtype == np.float32
        assert (image.min(), image.max()) >= (0, 0)
        np.testing.assert_allclose(held_out[number].image, image, atol=1e-6)
        for index in range(3):
            found, _ = slices[NAMES.index(f"{case}_slice{index}")]
            np.testing.assert_allclose(found[0].numpy(), image[index], atol=1e-6)
    if intensity == "percentile":
        assert whole[0].image.max() == whole[1].image.max() == 1
        assert whole[0].image[1].max() < 0.6  # of the case, not of the slice
    assert check_slices(folder, NAMES, 3, intensity).num_images == 6
    assert check_volumes(volumes / "test_vol_h5", ["case1"], 3, intensity).num_images == 3


def test_values_that_were_never_scaled_are_refused_with_the_flag_that_scales_them(volumes):
    for check, folder, names in ((check_slices, "train_npz", NAMES), (check_volumes, "test_vol_h5", ["case1"])):
        with pytest.raises(UserError, match=r"type int16; .*--intensity"):
            check(volumes / folder, names, 3)
        with pytest.raises(UserError, match="--intensity unit: found values"):
            check(volumes / folder, names, 3, "unit")
    image = np.full((4, 4), np.nan, np.float32)
    np.savez(volumes / "train_npz" / "x.npz", image=image, label=np.zeros((4, 4)))
    with pytest.raises(UserError, match="not finite"):
        check_slices(volumes / "train_npz", ["x"], 3, "percentile")


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.int16])
def test_a_raw_scan_gets_the_mask_that_test_py_gives_for_the_prepared_one(tmp_path, monkeypatch, kind):
    """MR far below the largest value of its type, but for an artefact of one voxel."""
    for number in range(4):
        values, label = draw(number)
        values = values / 3000
        values[0, 0, 0] = 1
        values = values if kind == np.float32 else np.rint(values * 255)
        write_nifti(tmp_path / f"raw/imagesTr/mr_{number}_0000.nii.gz", values.astype(kind))
        write_nifti(tmp_path / f"raw/labelsTr/mr_{number}.nii.gz", label)
    data = prepare(tmp_path / "raw", tmp_path / "data")
    cfg = train.configure(["--dataset", str(data), "--img_size", "32"])
    assert (cfg.preprocess.intensity, cfg.intensity) == ("percentile", "auto")
    net = save_toy(tmp_path / "net.pth", monkeypatch, replace(cfg, network=TOY), cfg.class_names)
    flags = ["--checkpoint", str(net), "--device", "cpu", "--precision", "fp32", "--output_dir"]
    test_script.main([*flags, str(tmp_path / "test"), "--is_savenii", "--no-report"])
    (case, *_) = read_list(data / "lists/test_vol.txt")
    for name, file in (("raw", f"raw/imagesTr/{case}_0000.nii.gz"), ("h5", f"data/test_vol_h5/{case}.npy.h5")):
        predict.main([*flags, str(tmp_path / name), "--input", str(tmp_path / file)])
        (mask,) = (tmp_path / name).glob("*_mask.nii.gz")
        found = read_image(mask).array
        expected = read_image(tmp_path / f"test/test_standard/nifti/{case}_pred.nii.gz").array
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(found, expected)


def test_flags_of_a_training_are_part_of_its_checkpoint(pictures):
    cfg = train.configure(["--dataset", str(pictures), "--fit", "pad", "--intensity", "percentile"])
    assert cfg.preprocess == replace(PICTURES, fit="pad", intensity="percentile")
    assert cfg.intensity == "percentile"
    assert from_dict(to_dict(cfg), "a.pth") == cfg
    plain = train.configure(["--dataset", str(pictures)])
    assert (plain.preprocess, plain.cache) == (PICTURES, "auto")
    old = to_dict(plain)
    del old["preprocess"]["fit"]
    assert from_dict(old, "a.pth").preprocess.fit == "squash"
    assert train.configure(["--dataset", str(pictures), "--fit", "slide"]).cache == "no"
    with pytest.raises(UserError, match="--cache disk: --fit slide"):
        train.configure(["--dataset", str(pictures), "--fit", "slide", "--cache", "disk"])
    with pytest.raises(UserError, match="--fit crop: expected one of squash, pad, slide"):
        train.configure(["--dataset", str(pictures), "--fit", "crop"])
