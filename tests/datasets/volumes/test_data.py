"""Slices and volumes of the Synapse layout, and the counts of their check, where all is well."""

import h5py
import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets.volumes.sets import SliceVolumes, SynapseSlices, SynapseVolumes, check_slices, check_volumes
from tests.support.synapse_tree import LISTED, VOLUMES, random_image, random_label, write_slices, write_volume
from utils.errors import UserError
from utils.preprocess import SLICES
from utils.preprocess.sizes import resize_image, resize_labels


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "uint16"])
def test_slice_as_stored(tmp_path, dtype):
    slices = SynapseSlices(write_slices(tmp_path, dtype=dtype), LISTED, (24, 20))
    assert slices.names == LISTED
    assert len(slices) == 4
    for i, (image, target) in enumerate(slices[i] for i in range(4)):
        stored = random_image(i, (24, 20), dtype).astype(np.float64)
        expected = stored / {"uint8": 255, "uint16": 65535}.get(dtype, 1)
        assert (image.shape, image.dtype, target.dtype) == ((1, 24, 20), torch.float32, torch.uint8)
        np.testing.assert_allclose(image[0].numpy(), expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(target.numpy(), random_label(i, (24, 20)))


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (24, 30), (7, 20)])
def test_slice_resized_as_released(tmp_path, size):
    image, target = SynapseSlices(write_slices(tmp_path), LISTED, size)[1]
    factors = (size[0] / 24, size[1] / 20)
    np.testing.assert_array_equal(image[0].numpy(), ndimage.zoom(random_image(1, (24, 20)), factors, order=3))
    np.testing.assert_array_equal(target.numpy(), ndimage.zoom(random_label(1, (24, 20)), factors, order=0))


def test_resize_keeps_corners_and_labels():
    label = random_label(0, (12, 16), "uint8")
    small = resize_labels(label, (5, 7), SLICES)
    assert (small.shape, small.dtype) == ((5, 7), np.uint8)
    assert [small[0, 0], small[0, -1], small[-1, 0]] == [label[0, 0], label[0, -1], label[-1, 0]]
    assert resize_image(label, (12, 16), SLICES) is label


@pytest.mark.parametrize("suffix", [".npy.h5", ".npz.h5", ".h5"])
def test_volumes(tmp_path, suffix):
    for seed, name in enumerate(VOLUMES):
        write_volume(tmp_path / f"{name}{suffix}", seed)
    volumes = SynapseVolumes(tmp_path, VOLUMES[::-1])
    assert [volume.name for volume in volumes] == VOLUMES[::-1]
    assert (volumes[0].image.dtype, volumes[0].label.dtype, volumes[0].spacing) == (np.float32, np.uint8, None)
    np.testing.assert_array_equal(volumes[0].image, random_image(1, (5, 18, 22)))
    np.testing.assert_array_equal(volumes[0].label, random_label(1, (5, 18, 22)))


def test_volume_details(tmp_path):
    write_volume(tmp_path / "a.h5", 0, label=None, spacing=np.array([3, 0.7, 0.8]))
    write_volume(tmp_path / "b.h5", 1, image=random_image(1, (5, 18, 22), "uint8"))
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file.attrs["spacing"] = (5.0, 1.5, 1.25)
    a, b = SynapseVolumes(tmp_path, ["a", "b"])
    assert a.label is None
    assert a.spacing == (3, 0.7, 0.8)
    assert b.spacing == (5.0, 1.5, 1.25)
    np.testing.assert_allclose(b.image, random_image(1, (5, 18, 22), "uint8") / 255, rtol=1e-6)


def test_training_cases_as_volumes(tmp_path):
    volumes = SliceVolumes(write_slices(tmp_path), LISTED)
    assert volumes.names == ["case0005", "case0021"]
    order = [LISTED.index(f"case0005_slice{number}") for number in ("001", "002", "010")]
    np.testing.assert_array_equal(volumes[0].image, np.stack([random_image(i, (24, 20)) for i in order]))
    np.testing.assert_array_equal(volumes[0].label, np.stack([random_label(i, (24, 20)) for i in order]))
    assert volumes[1].image.shape == (1, 24, 20)
    np.savez(tmp_path / "train_npz/case0005_slice001", image=random_image(0, (9, 20)), label=random_label(0, (9, 20)))
    with pytest.raises(UserError, match=r"case0005 .*\(9, 20\), \(24, 20\)"):
        volumes[0]


def test_check_counts(tmp_path):
    folder = write_slices(tmp_path, LISTED[:3])
    write_slices(tmp_path, LISTED[3:], shape=(12, 8))
    summary = check_slices(folder, LISTED, 9)
    labels = [random_label(i, (24, 20)) for i in range(3)] + [random_label(0, (12, 8))]
    assert (summary.num_cases, summary.num_images) == (2, 4)
    assert summary.sizes == {(24, 20): 3, (12, 8): 1}
    assert summary.classes == {
        k: sum((label == k).any() for label in labels) for k in range(9) if any(k in x for x in labels)
    }

    for seed, name in enumerate(VOLUMES):
        write_volume(tmp_path / f"{name}.npy.h5", seed, shape=(2 + seed, 8, 12))
    labels = [plane for seed in range(2) for plane in random_label(seed, (2 + seed, 8, 12))]
    summary = check_volumes(tmp_path, VOLUMES, 9)
    assert (summary.num_cases, summary.num_images, summary.sizes) == (2, 5, {(8, 12): 5})
    assert summary.classes == {k: sum(k in plane for plane in labels) for k in range(9) if any(k in x for x in labels)}
