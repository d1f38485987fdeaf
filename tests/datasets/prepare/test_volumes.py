"""ACDC and folders of NIfTI pairs -> the Synapse layout, and how train.py reads what they say."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

from datasets.prepare import acdc
from datasets.prepared import Prepared, read_prepared
from datasets.volumes.lists import read_list
from prepare_data import main
from synapse_train_test.task import build_task
from tests.support.places import SHARED
from train import configure
from utils import files
from utils.errors import UserError
from utils.preprocess.intensities import to_unit


def write_nifti(path: Path, array: np.ndarray, stored: str = "LPS") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((1.5, 1.5, 8.0) if array.ndim == 3 else (1.5, 1.5, 8.0, 1.0))
    sitk.WriteImage(sitk.DICOMOrient(image, stored) if array.ndim == 3 else image, str(path))


def draw(seed: int, classes: int = 4, slices: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.zeros((slices, 20, 24), np.uint8)
    for value in range(1, classes):
        label[:, 3 * value : 3 * value + 3, 4 : 4 + 4 * value] = value
    return rng.integers(0, 900, label.shape, dtype=np.int16), label


# --- ACDC ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw_acdc(tmp_path_factory) -> Path:
    """All 150 patients, one slice each: training/patient001 to testing/patient150."""
    root = tmp_path_factory.mktemp("acdc") / "database"
    for patient in range(1, 151):
        folder = root / ("training" if patient <= 100 else "testing") / f"patient{patient:03d}"
        last = 8 + patient % 5
        for frame in (1, last):
            image, label = draw(1000 * patient + frame, slices=1)
            write_nifti(folder / f"patient{patient:03d}_frame{frame:02d}.nii.gz", image)
            write_nifti(folder / f"patient{patient:03d}_frame{frame:02d}_gt.nii.gz", label)
        (folder / "Info.cfg").write_text(f"ED: 1\nES: {last}\nGroup: NOR\nNbFrame: 20\n")
    return root


def patients(names: list[str]) -> list[int]:
    return sorted({int(name[7:10]) for name in names})


def test_acdc_as_in_the_published_tables(raw_acdc, tmp_path):
    main(["acdc", str(raw_acdc), str(tmp_path / "out"), "--workers", "1"])
    lists = {part: read_list(tmp_path / f"out/lists/{part}.txt") for part in ("train", "val_vol", "test_vol")}
    assert [len(patients(names)) for names in lists.values()] == [70, 10, 20]
    assert sorted(p for names in lists.values() for p in patients(names)) == list(range(1, 101))
    assert len(lists["train"]) == 140
    assert len(lists["test_vol"]) == 40
    image, label = draw(1001, slices=1)
    with h5py.File(tmp_path / "out/test_vol_h5/patient001_frame01.npy.h5") as file:
        np.testing.assert_allclose(file["image"], to_unit(image, "percentile", ""))
        assert np.array_equal(file["label"], label)
        assert file.attrs["spacing"].tolist() == [8.0, 1.5, 1.5]
    assert read_prepared(tmp_path / "out") == (("RV", "Myo", "LV"), "percentile", "SPL")


@pytest.mark.skipif(not (SHARED / "data/acdc.tar").is_file(), reason="the real lists are not here")
def test_acdc_split_is_that_of_the_data_passed_around():
    import tarfile

    with tarfile.open(SHARED / "data/acdc.tar") as archive:
        names = {part: archive.extractfile(f"acdc/{part}_vol.txt").read().decode().split() for part in ("val", "test")}
    assert patients(names["val"]) == list(acdc.VALIDATION)
    assert patients(names["test"]) == list(acdc.TEST)


def test_acdc_official_split(raw_acdc, tmp_path):
    main(["acdc", str(raw_acdc), str(tmp_path / "out"), "--workers", "1", "--split", "official"])
    assert patients(read_list(tmp_path / "out/lists/train.txt")) == list(range(1, 101))
    assert patients(read_list(tmp_path / "out/lists/test_vol.txt")) == list(range(101, 151))
    assert not (tmp_path / "out/lists/val_vol.txt").exists()


def test_acdc_with_a_frame_missing(raw_acdc, tmp_path):
    copy = shutil.copytree(raw_acdc, tmp_path / "copy")
    (copy / "training/patient004/patient004_frame12_gt.nii.gz").unlink()
    shutil.rmtree(copy / "training/patient009")
    with pytest.raises(UserError, match=r"2 of 100(.|\n)*patient004: .*\[1\], expected \[1, 12\](.|\n)*009: .*none"):
        main(["acdc", str(copy), str(tmp_path / "out"), "--workers", "1"])


# --- nnU-Net, MSD, and plain folders ------------------------------------------------------------


MSD_LABELS = {"0": "background", "1": "a", "2": "b", "3": "c"}


def nnunet(root: Path, stored=("LPS", "RAS", "PIR"), cases: int = 6, **described) -> Path:
    for number in range(cases):
        image, label = draw(number)
        write_nifti(root / f"imagesTr/abd_{number:02d}_0000.nii.gz", image, stored[number % len(stored)])
        write_nifti(root / f"labelsTr/abd_{number:02d}.nii.gz", label, stored[number % len(stored)])
    write_nifti(root / "imagesTs/abd_99_0000.nii.gz", image)
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}}
    (root / "dataset.json").write_text(json.dumps(content | described))
    return root


def prepare(root: Path, target: Path, *flags: str) -> Path:
    main(["folder", str(root), str(target), "--workers", "1", "--size", "0.7", *flags])
    return target


def test_nnunet_layout_whatever_the_storage(tmp_path):
    out = prepare(nnunet(tmp_path / "raw"), tmp_path / "out")
    assert read_prepared(out) == (("liver", "spleen", "kidney"), "percentile", "SPL")
    cases = {name.partition("_slice")[0] for name in read_list(out / "lists/train.txt")}
    tested = read_list(out / "lists/test_vol.txt")
    assert len(cases) == 4
    assert sorted(cases | set(tested)) == [f"abd_{number:02d}" for number in range(6)]
    for name in tested:
        image, label = draw(int(name[-2:]))
        with h5py.File(out / f"test_vol_h5/{name}.npy.h5") as file:
            assert np.array_equal(file["label"], label)
            np.testing.assert_allclose(file["image"], to_unit(image, "percentile", ""))


def test_train_reads_what_was_prepared(tmp_path):
    out = prepare(nnunet(tmp_path / "raw"), tmp_path / "out", "--orientation", "SLP")
    for word in (out, out / "train_npz"):
        cfg = configure(["--dataset", str(word), "--img_size", "32"])
        assert cfg.recipe == "synapse"
        assert cfg.num_classes == 4
        assert cfg.class_names == ("liver", "spleen", "kidney")
        assert (cfg.preprocess.intensity, cfg.preprocess.orientation) == ("percentile", "SLP")
        task = build_task(cfg)
        assert len(task.train_set) == 16
        assert task.split == "lists/train.txt"
    with pytest.raises(UserError, match=r"--num_classes: .*prepared\.json has the classes liver, spleen, kidney"):
        configure(["--dataset", str(out), "--num_classes", "9"])
    with pytest.raises(UserError, match=r"--intensity ct: the images of .* already \(percentile, see prepared\.json\)"):
        configure(["--dataset", str(out), "--intensity", "ct"])
    assert configure(["--dataset", str(out), "--intensity", "auto"]).preprocess.intensity == "percentile"


def test_other_lists_are_taken_where_they_are_named(tmp_path):
    out = prepare(nnunet(tmp_path / "raw"), tmp_path / "out")
    shutil.copytree(out / "lists", tmp_path / "mine")
    first = read_list(out / "lists/train.txt")[:4]
    (tmp_path / "mine/train.txt").write_text("\n".join(first))
    cfg = configure(["--dataset", str(out), "--list_dir", str(tmp_path / "mine"), "--img_size", "32"])
    assert len(build_task(cfg).train_set) == 4
    assert cfg.preprocess.intensity == "percentile"


def test_msd_layout(tmp_path):
    raw = nnunet(
        tmp_path / "Task09_Spleen", labels={"0": "background", "1": "a", "2": "b", "3": "c"}, modality={"0": "CT"}
    )
    described = json.loads((raw / "dataset.json").read_text())
    del described["channel_names"]
    (raw / "dataset.json").write_text(json.dumps(described))
    for path in (raw / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
        path.with_name("._" + path.name).write_bytes(b"of macOS")
    out = prepare(raw, tmp_path / "out")
    assert read_prepared(out) == (("a", "b", "c"), "ct", "SPL")


def test_a_plain_folder_of_nifti_finds_its_classes(tmp_path):
    raw = nnunet(tmp_path / "raw")
    (raw / "dataset.json").unlink()
    shutil.rmtree(raw / "imagesTs")
    for old, new in (("imagesTr", "scans"), ("labelsTr", "segmentations")):
        (raw / old).rename(raw / new)
    for path in (raw / "segmentations").iterdir():
        label = sitk.ReadImage(str(path))
        sitk.WriteImage(
            sitk.ChangeLabel(label, changeMap={3: 7}), str(path.with_name(path.name.replace(".nii", "_seg.nii")))
        )
        path.unlink()
    out = prepare(raw, tmp_path / "out", "--intensity", "ct")
    assert read_prepared(out) == (("class 1", "class 2", "class 7"), "ct", "SPL")
    with h5py.File(out / f"test_vol_h5/{read_list(out / 'lists/test_vol.txt')[0]}.npy.h5") as file:
        assert set(np.unique(file["label"])) == {0, 1, 2, 3}


def test_labels_that_dataset_json_does_not_name_are_refused(tmp_path):
    raw = nnunet(tmp_path / "raw", labels={"background": 0, "liver": 1, "spleen": 2})
    with pytest.raises(UserError, match=r"6 of 6 cases failed(.|\n)*abd_00\.nii\.gz: found the labels 3 \(.* voxels\)"):
        prepare(raw, tmp_path / "out")


def test_files_of_four_dimensions_need_a_channel(tmp_path):
    raw = nnunet(tmp_path / "raw", stored=("LPS",), labels=MSD_LABELS)
    for number, path in enumerate(sorted((raw / "imagesTr").iterdir())):
        image, _ = draw(number)
        write_nifti(path, np.stack([image + 1000, image]))
    with pytest.raises(UserError, match=r"found 2 channels; give the one to use as --channel 0 to 1"):
        prepare(raw, tmp_path / "out")
    out = prepare(raw, tmp_path / "channel", "--channel", "1", "--intensity", "range")
    name = read_list(out / "lists/test_vol.txt")[0]
    with h5py.File(out / f"test_vol_h5/{name}.npy.h5") as file:
        np.testing.assert_allclose(file["image"], draw(int(name[-2:]))[0] / 32767, rtol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "nan"])
def test_a_file_of_four_dimensions_that_is_damaged_is_not_read_as_zero(tmp_path, damage):
    raw = nnunet(tmp_path / "raw", stored=("LPS",), labels=MSD_LABELS)
    for number, path in enumerate(sorted((raw / "imagesTr").iterdir())):
        image = np.stack([draw(number)[0].astype(np.float32)] * 2)
        image[1, 0, 0, 0] = np.nan if damage == "nan" else 0
        write_nifti(path.with_name(path.name.removesuffix(".gz")), image)
        path.unlink()
        if damage == "cut":
            whole = path.with_name(path.name.removesuffix(".gz"))
            whole.write_bytes(whole.read_bytes()[:-100])
    expected = {"cut": r"cannot be read as NIfTI \(found .* bytes where its header", "nan": "found 1 of .* not finite"}
    with pytest.raises(UserError, match=rf"6 of 6 cases failed(.|\n)*\.nii: {expected[damage]}"):
        prepare(raw, tmp_path / "out", "--channel", "1", "--intensity", "range")


def test_the_largest_volume_can_be_chosen_and_holds_in_every_process(tmp_path, monkeypatch):
    monkeypatch.setenv(files.LIMIT, str(files.MAX_IMAGE_BYTES))
    raw = nnunet(tmp_path / "raw", cases=2)
    with pytest.raises(UserError, match=r"2 of 2 cases failed(.|\n)*claims an image of .* --max_image_bytes"):
        prepare(raw, tmp_path / "out", "--workers", "1" + "0" * 30, "--max_image_bytes", "100")


def test_several_channels_as_files_need_a_choice(tmp_path):
    raw = nnunet(tmp_path / "raw")
    for path in sorted((raw / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    with pytest.raises(UserError, match=r"abd_00 has several channels .*give the one to use as --channel"):
        prepare(raw, tmp_path / "out")
    prepare(raw, tmp_path / "chosen", "--channel", "1")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("label", r"abd_02_0000\.nii\.gz: no label"),
        ("image", r"abd_02\.nii\.gz: no image"),
        ("regions", r"labels are .*expected one whole number a class"),
        ("geometry", r"abd_02_0000\.nii\.gz: the file does not say how its volume lies"),
    ],
)
def test_refusals(tmp_path, damage, expected):
    raw = nnunet(tmp_path / "raw", **({"labels": {"background": 0, "whole": [1, 2, 3]}} if damage == "regions" else {}))
    path = raw / "imagesTr/abd_02_0000.nii.gz"
    if damage == "label":
        (raw / "labelsTr/abd_02.nii.gz").unlink()
    elif damage == "image":
        path.unlink()
    elif damage == "geometry":
        path.unlink()
        path = path.with_name("abd_02_0000.nii")
        write_nifti(path, draw(2)[0])
        data = bytearray(path.read_bytes())
        data[252:256] = bytes(4)  # qform_code and sform_code
        path.write_bytes(data)
        expected = expected.replace("nii.gz".replace(".", r"\."), "nii")
    with pytest.raises(UserError, match=expected):
        prepare(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "cannot be read"),
        ('{"class_names": ["a"]}', r"found \['class_names'\]; expected class_names, intensity, orientation"),
        ('{"class_names": [], "intensity": "ct", "orientation": ""}', "class_names is"),
        ('{"class_names": ["a", "a"], "intensity": "ct", "orientation": ""}', "class_names is .*expected .*different"),
        (r'{"class_names": ["a\u001b[2J"], "intensity": "ct", "orientation": ""}', "expected .*without control"),
        ('{"class_names": ["a"], "intensity": "loud", "orientation": ""}', "intensity is 'loud'"),
        ('{"class_names": ["a"], "intensity": "ct", "orientation": "XYZ"}', "orientation"),
    ],
)
def test_a_prepared_json_that_is_wrong_stops_the_training(tmp_path, content, expected):
    out = prepare(nnunet(tmp_path / "raw"), tmp_path / "out")
    (out / "prepared.json").write_text(content)
    with pytest.raises(UserError, match=expected):
        configure(["--dataset", str(out)])


def test_prepared_is_what_was_written(tmp_path):
    from datasets.prepared import write_prepared

    made = Prepared(("foie", "reins é"), "percentile", "SLP")
    write_prepared(tmp_path, made)
    assert read_prepared(tmp_path) == made
    assert read_prepared(tmp_path / "nothing") is None
