"""ISIC, CVC, rectal CT and any folder of pictures -> images/, masks/, a split that train.py reads, and classes.json."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from datasets.images.classes import find_classes
from datasets.images.make_split import split_dataset
from datasets.images.split import read_split
from datasets.prepare.cvc import CUTS
from datasets.prepare.rectal import PUBLISHED
from datasets.prepared import read_prepared
from prepare_data import main
from tests.support.places import SHARED
from tests.support.raw_btcv import zip_folder
from tests.support.trees import write_picture_tree
from train import configure
from utils.errors import UserError
from utils.log import _Terminal, logging_to


def rows_of(target: Path):
    return read_split(target / "test_train_data.csv")


def write_pair(image: Path, mask: Path, seed: int, mask_values: np.ndarray | None = None) -> None:
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cv2.imwrite(str(image), rng.integers(0, 255, (20, 24, 3), dtype=np.uint8))
    square = np.zeros((20, 24), np.uint8)
    square[5:15, 4 : 8 + seed % 10] = 255
    cv2.imwrite(str(mask), square if mask_values is None else mask_values)


# --- ISIC-2018 ----------------------------------------------------------------------------------

INPUT, TRUTH = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"


@pytest.fixture
def isic(tmp_path) -> Path:
    root = tmp_path / "isic"
    for number in range(10):
        name = f"ISIC_{number:07d}"
        write_pair(root / INPUT / f"{name}.jpg", root / TRUTH / f"{name}_segmentation.png", number)
    (root / INPUT / "ATTRIBUTION.txt").write_text("of the archive")
    (root / INPUT / "ISIC_0000000_superpixels.png").write_bytes(b"not an image to train on")
    return root


def test_isic_has_the_split_that_data_split_csv_makes(isic, tmp_path):
    main(["isic", str(isic / INPUT), str(isic / TRUTH), str(tmp_path / "out"), "--workers", "1"])
    assert len(list((tmp_path / "out/images").iterdir())) == 10
    split_dataset(tmp_path / "out", 0.9, output=tmp_path / "expected.csv")
    assert rows_of(tmp_path / "out") == read_split(tmp_path / "expected.csv")


def test_isic_from_archives_and_without_the_other_parts(isic, tmp_path):
    archives = [zip_folder(isic / name, tmp_path / f"{name}.zip", name) for name in (INPUT, TRUTH)]
    write_pair(isic / "ISIC2018_Task1-2_Validation_Input/ISIC_0099999.jpg", tmp_path / "x.png", 1)
    main(["isic", str(isic), str(tmp_path / "folders"), "--workers", "1"])
    main(["isic", *map(str, archives), str(tmp_path / "zips"), "--workers", "1"])
    manifests = [json.loads((tmp_path / kind / "manifest.json").read_text()) for kind in ("folders", "zips")]
    assert manifests[0]["sha256"] == manifests[1]["sha256"]
    assert "ISIC_0099999" not in manifests[0]["cases"]


def test_isic_below_a_folder_of_any_name(isic, tmp_path):
    below = shutil.copytree(isic, tmp_path / "my_test_data")
    main(["isic", str(below / INPUT), str(below / TRUTH), str(tmp_path / "out"), "--workers", "1"])
    assert len(list((tmp_path / "out/images").iterdir())) == 10


def test_isic_without_a_mask(isic, tmp_path):
    (isic / TRUTH / "ISIC_0000004_segmentation.png").unlink()
    with pytest.raises(UserError, match=r"ISIC_0000004\.jpg: no mask(.|\n)*challenge\.isic-archive\.com"):
        main(["isic", str(isic), str(tmp_path / "out")])


# --- CVC-ClinicDB -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cvc(tmp_path_factory) -> Path:
    """The first 130 frames: six videos and the start of a seventh."""
    root = tmp_path_factory.mktemp("cvc") / "CVC-ClinicDB"
    for number in range(1, 131):
        write_pair(root / f"Original/{number}.tif", root / f"Ground Truth/{number}.tif", number)
    return root


def test_cvc_by_image_says_which_video_a_frame_is_of(cvc, tmp_path):
    main(["cvc", str(cvc), str(tmp_path / "out"), "--workers", "1"])
    rows = rows_of(tmp_path / "out")
    group = {row.image_id: row.group for row in rows}
    assert group["25.tif"] == group["1.tif"] != group["26.tif"]
    assert group["126.tif"] != group["127.tif"]
    assert sum(row.category == "train" for row in rows) == 117
    split_dataset(tmp_path / "out", 0.9, output=tmp_path / "expected.csv")
    assert [row._replace(group=None) for row in rows] == read_split(tmp_path / "expected.csv")


def test_cvc_by_video_keeps_videos_whole(cvc, tmp_path):
    main(["cvc", str(cvc), str(tmp_path / "out"), "--workers", "1", "--split", "video"])
    rows = rows_of(tmp_path / "out")
    parts = [{row.group for row in rows if row.category == part} for part in ("train", "test")]
    assert all(parts)
    assert not parts[0] & parts[1]


def test_cvc_in_both_formats_uses_the_png_files(cvc, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(cvc, both / "TIF")
    for number in range(1, 4):
        write_pair(both / f"PNG/Original/{number}.png", both / f"PNG/Ground Truth/{number}.png", number)
    main(["cvc", str(both), str(tmp_path / "out"), "--workers", "1"])
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == ["1.png", "2.png", "3.png"]


def test_cvc_has_29_videos():
    assert len(CUTS) == 28
    assert list(CUTS) == sorted(set(CUTS))
    assert "`datasets/prepare/cvc.py` (`CUTS`)" in (PUBLISHED.parent / "README.md").read_text(encoding="utf-8")


def test_cvc_without_its_folders_says_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"0 in Ground Truth/(.|\n)*polyp\.grand-challenge\.org"):
        main(["cvc", str(write_picture_tree(tmp_path / "tree")), str(tmp_path / "out")])


# --- rectal CT ----------------------------------------------------------------------------------


def write_dicom(path: Path, hu: np.ndarray, z: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(hu[None].astype(np.int16))
    image.SetSpacing((0.7, 0.7, 5.0))
    image.SetOrigin((0, 0, z))
    for tag, value in {"0008|0060": "CT", "0028|1052": "0", "0028|1053": "1"}.items():
        image.SetMetaData(tag, value)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def rectal(tmp_path) -> Path:
    """Patients 1002 and 1099: five slices each, two of them with tumour."""
    root = tmp_path / "rectal"
    for patient in (1002, 1099):
        rng = np.random.default_rng(patient)
        for number in range(13, 18):
            stem = root / f"case{patient}" / f"100{number}"
            write_dicom(stem.with_suffix(".dcm"), rng.integers(-200, 400, (30, 40)), 5.0 * number)
            mask = np.zeros((30, 40), np.uint8)
            mask[3:9, 20:35] = 255 * (number in (14, 15))
            cv2.imwrite(f"{stem}_mask.png", mask)
    return root


def test_rectal_slices_with_tumour_in_the_published_split(rectal, tmp_path):
    main(["rectal", str(rectal), str(tmp_path / "out"), "--workers", "1"])
    names = sorted(path.name for path in (tmp_path / "out/images").iterdir())
    assert names == [f"case{p}_slice100{n}.png" for p in ("002", "099") for n in (14, 15)]
    hu = sitk.GetArrayFromImage(sitk.ReadImage(str(rectal / "case1002/10014.dcm")))[0].astype(float)
    picture = cv2.imread(str(tmp_path / "out/images/case002_slice10014.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(picture, np.rint((np.clip(hu, -125, 275) + 125) / 400 * 255))
    mask = cv2.imread(str(tmp_path / "out/masks/case002_slice10014.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(np.argwhere(mask == 255).min(axis=0), (3, 20))
    published = {row.image_id: row.category for row in read_split(PUBLISHED)}
    rows = rows_of(tmp_path / "out")
    assert {row.image_id: row.category for row in rows} == {n: published[n] for n in names if n in published}
    assert {row.group for row in rows} <= {"case002", "case099"}
    assert read_prepared(tmp_path / "out") == (("tumour",), "ct", "SPL")
    with pytest.raises(UserError, match=r"--intensity range: the images of .* have theirs already"):
        configure(["--dataset", str(tmp_path / "out"), "--recipe", "rectal", "--intensity", "range"])


def test_rectal_by_patient(rectal, tmp_path):
    main(["rectal", str(rectal), str(tmp_path / "out"), "--workers", "1", "--split", "patient", "--window=-100,200"])
    rows = rows_of(tmp_path / "out")
    assert len({(row.group, row.category) for row in rows}) == 2
    assert read_prepared(tmp_path / "out").intensity == "unknown"


def test_rectal_slices_of_another_phase_are_left_out(rectal, tmp_path):
    main(["rectal", str(rectal), str(tmp_path / "out"), "--workers", "1"])
    shutil.copy(rectal / "case1002/10014.dcm", rectal / "case1002/20014.dcm")
    shutil.copy(rectal / "case1002/10014_mask.png", rectal / "case1002/20014_mask.png")
    main(["rectal", str(rectal), str(tmp_path / "both"), "--workers", "1"])
    assert (tmp_path / "out/manifest.json").read_bytes() == (tmp_path / "both/manifest.json").read_bytes()


def test_rectal_patients_may_be_links(rectal, tmp_path):
    (tmp_path / "links").mkdir()
    for folder in sorted(rectal.iterdir()):
        (tmp_path / "links" / folder.name).symlink_to(folder)
    for source, out in ((rectal, "a"), (tmp_path / "links", "b")):
        main(["rectal", str(source), str(tmp_path / out), "--workers", "1"])
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_no_files_at_all_are_said_without_an_empty_list(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"found 0 DICOM slices, .*1\.\.\.\.dcm\); expected a folder .*case1002") as e:
        main(["rectal", str(tmp_path / "empty"), str(tmp_path / "out")])
    assert "cannot be used" not in str(e.value)


@pytest.mark.parametrize(
    ("change", "flags", "expected"),
    [
        ("mask", [], r"10014\.dcm: no mask 10014_mask\.png"),
        ("size", [], r"10014_mask\.png: found a mask of \(10, 10\); its slice has \(30, 40\)"),
        (None, ["--window=275,-125"], "--window 275,-125: expected two numbers"),
        (None, ["--window=wide"], "--window wide: expected two numbers"),
    ],
)
def test_rectal_refusals(rectal, tmp_path, change, flags, expected):
    mask = rectal / "case1002/10014_mask.png"
    if change == "mask":
        mask.unlink()
    elif change == "size":
        cv2.imwrite(str(mask), np.full((10, 10), 255, np.uint8))
    with pytest.raises(UserError, match=expected):
        main(["rectal", str(rectal), str(tmp_path / "out"), "--workers", "1", *flags])


@pytest.mark.skipif(not (SHARED / "data/rectal_case1002.tar.xz").is_file(), reason="the real case is not here")
def test_the_real_rectal_case(tmp_path):
    import tarfile

    with tarfile.open(SHARED / "data/rectal_case1002.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    main(["rectal", str(tmp_path / "rectal_case1002"), str(tmp_path / "out"), "--workers", "1"])
    expected = [f"case002_slice{number}.png" for number in range(10013, 10019)]
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == expected
    assert sorted(row.image_id for row in rows_of(tmp_path / "out")) == expected
    published = [row.image_id for row in read_split(PUBLISHED) if row.image_id.startswith("case002_")]
    assert sorted(published) == expected


# --- any folder ---------------------------------------------------------------------------------


def folder_of(tmp_path: Path, masks: list[np.ndarray], names=("photos", "annotations")) -> Path:
    root = tmp_path / "mine"
    for number, mask in enumerate(masks):
        write_pair(root / names[0] / f"{number:03d}.jpg", root / names[1] / f"{number:03d}_gt.png", number, mask)
    return root


def several(*values: int) -> list[np.ndarray]:
    masks = []
    for number in range(10):
        mask = np.full((20, 24), values[0], np.uint8)
        for k, value in enumerate(values[1:]):
            mask[2:18, 2 + 7 * k : 7 + 7 * k] = value
        masks.append(np.roll(mask, number % 3, axis=1))
    return masks


def test_a_folder_of_one_class(tmp_path):
    root = folder_of(tmp_path, several(0, 255))
    main(["folder", str(root), str(tmp_path / "out"), "--workers", "1", "--size", "0.8"])
    assert find_classes(tmp_path / "out") is None
    assert sum(row.category == "train" for row in rows_of(tmp_path / "out")) == 8
    assert configure(["--dataset", str(tmp_path / "out")]).num_classes == 1


@pytest.mark.parametrize("values", [(0, 1, 2, 3), (0, 85, 170, 255)])
def test_a_folder_of_several_classes_trains_as_such(tmp_path, values):
    root = folder_of(tmp_path, several(*values))
    main(["folder", str(root / "photos"), str(root / "annotations"), str(tmp_path / "out"), "--workers", "1"])
    assert find_classes(tmp_path / "out").values == values
    assert configure(["--dataset", str(tmp_path / "out")]).num_classes == 4


def test_pictures_of_a_group_stay_together(tmp_path):
    root = folder_of(tmp_path, several(0, 255))
    main(["folder", str(root), str(tmp_path / "out"), "--workers", "1", "--size", "0.5", "--group-by", "00([0-9])"])
    assert [row.group for row in rows_of(tmp_path / "out")] == [str(number) for number in range(10)]
    for path in sorted(root.rglob("*.*")):
        path.rename(path.with_name(f"p{int(path.name[:3]) % 4}_{path.name}"))
    main(["folder", str(root), str(tmp_path / "b"), "--workers", "1", "--size", "0.5", "--group-by", "p[0-9]"])
    rows = rows_of(tmp_path / "b")
    assert {row.group for row in rows} == {"p0", "p1", "p2", "p3"}
    assert len({(row.group, row.category) for row in rows}) == 4
    with pytest.raises(UserError, match="finds nothing in 10 names"):
        main(["folder", str(root), str(tmp_path / "c"), "--workers", "1", "--group-by", "q"])


def test_masks_like_photographs_are_warned_of(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48), np.uint8)
    for masks, said in (([noise] * 10, True), (several(0, 255), False)):
        root = folder_of(tmp_path / str(said), masks)
        with logging_to(tmp_path / f"{said}.txt"):
            main(["folder", str(root), str(tmp_path / f"out {said}"), "--workers", "1", "--dry-run"])
        logged = (tmp_path / f"{said}.txt").read_text(encoding="utf-8")
        assert ("warning: 10 masks grey in more than a tenth of the pixels, as photographs are" in logged) == said


def test_a_folder_whose_one_value_is_dark_trains(tmp_path):
    root = folder_of(tmp_path, several(0, 100))
    main(["folder", str(root), str(tmp_path / "out"), "--workers", "1"])
    assert find_classes(tmp_path / "out").values == (0, 100)
    cfg = configure(["--dataset", str(tmp_path / "out")])
    assert (cfg.num_classes, cfg.class_names) == (1, ("class 1",))


@pytest.mark.parametrize(
    ("mask", "suffix", "expected"),
    [
        (
            several(0, 85, 170, 255)[0],
            ".jpg",
            "masks: expected one value a class.*JPEG changes values: export the masks",
        ),
        (
            np.zeros((20, 24), np.uint8),
            ".png",
            "masks: expected one value a class.*no value above half the range in 10",
        ),
        (
            np.dstack([several(0, 0, 0)[0]] * 3 + several(0, 255)[:1]),
            ".png",
            r"(?s)10 of 10 .*009_gt\.png: found the shape",
        ),
    ],
)
def test_masks_that_cannot_train_are_refused_and_nothing_is_written(tmp_path, mask, suffix, expected):
    root = folder_of(tmp_path, [mask] * 10)
    for path in (root / "annotations").iterdir():
        cv2.imwrite(str(path.with_suffix(suffix)), np.kron(mask, np.ones((8, 8, 1)[: mask.ndim], np.uint8)))
        if suffix != path.suffix:
            path.unlink()
    with pytest.raises(UserError, match=expected):
        main(["folder", str(root), str(tmp_path / "out"), "--workers", "1"])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_colours(tmp_path):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
    masks = [colours[mask][..., ::-1] for mask in several(0, 1, 2)]
    root = folder_of(tmp_path, masks)
    given = "background:#000000,vessel:#ff0000,nerve:#0000ff"
    main(["folder", str(root), str(tmp_path / "out"), "--workers", "1", "--label_colours", given])
    assert find_classes(tmp_path / "out").names == ("background", "vessel", "nerve")
    main(["folder", str(root), str(tmp_path / "found"), "--workers", "1"])
    assert set(find_classes(tmp_path / "found").values) == {"#000000", "#ff0000", "#0000ff"}


def test_names_that_the_user_gave_to_the_classes_are_kept(tmp_path):
    root = folder_of(tmp_path, several(0, 1, 2))
    command = ["folder", str(root), str(tmp_path / "out"), "--workers", "1"]
    main(command)
    path = tmp_path / "out/classes.json"
    path.write_text(path.read_text().replace("class 2", "nerve"))
    main(command)
    assert find_classes(tmp_path / "out").names[2] == "nerve"


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("a", "b"), "cannot tell which of a and b"), (("masks", "labels"), "cannot tell which of")],
)
def test_folders_whose_names_say_nothing(tmp_path, names, expected):
    root = folder_of(tmp_path, several(0, 255), names)
    with pytest.raises(UserError, match=expected):
        main(["folder", str(root), str(tmp_path / "out")])


def test_a_third_folder_is_refused(tmp_path):
    root = folder_of(tmp_path, several(0, 255))
    shutil.copytree(root / "photos", root / "more")
    with pytest.raises(UserError, match=r"found files in 3 folders \(annotations, more, photos\)"):
        main(["folder", str(root), str(tmp_path / "out")])


def test_results_of_predict_beside_the_images_are_left_out(tmp_path, capsys):
    root = folder_of(tmp_path, several(0, 255))
    for result in ("000_mask.png", "001_overlay.png"):
        cv2.imwrite(str(root / "photos" / result), several(0, 255)[0])
    with logging_to(_Terminal()):
        main(["folder", str(root), str(tmp_path / "out"), "--workers", "1"])
    assert len(list((tmp_path / "out/images").iterdir())) == 10
    assert "left out, as made by predict.py: 000_mask.png" in capsys.readouterr().out
