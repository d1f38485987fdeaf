"""Mistakes in data of the Synapse layout: each named with its file, all of them in one error."""

import re

import h5py
import numpy as np
import pytest

from datasets.volumes.sets import SynapseSlices, SynapseVolumes, check_slices, check_volumes
from tests.support.synapse_tree import LISTED, VOLUMES, random_image, random_label, write_slices, write_volume
from utils.errors import UserError

IMAGE, LABEL = random_image(0, (24, 20)), random_label(0, (24, 20))


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed[3, 5] = value
    return changed


BROKEN = [
    ({"image": IMAGE}, r"\['image'\]; expected `image` and `label`"),
    ({"image": IMAGE, "mask": LABEL}, r"\['image', 'mask'\]; expected `image` and `label`"),
    ({"image": IMAGE, "label": LABEL[:-1]}, r"\(23, 20\) and `image` \(24, 20\); expected the same"),
    ({"image": IMAGE.T, "label": LABEL}, r"`label` has shape \(24, 20\) and `image` \(20, 24\)"),
    ({"image": IMAGE[None], "label": LABEL[None]}, r"`image` has shape \(1, 24, 20\); expected \(H, W\)"),
    ({"image": IMAGE[:0], "label": LABEL[:0]}, r"`image` has shape \(0, 20\)"),
    ({"image": IMAGE, "label": with_value(LABEL, 9)}, r"`label` holds 9; expected 0 to 8 \(9 classes"),
    ({"image": IMAGE, "label": with_value(LABEL, 300)}, r"`label` holds 300; expected 0 to 8"),
    ({"image": IMAGE, "label": with_value(LABEL, -1).astype("int16")}, r"`label` holds -1; expected 0 to 8"),
    ({"image": IMAGE, "label": with_value(LABEL, 1.5)}, "`label` holds fractions"),
    ({"image": IMAGE, "label": with_value(LABEL, np.nan)}, "`label` holds 1 values that are not finite"),
    ({"image": with_value(IMAGE, np.nan), "label": LABEL}, "`image` holds 1 values that are not finite"),
    ({"image": with_value(IMAGE, np.inf), "label": LABEL}, "`image` holds 1 values that are not finite"),
    ({"image": IMAGE * 255, "label": LABEL}, r"`image` ranges over [\d.]+ to 25\d[\d.]*; expected \[0, 1\]"),
    ({"image": IMAGE * 2 - 1, "label": LABEL}, r"`image` ranges over -0\.99\d* to"),
    ({"image": (IMAGE * 99).astype("int32"), "label": LABEL}, "`image` is of type int32; expected floats"),
    ({"image": IMAGE, "label": LABEL.astype("str")}, "`label` is of type <U"),
    ({"image": IMAGE.astype(object), "label": LABEL}, "cannot be read.*no plain array"),
]


@pytest.mark.parametrize(("arrays", "message"), BROKEN)
def test_broken_slice(tmp_path, arrays, message):
    folder = write_slices(tmp_path)
    np.savez(folder / f"{LISTED[2]}.npz", **arrays)
    with pytest.raises(UserError, match=rf"1 of 4 files cannot be used\n  {LISTED[2]}\.npz: .*{message}") as error:
        check_slices(folder, LISTED, 9)
    assert str(error.value).count(LISTED[2]) == 1
    if "expected 0 to 8" not in message or "300" in message or "-1" in message:
        with pytest.raises(UserError, match=message.replace("0 to 8", "0 to 255")):
            SynapseSlices(folder, LISTED, (24, 20))[2]


def test_what_is_no_mistake(tmp_path):
    folder = write_slices(tmp_path)
    overshoot = np.linspace(-0.04, 1.04, 480, dtype=np.float32).reshape(24, 20)
    np.savez(folder / f"{LISTED[0]}.npz", image=overshoot, label=np.zeros((24, 20), bool))
    np.savez(folder / f"{LISTED[1]}.npz", image=IMAGE, label=with_value(LABEL, 8).astype("int64"), more=LABEL)
    np.savez_compressed(folder / f"{LISTED[2]}.npz", image=IMAGE, label=LABEL)
    assert check_slices(folder, LISTED, 9).num_images == 4


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_slice(tmp_path, keep):
    folder = write_slices(tmp_path)
    path = folder / f"{LISTED[0]}.npz"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(UserError, match=rf"{LISTED[0]}\.npz: not a complete npz file"):
        check_slices(folder, LISTED, 9)


