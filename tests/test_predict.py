"""predict.py on real files: geometry, names, several files at once, what is written beside the masks."""

import csv
import os
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import predict
from datasets.files.image import read_image
from datasets.phantom.generate import draw_case
from datasets.phantom.organs import CLASS_NAMES, LIVER
from recipes import RECIPES
from tests.datasets.files.test_image import TURNS, with_exif
from tests.datasets.files.test_itk import write_series
from tests.support import places
from tests.support.toy_checkpoints import TOY, save_toy, toy_network
from utils.errors import UserError
from utils.inference import files
from utils.inference.orientation import turn
from utils.inference.segment import Segmented
from utils.log import logging_to
from utils.preprocess.intensities import normalise
from utils.preprocess.sizes import resize_image, resize_labels
from utils.scoring.metrics import dice, overlap

CT = places.SHARED / "data" / "ct_abdomen_3mm.nii.gz"
PICTURES = replace(RECIPES["cvc_clinicdb"], network=TOY, img_size=(32, 32))
ORGANS = replace(RECIPES["phantom"], network=TOY, img_size=(32, 32))
SYNAPSE = replace(RECIPES["synapse"], network=TOY, img_size=(32, 32))
RNG = np.random.default_rng(0)


@pytest.fixture
def polyps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_toy(tmp_path / "polyps.pth", monkeypatch, PICTURES, ["polyp"])


@pytest.fixture
def organs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_toy(tmp_path / "organs.pth", monkeypatch, SYNAPSE, CLASS_NAMES)


def segment(checkpoint, *words, out="masks", more=()):
    flags = ["--checkpoint", checkpoint, *more, "--device", "cpu", "--precision", "fp32", "--output_dir", out]
    predict.main([str(word) for word in [*flags, "--input", *words]])


