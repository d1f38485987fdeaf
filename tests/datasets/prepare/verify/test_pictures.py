"""verify on pictures: a clean folder passes; each thing that breaks a training is found, and found alone."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.images.make_split import split_dataset
from datasets.prepare.verify.duplicates import alike, sketch
from prepare_data import main
from tests.datasets.files.test_image import with_exif
from utils.errors import UserError
from utils.log import _Terminal, logging_to


def blobs(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A picture (H, W, 3) of its own: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def data(tmp_path) -> Path:
    """20 pictures and masks, split by group: patient a to e."""
    root = tmp_path / "data"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(20):
        name = f"{'abcde'[number // 4]}_{number:02d}.png"
        cv2.imwrite(str(root / "images" / name), blobs(number))
        mask = np.zeros((60, 80), np.uint8)
        mask[10:40, 20 : 30 + number] = 255
        cv2.imwrite(str(root / "masks" / name), mask)
    split_dataset(root, 0.8, group_by="^[a-e]")
    csv = (root / "test_train_data.csv").read_text().splitlines()
    (root / "test_train_data.csv").write_text("\n".join([*csv, ""]))
    return root


def verify(data: Path, *flags: str) -> tuple[int, list[tuple[str, str]]]:
    """The exit code and (level, kind) of every finding."""
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(data), *flags])
    report = json.loads((data / "verify.json").read_text())
    page = (data / "verify.html").read_text()
    assert all(found["kind"] in page for found in report["findings"])
    return stopped.value.code, sorted({(found["level"], found["kind"]) for found in report["findings"]})


def regroup(data: Path) -> None:
    """The split without its groups, so that a finding is not one of groups, too."""
    path = data / "test_train_data.csv"
    path.write_text("\n".join(",".join(line.split(",")[:2]) for line in path.read_text().splitlines()) + "\n")


def part_of(data: Path, part: str) -> list[str]:
    lines = (data / "test_train_data.csv").read_text().splitlines()[1:]
    return [line.split(",")[0] for line in lines if line.split(",")[1] == part]


def test_a_clean_folder(data):
    assert verify(data) == (0, [])


def change_image(data, change):
    path = data / "images" / part_of(data, "train")[0]
    cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def change_mask(data, change):
    path = data / "masks" / part_of(data, "train")[0]
    cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def copy_across(data, change=lambda image: image):
    train, test = (data / "images" / part_of(data, part)[0] for part in ("train", "test"))
    cv2.imwrite(str(test), change(cv2.imread(str(train))))


def float_image_with_nan(data):
    path = data / "images" / part_of(data, "train")[0]
    image = blobs(0).astype(np.float32) / 255
    image[3, 4] = np.nan
    path.unlink()
    cv2.imwrite(str(path.with_suffix(".tif")), image)


def several_classes(data):
    def change(mask):
        mask[20:30, 25:29] = 128
        return mask

    change_mask(data, change)


def shade(data):
    def change(mask):
        mask[50, 70:75] = 7
        return mask

    change_mask(data, change)


def other_part(data, name, part):
    path = data / "test_train_data.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{name},{part},{name[0]}" if line.startswith(name) else line for line in lines) + "\n")


def cut_folds(data):
    path = data / "test_train_data.csv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{head},fold", *(f"{line},{k % 2}" for k, line in enumerate(lines)), ""]))


DAMAGES = {
    "no mask": (lambda d: (d / "masks/a_00.png").unlink(), "files that do not pair"),
    "cut image": (lambda d: (d / "images/a_00.png").write_bytes(b"\x89PNG cut"), "unreadable"),
    "cut mask": (lambda d: (d / "masks/a_00.png").write_bytes(b""), "unreadable"),
    "size": (lambda d: change_mask(d, lambda m: m[:-1]), "sizes that differ"),
    "constant": (lambda d: change_image(d, lambda i: i * 0 + 7), "constant images"),
    "NaN": (float_image_with_nan, "values that are not finite"),
    "classes": (several_classes, "masks that are not binary"),
    "no split": (lambda d: (d / "test_train_data.csv").unlink(), "the split"),
    "unknown id": (
        lambda d: (d / "test_train_data.csv").open("a").write("z_99.png,train,z\n"),
        "the split",
    ),
    "group": (lambda d: other_part(d, part_of(d, "train")[0], "test"), "patients or videos in several parts"),
    "fold": (cut_folds, "patients or videos in several folds"),
    "copy": (copy_across, "images alike in different parts"),
    "darker copy": (lambda d: copy_across(d, lambda i: (i * 0.6).astype(np.uint8)), "images alike in different parts"),
    "small copy": (
        lambda d: copy_across(d, lambda i: cv2.GaussianBlur(i, (0, 0), 1)),
        "images alike in different parts",
    ),
}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("name", DAMAGES)
def test_what_breaks_a_training_is_an_error(data, name):
    damage, kind = DAMAGES[name]
    damage(data)
    code, found = verify(data)
    assert code == 1
    assert [item for item in found if item[0] == "error"] == [("error", kind)]


def swapped(data):
    """One photograph in the place of a mask, as JPEG."""
    name = part_of(data, "train")[0]
    (data / "masks" / name).unlink()
    cv2.imwrite(str(data / "masks" / Path(name).with_suffix(".jpg")), blobs(99))


def turned(data):
    """One image whose viewer turns it upside down."""
    name = part_of(data, "train")[0]
    path = data / "images" / Path(name).with_suffix(".jpg")
    path.write_bytes(with_exif(cv2.imencode(".jpg", cv2.imread(str(data / "images" / name)))[1].tobytes(), 3))
    (data / "images" / name).unlink()


NOTES = {
    "turned": (turned, "images with an EXIF orientation"),
    "swapped": (swapped, "masks like photographs"),
    "empty": (lambda d: change_mask(d, lambda m: m * 0), "masks without foreground"),
    "shade": (shade, "masks of more than two values"),
    "no groups": (regroup, "no groups"),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_is_unusual_is_a_note(data, name):
    damage, kind = NOTES[name]
    damage(data)
    assert verify(data) == (0, [("note", kind)])


def test_signed_images_are_an_error_with_its_remedy(data):
    path = data / "images" / part_of(data, "train")[0]
    path.unlink()
    cv2.imwrite(str(path.with_suffix(".tif")), blobs(0)[..., 0].astype(np.int16) - 100)
    assert verify(data) == (1, [("error", "unreadable")])
    text = json.loads((data / "verify.json").read_text())["findings"][0]["text"]
    assert "found int16 values from -" in text
    assert "for images give --intensity to train.py (ct for HU, else percentile)" in text


def test_images_in_no_part_are_a_note(data):
    path = data / "test_train_data.csv"
    name = part_of(data, "train")[0]
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(name)) + "\n")
    assert verify(data) == (0, [("note", "images in no part")])


def test_masks_without_any_foreground_are_an_error(data):
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((60, 80), np.uint8))
    code, found = verify(data)
    assert code == 1
    assert ("error", "classes that no mask shows") in found


def test_many_labels_are_no_empty_masks(data):
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((20, 20))).astype(np.uint8)
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), labels)
    assert ("error", "masks that are not binary") in verify(data)[1]
    assert "values 1 in" in (data / "verify.html").read_text()


def test_one_dark_value_is_a_class_to_name(data):
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.minimum(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 100))
    assert ("error", "masks that are not binary") in verify(data)[1]
    assert "values 100 in 20 of 20 masks" in (data / "verify.html").read_text()


def test_several_classes_in_jpeg_are_an_error_with_and_without_a_table(data):
    name = part_of(data, "train")[0]
    path = data / "masks" / Path(name).with_suffix(".jpg")
    (data / "masks" / name).unlink()
    mask = np.repeat(np.array([0, 85, 170], np.uint8), 20)[:, None].repeat(80, 1)
    cv2.imwrite(str(path), mask)
    assert verify(data) == (1, [("error", "masks that are not binary")])
    assert "JPEG changes values: export the masks as PNG" in (data / "verify.html").read_text()
    levels = {0, 255, *np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).tolist()}
    classes = [{"name": str(level), "value": level} for level in sorted(levels)]
    (data / "classes.json").write_text(json.dumps({"classes": classes}))
    assert ("error", "unreadable") in verify(data)[1]
    assert "JPEG changes values: export the masks as PNG" in (data / "verify.html").read_text()


def test_classes_of_a_table(data):
    table = [{"name": n, "value": v} for n, v in (("background", 0), ("lesion", 255), ("vessel", 85))]
    (data / "classes.json").write_text(json.dumps({"classes": table}))
    assert verify(data) == (1, [("error", "classes that no mask shows")])
    change_mask(data, lambda mask: np.where(mask > 0, 85, 0).astype(np.uint8))
    assert verify(data) == (0, [])
    change_mask(data, lambda mask: mask // 5)
    assert verify(data)[1][0] == ("error", "classes that no mask shows")
    assert ("error", "unreadable") in verify(data)[1]


def test_findings_name_the_files_and_the_page_shows_them(data):
    copy_across(data)
    main_code, _ = verify(data)
    report = json.loads((data / "verify.json").read_text())
    (found,) = report["findings"]
    assert main_code == 1
    assert all(part_of(data, part)[0] in found["where"] for part in ("train", "test"))
    page = (data / "verify.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_names_of_files_are_escaped_on_the_page(data):
    for folder in ("images", "masks"):
        path = data / folder / "a_00.png"
        path.rename(path.with_name("<img src=x onerror=alert(1)>.png"))
    cv2.imwrite(str(data / "images/<img src=x onerror=alert(1)>.png"), np.zeros((60, 80, 3), np.uint8))
    verify(data)
    page = (data / "verify.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_results_can_go_elsewhere(data, tmp_path):
    before = sorted(path.name for path in data.iterdir())
    with pytest.raises(SystemExit):
        main(["verify", str(data), "--output_dir", str(tmp_path / "out")])
    assert sorted(path.name for path in data.iterdir()) == before
    assert (tmp_path / "out/verify.html").is_file()


@pytest.mark.parametrize(
    ("flags", "expected"), [([], r"found nothing; expected train_npz/"), (["--list_dir", "x"], "found nothing")]
)
def test_a_folder_of_neither_layout(tmp_path, flags, expected):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=expected):
        main(["verify", str(tmp_path / "empty"), *flags])
    with pytest.raises(UserError, match="no such folder"):
        main(["verify", str(tmp_path / "nothing")])


def test_lists_are_not_for_pictures(data):
    with pytest.raises(UserError, match=r"--list_dir x: .* holds pictures"):
        main(["verify", str(data), "--list_dir", "x"])


def test_alike_compares_every_pair_once_over_blocks():
    """2,500 sketches are compared in blocks; the copies among them are found, and only these."""
    rng = np.random.default_rng(0)
    sketches = np.stack([sketch(rng.integers(0, 255, (8, 8)).astype(np.uint8)) for _ in range(2500)])
    parts = np.zeros(2500, int)
    for first, second in ((3, 2400), (1100, 1500), (2, 5)):
        sketches[second] = sketches[first] + rng.normal(0, 1, (32, 32))
    parts[[2400, 1500]] = 1
    assert [(i, j) for i, j, _ in alike(sketches, parts, 10, 0.97)] == [(3, 2400), (1100, 1500)]


def test_a_file_changed_since_it_was_prepared_is_an_error(data, tmp_path):
    target = tmp_path / "prepared"
    main(["folder", str(data / "images"), str(data / "masks"), str(target), "--copy", "--workers", "1"])
    regroup(target)
    assert ("error", "manifest") not in verify(target)[1]
    mask = target / "masks/a_00.png"
    pixels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] = 255
    cv2.imwrite(str(mask), pixels)
    assert ("error", "manifest") in verify(target)[1]
    found = json.loads((target / "verify.json").read_text())["findings"]
    assert [one["where"] for one in found if one["kind"] == "manifest"] == ["masks/a_00.png"]


def test_the_terminal_names_the_columns_and_counts_one_as_one(data, capsys):
    with logging_to(_Terminal()):
        verify(data)
    text = capsys.readouterr().out
    assert "parts (part, images): test 4; train 16" in text
    assert "split (test_train_data.csv): 16 train + 4 test images" in text
    assert "nothing is wrong; 0 notes" in text
    cv2.imwrite(str(data / "images" / part_of(data, "train")[0]), np.zeros((60, 80, 3), np.uint8))
    with logging_to(_Terminal()):
        verify(data)
    assert "1 error; 0 notes" in capsys.readouterr().out
    assert "1 error." in (data / "verify.html").read_text()
