"""Groups in a split: folds by group or by image, and what a report says of either."""

from collections import Counter
from pathlib import Path

from datasets.images.folds import assign_folds
from datasets.images.make_split import make_rows
from datasets.images.pairs import Pair
from datasets.images.split import Row, describe, load_split, read_split, write_split
from tests.support.places import ROOT

RECTAL = ROOT / "isic_polyp_rectal" / "splits" / "rectal.csv"


def names(count: int) -> list[str]:
    return [f"{number:04d}.png" for number in range(count)]


def pairs_of(ids: list[str]) -> list[Pair]:
    return [Pair(name, Path("images") / name, Path("masks") / name) for name in ids]


def test_a_split_says_which_groups_leak():
    rows = [Row("a", "train", None, "g"), Row("b", "test", None, "g"), Row("c", "train", None, "h")]
    assert describe(rows) == "2 train + 1 test images, split by image: 1 group in both parts"


def test_groups_of_a_split_by_image_are_written_down_and_no_more(tmp_path):
    """Folds are drawn as without the column, and the description says so."""
    ids = names(20)
    rows = make_rows(ids, 0.8, 3)
    write_split(tmp_path / "plain.csv", rows)
    write_split(tmp_path / "grouped.csv", [row._replace(group=f"v{k // 10}") for k, row in enumerate(rows)])
    plain, grouped = (load_split(tmp_path / f"{name}.csv", pairs_of(ids), 4) for name in ("plain", "grouped"))
    assert Counter(grouped.folds) == {0: 4, 1: 4, 2: 4, 3: 4}
    assert grouped.folds == plain.folds
    words = "split by image: 2 groups in both parts; folds by image: 2 groups in several folds"
    assert grouped.description == f"16 train + 4 test images, {words}"


def test_folds_that_cut_groups_are_counted():
    """Frames of three videos, their fold the number modulo 5; the folds of test images mean nothing."""
    rows = [Row(name, "train", k % 5, f"v{k // 6}") for k, name in enumerate(names(12))]
    rows += [Row(f"t{k}", "test", k % 5, "v9") for k in range(6)]
    words = "split by group: 2 + 1 groups, none in both parts; folds by image: 2 groups in several folds"
    assert describe(rows) == f"12 train + 6 test images, {words}"
    some = [row._replace(fold=None) if k < 5 else row for k, row in enumerate(rows)]
    assert describe(some).endswith("folds by image: 1 group in several folds")
    assert describe([row._replace(fold=int(row.group[1]) % 2) for row in rows]).endswith("parts; folds by group")


def test_the_released_rectal_split():
    rows = read_split(RECTAL)
    assert Counter(row.category for row in rows) == {"train": 774, "test": 86}
    train = [row.image_id for row in rows if row.category == "train"]
    assert Counter(assign_folds(train, 9, 1234)) == dict.fromkeys(range(9), 86)


def test_the_released_rectal_split_with_its_patients_has_the_same_folds(tmp_path):
    """As `prepare_data.py rectal` writes it."""
    rows = read_split(RECTAL)
    write_split(tmp_path / "a.csv", [row._replace(group=row.image_id.partition("_")[0]) for row in rows])
    split = load_split(tmp_path / "a.csv", pairs_of([row.image_id for row in rows]), 9)
    train = [row.image_id for row in rows if row.category == "train"]
    assert split.folds == assign_folds(train, 9, 1234)
    assert "split by image: 59 groups in both parts; folds by image" in split.description