def test_corrupt_slice(tmp_path):
    folder = write_slices(tmp_path)
    path = folder / f"{LISTED[0]}.npz"
    content = bytearray(path.read_bytes())
    content[700] ^= 255  # inside the image: only the archive's checksum can tell
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{LISTED[0]}\.npz: cannot be read \(Bad CRC-32"):
        check_slices(folder, LISTED, 9)


def test_several_problems_of_one_file(tmp_path):
    folder = write_slices(tmp_path)
    np.savez(folder / f"{LISTED[0]}.npz", image=IMAGE * 9, label=with_value(LABEL, 12)[1:])
    with pytest.raises(UserError, match=r"expected the same; `image` ranges .*; `label` holds 12"):
        check_slices(folder, LISTED, 9)


def test_long_lists_are_cut(tmp_path):
    names = [f"case0001_slice{i:03d}" for i in range(30)]
    folder = write_slices(tmp_path, names)
    for name in names[5:]:
        np.savez(folder / f"{name}.npz", image=IMAGE, label=LABEL + 20)
    with pytest.raises(UserError) as error:
        check_slices(folder, names, 9)
    lines = str(error.value).splitlines()
    assert lines[0].endswith("25 of 30 files cannot be used")
    assert [re.match(r"  (\w+)\.npz: ", line)[1] for line in lines[1:21]] == names[5:25]
    assert lines[21:] == ["  ... and 5 more"]


def test_names_without_files(tmp_path):
    folder = write_slices(tmp_path)
    absent = [f"case0006_slice{i:03d}" for i in range(12)]
    with pytest.raises(
        UserError, match=r"12 of 16 listed .*case0006_slice000, .*slice009, \.\.\. and 2 more\n  Complete"
    ):
        SynapseSlices(folder, LISTED + absent, (24, 20))
    with pytest.raises(
        UserError, match=r"12 of 12.*\n  The folder holds files like case0005_slice001\.npz: .*another data set"
    ):
        check_slices(folder, absent, 9)
    with pytest.raises(UserError, match=r"2 of 2.*\n  The folder holds no such file"):
        SynapseVolumes(folder, VOLUMES)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        SynapseSlices(tmp_path / "nowhere", LISTED, (24, 20))


def test_one_name_two_volumes(tmp_path):
    for suffix in (".npy.h5", ".h5"):
        write_volume(tmp_path / f"{VOLUMES[0]}{suffix}", 0)
    write_volume(tmp_path / f"{VOLUMES[1]}.h5", 1)
    with pytest.raises(UserError, match=r"two files.*: case0008\.h5 and case0008\.npy\.h5$"):
        SynapseVolumes(tmp_path, VOLUMES)
    assert len(SynapseVolumes(tmp_path, VOLUMES[1:])) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image": None}, r"holds \['label'\]; expected `image`"),
        ({"label": None}, "holds no `label`"),
        ({"label": random_label(0, (5, 18, 22)) + 1}, r"`label` holds 9; expected 0 to 8"),
        ({"label": random_label(0, (5, 22, 18))}, r"\(5, 22, 18\) and `image` \(5, 18, 22\)"),
        ({"image": random_image(0, (18, 22)), "label": random_label(0, (18, 22))}, r"\(18, 22\); expected \(D, H, W\)"),
        ({"image": random_image(0, (5, 18, 22)) * 400 - 125}, r"ranges over -12\d"),
        ({"spacing": np.array([1.0, 2.0])}, r"`spacing` is \[1\.0, 2\.0\]; expected 3"),
        ({"spacing": np.array([1.0, 0.0, 2.0])}, "`spacing`"),
        ({"spacing": np.array([1.0, np.nan, 2.0])}, "`spacing`"),
    ],
)
def test_broken_volume(tmp_path, more, message):
    for seed, name in enumerate(VOLUMES):
        write_volume(tmp_path / f"{name}.npy.h5", seed, **(more if seed else {}))
    with pytest.raises(UserError, match=rf"1 of 2 files cannot be used\n  case0022\.npy\.h5: .*{message}"):
        check_volumes(tmp_path, VOLUMES, 9)


def test_unreadable_volume(tmp_path):
    write_volume(tmp_path / f"{VOLUMES[0]}.h5", 0)
    content = (tmp_path / f"{VOLUMES[0]}.h5").read_bytes()
    (tmp_path / f"{VOLUMES[1]}.h5").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.h5").write_text("not an h5 file")
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("image")
    with pytest.raises(
        UserError, match=r"3 of 4 files cannot be used\n  case0022.*\n  text\.h5: .*\n  group\.h5: "
    ) as error:
        check_volumes(tmp_path, [*VOLUMES, "text", "group"], 9)
    assert str(error.value).count("cannot be read") >= 2
