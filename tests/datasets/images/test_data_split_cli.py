"""data_split_csv.py as a user runs it: the file it writes, the counts it prints, what it refuses."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import data_split_csv
from datasets.images.split import read_split
from tests.support.commands import command
from utils.errors import UserError


@pytest.fixture
def dataset(tmp_path) -> Path:
    picture = cv2.imencode(".png", np.zeros((2, 2), np.uint8))[1].tobytes()
    for folder, ending in (("images", ""), ("masks", "_segmentation")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "data" / folder / f"case{number // 4}_{number:02d}{ending}.png").write_bytes(picture)
    return tmp_path / "data"


def test_the_command_of_the_readme(dataset):
    printed = command("data_split_csv.py", "--dataset", "data", "--size", "0.9", cwd=dataset.parent)
    assert "18 train + 2 test images, split by image" in printed
    path = dataset / "test_train_data.csv"
    assert str(Path("data") / "test_train_data.csv") in printed
    assert path.read_text(encoding="utf-8").startswith("image_id,category\ncase0_00.png,")
    assert len(read_split(path)) == 20
    again = command("data_split_csv.py", "--dataset", "data", "--size", "0.5", cwd=dataset.parent, expect=2)
    assert again.startswith("error: data/test_train_data.csv: exists already; give --force")
    assert sum(row.category == "train" for row in read_split(path)) == 18


def test_every_option_does_what_it_says(dataset, tmp_path, capsys):
    def split(*args: str) -> list:
        data_split_csv.main(["--dataset", str(dataset / "images"), "--output", str(output), "--force", *args])
        return read_split(output)

    output = tmp_path / "own.csv"
    plain = split()
    assert sum(row.category == "train" for row in plain) == 18  # 0.9 unless told otherwise
    assert sum(row.category == "train" for row in split("--size", "0.5")) == 10
    assert split("--seed", "1234") == plain != split("--seed", "5")
    grouped = split("--size", "0.8", "--group-by", "case[0-9]", "--folds", "2")
    assert {row.group for row in grouped} == {f"case{number}" for number in range(5)}
    assert len({(row.group, row.category, row.fold) for row in grouped}) == 5
    assert "folds of the training part: 8 + 8 images" in capsys.readouterr().out
    assert [row.group for row in split("--group-cuts", "3,11")][::4] == ["scene001"] + ["scene002"] * 2 + [
        "scene003"
    ] * 2
    assert not (dataset / "test_train_data.csv").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--size", "1.5"], "--size 1.5"),
        (["--size", "0"], "--size 0"),
        (["--size", "nan"], "--size nan"),
        (["--size", "90%"], "--size 90%"),
        (["--group-by", "patient"], "finds nothing in 20 names"),
        (["--group-cuts", "3;5"], "--group-cuts 3;5"),
        (["--group-cuts", "3", "--group-by", "c"], "found both"),
        (["--folds", "30"], "--folds 30"),
        (["--folds", "0"], "--folds 0"),
        (["--output", "nowhere/a.csv"], "there is no folder"),
    ],
)
def test_refusals_write_nothing(dataset, args, words):
    with pytest.raises(UserError) as error:
        data_split_csv.main(["--dataset", str(dataset), *args])
    assert words in str(error.value)
    assert sorted(item.name for item in dataset.iterdir()) == ["images", "masks"]


def test_a_missing_folder_an_unpaired_image_and_a_misspelt_flag(dataset):
    with pytest.raises(UserError, match="no such folder"):
        data_split_csv.main(["--dataset", str(dataset / "none"), "--size", "0.9"])
    (dataset / "masks" / "case0_00_segmentation.png").unlink()
    with pytest.raises(UserError, match=r"images/case0_00\.png: no mask"):
        data_split_csv.main(["--dataset", str(dataset), "--size", "0.9"])
    (dataset / "test_train_data.csv").write_text("kept")
    with pytest.raises(UserError, match="exists already"):  # said before the images are looked at
        data_split_csv.main(["--dataset", str(dataset), "--size", "0.9"])
    assert (dataset / "test_train_data.csv").read_text(encoding="utf-8") == "kept"
    with pytest.raises(SystemExit) as stop:
        data_split_csv.main(["--dataset", str(dataset), "--sise", "0.9"])
    assert stop.value.code == 2