def picture(path, *shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = cv2.resize(RNG.integers(0, 255, (4, 5, 3), np.uint8), shape[1::-1])
    cv2.imencode(path.suffix, array)[1].tofile(path)
    return path


def hounsfield(*shape):
    """Smooth values from -1000 to 1000."""
    coarse = RNG.integers(-1000, 1000, (3, 4, 5)).astype(np.float32)
    slices = np.stack([cv2.resize(one, shape[:0:-1], interpolation=cv2.INTER_CUBIC) for one in coarse])
    return np.repeat(slices, -(-shape[0] // 3), axis=0)[: shape[0]].clip(-1024, 2000).astype(np.int16)


def nifti(path, array, spacing=(0.5, 0.75, 2.5)):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-12.5, 30.25, 7.75))
    sitk.WriteImage(image, str(path))
    return path


def summary(folder):
    with (folder / "summary.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- orientation ----------------------------------------------------------------------------------


def assert_same_in_three_orientations(checkpoint, image, folder):
    """Predict `image` as it is and turned by SimpleITK; the masks lie where their files lie and are the same."""
    import SimpleITK as sitk

    masks = {}
    for name in ("RIA", "PIR", "LPS"):
        path = folder / f"{name}.nii.gz"
        sitk.WriteImage(sitk.DICOMOrient(image, name), str(path))
        segment(checkpoint, path)
        mask, file = sitk.ReadImage(str(folder / "masks" / f"{name}_mask.nii.gz")), sitk.ReadImage(str(path))
        for method in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(mask, method)() == pytest.approx(getattr(file, method)(), abs=1e-4)
        masks[name] = sitk.GetArrayFromImage(sitk.DICOMOrient(mask, "LPS"))
    assert np.array_equal(masks["RIA"], masks["LPS"])
    assert np.array_equal(masks["PIR"], masks["LPS"])
    return masks["LPS"]


def test_a_network_trained_on_the_phantom_finds_its_organs_in_any_orientation(tmp_path, monkeypatch):
    import SimpleITK as sitk

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    case, model = draw_case("case", (1,), 64, 16), toy_network(ORGANS)
    pre, size = ORGANS.preprocess, ORGANS.img_size
    images = torch.stack([torch.from_numpy(resize_image(s, size, pre))[None] for s in case.image])
    targets = torch.from_numpy(resize_labels(case.label, size, pre)).long()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(normalise(images, pre)), targets).backward()
        optimizer.step()
    file = sitk.GetImageFromArray(np.rint(case.image * 400 - 125 - 400 * (case.image == 0)).astype(np.int16))
    file.SetSpacing((4.0, 3.0, 9.0))
    checkpoint = save_toy(tmp_path / "net.pth", monkeypatch, ORGANS, CLASS_NAMES, model)
    mask = assert_same_in_three_orientations(checkpoint, file, tmp_path)
    truth = case.label == LIVER
    assert dice(overlap(mask == LIVER, truth)) > 0.6
    # the same network, when nobody knows how its training data lay, sees cuts that it has never seen
    unknown = replace(ORGANS, preprocess=replace(pre, orientation=""))
    blind = save_toy(tmp_path / "blind.pth", monkeypatch, unknown, CLASS_NAMES, model)
    segment(blind, tmp_path / "RIA.nii.gz", out="blind")
    wrong = sitk.DICOMOrient(sitk.ReadImage("blind/RIA_mask.nii.gz"), "LPS")
    assert dice(overlap(sitk.GetArrayFromImage(wrong) == LIVER, truth)) < 0.4


@pytest.mark.skipif(not CT.is_file(), reason="the real volume is not here")
def test_a_real_scan_in_three_orientations(organs, tmp_path):
    import SimpleITK as sitk

    image = sitk.Shrink(sitk.ReadImage(str(CT)), (2, 2, 4))
    assert len(np.unique(assert_same_in_three_orientations(organs, image, tmp_path))) > 2


def test_a_volume_is_not_taken_as_stored_in_silence(organs, tmp_path):
    np.save(tmp_path / "a.npy", hounsfield(4, 20, 24))
    with logging_to(tmp_path / "log.txt"):
        segment(organs, "a.npy", nifti(tmp_path / "b.nii", hounsfield(4, 20, 24)))
    said = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "warning: a.npy is taken as stored: it does not say how it lies (SLP)" in said
    assert said.count("taken as stored") == 1


def test_a_single_slice_of_another_direction_is_refused(organs, tmp_path):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(hounsfield(1, 20, 24))
    sitk.WriteImage(image, str(tmp_path / "axial.nii"))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))  # x to the back, y down, z to the left
    sitk.WriteImage(image, str(tmp_path / "sagittal.nii"))
    with pytest.raises(UserError, match=r"1 of 2 .*\n  sagittal\.nii: found one slice, .* towards LIP"):
        segment(organs, "axial.nii", "sagittal.nii")
    assert read_image("masks/axial_mask.nii.gz").array.shape == (1, 20, 24)


@pytest.mark.parametrize("array", [(4, 20, 1), (4, 1, 24)])
def test_a_thin_volume_that_no_turn_makes_a_slice_of_training_is_refused(organs, tmp_path, array):
    """A sagittal or a coronal slice whose file is stored slice by slice from below, as an axial volume is."""
    nifti(tmp_path / "thin.nii", hounsfield(4, 20, 24)[: array[0], : array[1], : array[2]])
    np.save(tmp_path / "thin.npy", hounsfield(4, 20, 24)[: array[0], : array[1], : array[2]])
    size = "x".join(map(str, array))
    with pytest.raises(UserError, match=rf"1 of 1 .*\n  thin\.nii: found one slice, {size} .* towards SPL, .* \(SLP\)"):
        segment(organs, "thin.nii")
    if array[2] > 1:  # else an array is a picture
        with pytest.raises(UserError, match=rf"thin\.npy: found one slice, {size} .* towards \?, .* \(SLP\)"):
            segment(organs, "thin.npy")


def test_a_volume_that_is_cut_across_its_thick_slices_gets_a_warning(organs, tmp_path):
    import SimpleITK as sitk

    axial, short = tmp_path / "axial.nii", tmp_path / "short_axis.nii"
    image = sitk.ReadImage(str(nifti(axial, hounsfield(6, 20, 24), (1.5, 1.4, 8))))
    x = np.array([0.7, 0.55, -0.455])
    z = np.array([0.8, -0.45, 0.4]) - x * (x @ (0.8, -0.45, 0.4)) / (x @ x)
    x, z = x / np.linalg.norm(x), z / np.linalg.norm(z)
    image.SetDirection(np.stack([x, np.cross(z, x), z], axis=1).ravel())
    sitk.WriteImage(image, str(short))
    with logging_to(tmp_path / "log.txt"):
        segment(organs, axial, short)
    said = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert said.count("across thick slices") == 1
    assert f"warning: {short} is cut across thick slices: turned to SLP as in training" in said
    assert "1.4 mm apart, pixels up to 8 mm" in said


def test_a_dicom_series_keeps_its_geometry(organs, tmp_path):
    import SimpleITK as sitk

    write_series(tmp_path / "series", hounsfield(4, 24, 28) // 2 * 2, "1.2.3.4", [10, 12.5, 15, 17.5])
    segment(organs, "series")
    mask = sitk.ReadImage("masks/series_mask.nii.gz")
    assert mask.GetSize() == (28, 24, 4)
    assert mask.GetOrigin() == pytest.approx((-12.5, 30.25, 10))
    assert mask.GetSpacing() == pytest.approx((0.5, 0.75, 2.5))
    assert mask.GetDirection() == pytest.approx(np.eye(3).ravel())


# --- files ----------------------------------------------------------------------------------------


def test_folders_are_searched_their_structure_kept_and_what_is_skipped_said(polyps, tmp_path):
    for name in ("in/x.jpg", "in/x.png", "in/deep/x.png", "in/deep/y.tif"):
        picture(tmp_path / name, 20, 24)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    with logging_to(tmp_path / "log.txt"):
        segment(polyps, "in", "--recursive")
    masks = sorted(path.relative_to(tmp_path / "masks").as_posix() for path in (tmp_path / "masks").rglob("*.png"))
    assert masks == ["deep/x_mask.png", "deep/y_mask.png", "x.jpg_mask.png", "x.png_mask.png"]
    assert "skipped:\n  in/notes.txt: no image of a known kind" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert sorted(row["mask"] for row in summary(tmp_path / "masks")) == masks


def test_bad_files_do_not_stop_the_rest_and_are_listed_with_their_reasons(polyps, tmp_path):
    picture(tmp_path / "good.png", 20, 24)
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        array = np.full((20, 24), 0.5, np.float32)
        array[3, 4] = value
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "four.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(UserError) as error:
        segment(polyps, "bad.png", "nan.npy", "inf.npy", "four.npy", "good.png")
    message = str(error.value)
    assert message.startswith("4 of 5 inputs were not segmented:\n  bad.png: ")
    assert "nan.npy: found 1 of 480 values that are not finite" in message
    assert "inf.npy: found 1 of 480 values that are not finite" in message
    assert "four.npy: found an array of shape (2, 3, 4, 5)" in message
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["good_mask.png", "summary.csv"]


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_mask_of_a_photograph_matches_it_as_viewers_show_it(polyps, tmp_path, orientation):
    photo = picture(tmp_path / "photo.jpg", 24, 40)
    upright = TURNS[orientation](cv2.imread(str(photo), cv2.IMREAD_UNCHANGED))
    cv2.imwrite(str(tmp_path / "upright.png"), upright)
    photo.write_bytes(with_exif(photo.read_bytes(), orientation))
    segment(polyps, "photo.jpg", "upright.png")
    masks = [cv2.imread(f"masks/{name}_mask.png", cv2.IMREAD_UNCHANGED) for name in ("photo", "upright")]
    assert masks[0].shape == upright.shape[:2]
    assert np.array_equal(*masks)
    assert 0 < (masks[0] > 0).mean() < 1


def test_the_pages_of_a_tiff_are_segmented_like_the_slices_of_a_volume(organs, tmp_path):
    pages = RNG.integers(0, 255, (3, 20, 24), np.uint8)
    cv2.imencodemulti(".tif", list(pages))[1].tofile(tmp_path / "stack.tif")
    np.save(tmp_path / "same.npy", pages)
    segment(organs, "stack.tif", "same.npy", "--intensity", "range")
    assert np.array_equal(read_image("masks/stack_mask.tif").array, np.load("masks/same_mask.npy"))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_nrrd_and_metaimage_are_segmented_like_nifti(organs, tmp_path, suffix):
    array = hounsfield(4, 20, 24)
    segment(organs, nifti(tmp_path / f"a{suffix}", array), nifti(tmp_path / "b.nii", array))
    one, other = (read_image(f"masks/{name}_mask.nii.gz") for name in "ab")
    assert np.array_equal(one.array, other.array)
    assert (one.spacing, one.meta) == (other.spacing, other.meta)


# --- what is written beside the masks ---------------------------------------------------------------


def test_the_summary_has_sizes_and_keeps_rows_of_other_masks(organs, polyps, tmp_path):
    segment(organs, nifti(tmp_path / "scan.nii", hounsfield(4, 20, 24)))
    mask = read_image("masks/scan_mask.nii.gz").array
    rows = summary(tmp_path / "masks")
    assert [row["class"] for row in rows] == list(CLASS_NAMES)
    for row in rows:
        voxels = int((mask == int(row["label"])).sum())
        assert (int(row["pixels"]), row["area_mm2"]) == (voxels, "")
        assert float(row["volume_ml"]) == pytest.approx(voxels * 0.5 * 0.75 * 2.5 / 1000, rel=1e-4)
    segment(polyps, picture(tmp_path / "a.png", 20, 24))
    assert summary(tmp_path / "masks")[:-1] == rows
    (last,) = summary(tmp_path / "masks")[8:]
    assert (last["mask"], last["class"], last["area_mm2"], last["volume_ml"]) == ("a_mask.png", "polyp", "", "")
    segment(polyps, "a.png", "--force")
    assert len(summary(tmp_path / "masks")) == 9


def test_names_that_a_spreadsheet_would_run_come_back_from_the_summary(polyps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("=a.png", "b.png", "=a.png"):
        segment(polyps, picture(tmp_path / name, 20, 24), "--force")
    assert [row["mask"] for row in summary(tmp_path / "masks")] == ["b_mask.png", "'=a_mask.png"]
    rows = files.read_summary(tmp_path / "masks" / "summary.csv")
    assert [row["mask"] for row in rows] == ["b_mask.png", "=a_mask.png"]


@pytest.mark.parametrize("line", ["1,2", ",".join("12345678901"), '"' + "1" * 200_000])
def test_a_damaged_summary_is_refused_before_anything_is_written(polyps, tmp_path, line):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "summary.csv").write_text(",".join(files.COLUMNS) + f"\n{line}\n")
    with pytest.raises(UserError, match=r"summary\.csv: cannot be read .*move it elsewhere"):
        segment(polyps, picture(tmp_path / "a.png", 20, 24))
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["summary.csv"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_name_that_is_not_utf8_gets_a_mask_and_its_row(polyps, tmp_path):
    segment(polyps, picture(tmp_path / os.fsdecode(b"\xff.png"), 20, 24))
    assert os.fsencode(next((tmp_path / "masks").glob("*.png")).name) == b"\xff_mask.png"
    assert [row["mask"] for row in summary(tmp_path / "masks")] == ["\\udcff_mask.png"]


def test_another_file_in_the_place_of_the_summary_is_kept(polyps, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "summary.csv").write_text("my,own\n1,2\n")
    with pytest.raises(UserError, match=r"summary\.csv: found another file of this name"):
        segment(polyps, picture(tmp_path / "a.png", 20, 24), "--force")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["summary.csv"]


@pytest.mark.parametrize("kind", ["picture", "volume"])
def test_probabilities_are_those_of_the_mask(organs, polyps, tmp_path, kind):
    source = (
        picture(tmp_path / "a.png", 20, 24) if kind == "picture" else nifti(tmp_path / "a.nii", hounsfield(4, 20, 24))
    )
    segment(polyps if kind == "picture" else organs, source, "--probabilities")
    with np.load("masks/a_probabilities.npz") as file:
        found, classes = file["probabilities"], file["classes"].tolist()
        assert ("spacing" in file.files) == (kind == "volume")
    if kind == "picture":
        assert (found.shape, classes) == ((1, 20, 24), ["polyp"])
        expected = (found[0] >= 0.5) * 255
    else:
        assert (found.shape, classes) == ((9, 4, 20, 24), ["background", *CLASS_NAMES])
        assert np.abs(found.astype(np.float32).sum(0) - 1).max() < 0.01
        expected = found.argmax(0)
    mask = read_image(next((tmp_path / "masks").glob("a_mask.*"))).array
    assert (mask == expected).mean() > 0.99  # but for ties in half precision


def test_overlays(organs, polyps, tmp_path):
    segment(polyps, picture(tmp_path / "a.png", 20, 24), "--overlay")
    assert cv2.imread("masks/a_overlay.png").shape[:2] == (520, 624)
    segment(organs, nifti(tmp_path / "scan.nii", hounsfield(4, 20, 24)), "--overlay")
    assert cv2.imread("masks/scan_overlay.png").shape[0] > 1000


@pytest.mark.parametrize("stored", ["SPL", "SAR", "IRP", "PIL", "LIP"])
def test_overlays_of_volumes_are_drawn_as_a_radiologist_sees_them(tmp_path, monkeypatch, stored):
    seen = []
    monkeypatch.setattr(files, "contact_sheet", lambda unit, mask, *rest: seen.append((unit, mask)) or unit[0])
    monkeypatch.setattr(files, "save_overlay", lambda path, picture: None)
    upright = np.random.default_rng(0).random((3, 4, 5))  # as on a screen: axial, coronal or sagittal
    on_screen = {"S": "SPL", "I": "IPL", "P": "PIL", "L": "LIP"}[stored[0]]
    array = turn(upright, on_screen, stored)
    files.save_picture(tmp_path / "a", Segmented(array > 0.5, array, None), ["liver"], stored)
    files.save_picture(tmp_path / "a", Segmented(array > 0.5, array, None), ["liver"], "")
    np.testing.assert_array_equal(seen[0][0], upright)
    np.testing.assert_array_equal(seen[0][1], upright > 0.5)
    np.testing.assert_array_equal(seen[1][0], array)


def test_overlays_of_volumes_have_their_aspect_and_a_bounded_size(tmp_path):
    """Stored PIR, 7.7 mm from row to row: coronal cuts of 60 x 200 voxels, 462 x 250 mm; no cut beyond 1,024 pixels."""
    unit, mask = np.zeros((8, 60, 200), np.float32), np.zeros((8, 60, 200), np.uint8)
    mask[:, 10:40, 50:100] = 1
    files.save_picture(tmp_path / "a", Segmented(mask, unit, None), ["liver"], "PIR", (1.25, 7.7, 1.25))
    sheet = cv2.imread(str(tmp_path / "a_overlay.png"))
    assert sheet.shape[1] < 2000
    rows, columns = np.nonzero((sheet[22:900, : sheet.shape[1] // 3] == (233, 180, 86)).all(-1))
    assert (np.ptp(rows) / np.ptp(columns)) == pytest.approx(30 * 7.7 / (50 * 1.25), rel=0.02)


def test_clean_up_of_masks(polyps, tmp_path):
    source = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)  # many parts, whatever ran before
    cv2.imwrite(str(source), cv2.resize(noise, (80, 60)))
    segment(polyps, source)
    segment(polyps, source, "--keep_largest", "--fill_holes", out="clean")
    before, after = summary(tmp_path / "masks")[0], summary(tmp_path / "clean")[0]
    assert int(before["components"]) > int(after["components"]) == 1
    assert int(after["pixels"]) >= int(before["largest_component"])


def test_several_checkpoints_are_averaged(polyps, tmp_path):
    source = picture(tmp_path / "a.png", 20, 24)
    segment(polyps, source, more=[polyps])
    segment(polyps, source, out="one")
    assert np.array_equal(cv2.imread("masks/a_mask.png"), cv2.imread("one/a_mask.png"))
