"""Splits and folds: sizes, seeds, groups; reading any CSV; every mistake in it named."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from datasets.images.folds import assign_folds, choose_training, groups_by_cuts, groups_by_pattern
from datasets.images.make_split import make_rows
from datasets.images.pairs import Pair
from datasets.images.split import Row, Split, check_output, describe, load_split, read_split, write_split
from utils.errors import UserError


def names(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{number:04d}.png" for number in range(count)]


def pairs_of(ids: list[str]) -> list[Pair]:
    return [Pair(name, Path("images") / name, Path("masks") / name) for name in ids]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# --- dividing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "train", "folds"),
    [
        (612, 0.9, 551, 9),
        (2594, 0.9, 2335, 5),
        (860, 0.9, 774, 9),
        (10, 0.99, 9, 3),
        (10, 0.01, 1, None),
        (3, 0.5, 2, 2),
    ],
)
def test_sizes_of_parts_and_folds(count, size, train, folds):
    rows = make_rows(names(count), size, 1234, num_folds=folds)
    assert [row.image_id for row in rows] == names(count)
    assert Counter(row.category for row in rows) == {"train": train, "test": count - train}
    assert all((row.fold is None) == (row.category == "test" or folds is None) for row in rows)
    if folds:
        sizes = Counter(row.fold for row in rows if row.category == "train")
        assert sorted(sizes) == list(range(folds))
        assert max(sizes.values()) - min(sizes.values()) <= 1
        assert sizes[0] == train // folds  # 612: 490 / 61 / 61 with fold 0 as in the published recipe


def test_a_seed_means_one_split_everywhere():
    ids = names(8)
    assert choose_training(ids, 0.5, 1234) == [False, False, False, True, False, True, True, True]
    assert assign_folds(ids, 3, 1234) == [1, 0, 0, 2, 2, 2, 1, 1]


def test_neither_order_nor_file_type_changes_a_split_but_the_seed_does():
    ids = names(100)
    train, folds = choose_training(ids, 0.7, 1), assign_folds(ids, 4, 1)
    assert choose_training(ids[::-1], 0.7, 1)[::-1] == train
    assert assign_folds(ids[::-1], 4, 1)[::-1] == folds
    assert choose_training([name.replace("png", "jpg") for name in ids], 0.7, 1) == train
    assert choose_training(ids, 0.7, 2) != train
    assert assign_folds(ids, 4, 2) != folds
    test = [not t for t in choose_training(ids, 0.75, 1)]
    assert test != [fold == 0 for fold in folds]  # two draws, not one


def test_groups_never_straddle_parts_or_folds():
    groups = [
        f"case{number:02d}"
        for number, length in enumerate([1, 9, 4, 4, 30, 2, 2, 7, 8, 8, 3, 22])
        for _ in range(length)
    ]
    ids = [f"{group}_{number}.png" for number, group in enumerate(groups)]
    for seed in range(20):
        rows = make_rows(ids, 0.8, seed, groups, num_folds=4)
        parts = defaultdict(set)
        for row in rows:
            parts[row.group].add((row.category, row.fold))
        assert all(len(part) == 1 for part in parts.values())
        assert 12 <= Counter(row.category for row in rows)["test"] <= 20  # of 100, as far as whole groups fit
        folds = Counter(row.fold for row in rows if row.fold is not None)
        assert sorted(folds) == [0, 1, 2, 3]
        assert "split by group" in describe(rows)
    assert assign_folds(names(40), 2, 0, ["big"] * 20 + ["a"] * 10 + ["b"] * 10) in (
        [0] * 20 + [1] * 20,
        [1] * 20 + [0] * 20,
    )
    assert (
        choose_training(names(6), 0.9, 0, ["a"] * 4 + ["b"] * 2) == [True] * 4 + [False] * 2
    )  # none fits: the smallest


def test_what_cannot_be_divided():
    with pytest.raises(UserError, match="found 1 image,"):
        choose_training(["a"], 0.9, 0)
    with pytest.raises(UserError, match="the one group 'g'"):
        choose_training(["a", "b"], 0.9, 0, ["g", "g"])
    with pytest.raises(UserError, match="--folds 4: expected 2 to 3, the number of training groups"):
        assign_folds(names(9), 4, 0, list("aaabbbccc"))
    with pytest.raises(UserError, match=r"--folds 5: found 1 training image, too few .* category val"):
        assign_folds(names(1), 5, 0)
    with pytest.raises(UserError, match=r"--folds 5: found 1 training group, too few .* category val"):
        assign_folds(names(9), 5, 0, ["a"] * 9)
    with pytest.raises(UserError, match="--folds 1: expected 2 to 9, the number of training images"):
        assign_folds(names(9), 1, 0)


def test_groups_from_names():
    ids = ["case086_slice1.png", "case7_slice2.png"]
    assert groups_by_pattern(ids, r"case\d+") == ["case086", "case7"]
    assert groups_by_pattern(ids, r"case(\d+)_") == ["086", "7"]
    with pytest.raises(UserError, match=r"finds nothing in 1 name:\n  x\.png"):
        groups_by_pattern([*ids, "x.png"], r"case(\d+)")
    with pytest.raises(UserError, match="no regular expression"):
        groups_by_pattern(ids, "(")
    scenes = groups_by_cuts(["1.png", "cvc2_025.jpg", "026.png", "50.tif", "51.tif"], [25, 50])
    assert scenes == ["scene001", "scene001", "scene002", "scene002", "scene003"]
    with pytest.raises(UserError, match=r"no number in:\n  x\.png"):
        groups_by_cuts(["x.png"], [3])


# --- the file ----------------------------------------------------------------------------------


def test_rows_come_back_as_written(tmp_path):
    path = tmp_path / "a.csv"
    plain = [Row("a.png", "train"), Row("é,;.png", "test")]
    write_split(path, plain)
    assert path.read_text(encoding="utf-8") == 'image_id,category\na.png,train\n"é,;.png",test\n'
    assert read_split(path) == plain
    full = [Row("a.png", "train", 1, "g"), Row("b.png", "train", 0, "h"), Row("c.png", "test", None, "k")]
    with pytest.raises(UserError, match="exists already; give --force"):
        check_output(path, force=False)
    assert read_split(path) == plain
    write_split(path, full)
    assert path.read_text(encoding="utf-8").splitlines()[:2] == ["image_id,category,group,fold", "a.png,train,g,1"]
    assert read_split(path) == full
    assert [item.name for item in tmp_path.iterdir()] == ["a.csv"]
    with pytest.raises(UserError, match="there is no folder"):
        check_output(tmp_path / "no" / "a.csv", force=False)
    with pytest.raises(UserError, match="is a folder"):
        check_output(tmp_path, force=True)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("image_id,category\na.png,train\nb.png,test\n", "utf-8-sig"),
        ("image_id,category\r\na.png,train\r\nb.png,test", "utf-8"),
        ("image_id;category\na.png;train\nb.png;test\n", "utf-8"),
        ("image_id\tcategory\r\na.png\ttrain\r\nb.png\ttest\r\n", "utf-8-sig"),
        ("\n,Category,note, Image_ID \n0,Train ,x;y, a.png\n\n1, TEST,,b.png\n,,,\n", "utf-8"),
        ('"image_id","category"\n"a.png","train"\n"b.png","test"\n', "utf-8"),
    ],
)
def test_csv_files_of_many_hands(tmp_path, text, encoding):
    assert read_split(write(tmp_path / "a.csv", text, encoding)) == [Row("a.png", "train"), Row("b.png", "test")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found the columns []"),
        ("\n \n", "found the columns []"),
        ("image_id,category\n", "found no line below the header"),
        ("image,category\na,train\n", "found the columns ['image', 'category']"),
        ("image_id,image_id,category\na,a,train\n", "once each"),
        ("image_id,category\na,train\nb,valid\n", "b: category 'valid', expected train, val or test"),
        ("image_id,category\na,train\nb\n", "b: category '', expected train, val or test"),
        ("image_id,category\na,train\n,test\n", "a line of category 'test' without an image_id"),
        ("category,image_id\ntrain,a\ntest\n", "a line of category 'test' without an image_id"),
        ("image_id,category\na.png,train\nimages/a.jpg,train\n", "images/a.jpg: twice in train"),
        ("image_id,category\na,train\na.png,test\n", "a.png: in train and test"),
        ("image_id,category,fold\na,train,x\n", "a: fold 'x', expected a number from 0"),
        ("image_id,category,fold\na,train,-1\n", "a: fold '-1', expected a number from 0"),
        ("image_id,category,group\na,train,g\nb,test,\n", "b: no group, expected one in every line or in none"),
    ],
)
def test_mistakes_in_a_csv_are_named(tmp_path, text, words):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(UserError) as error:
        read_split(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_all_mistakes_are_listed_and_unreadable_files_named(tmp_path):
    path = write(tmp_path / "a.csv", "image_id,category\na,x\nb,train\nb,test\nc,y\n")
    with pytest.raises(UserError) as error:
        read_split(path)
    assert len(str(error.value).splitlines()) == 4
    with pytest.raises(UserError, match=r"none\.csv: cannot be read .*make one with data_split_csv\.py"):
        read_split(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"cannot be read .*utf-8.*save it as CSV UTF-8"):
        read_split(write(path, "image_id,category\né,train\n", "utf-16"))


# --- files of a split ----------------------------------------------------------------------------


def test_ids_find_their_files_with_or_without_folder_and_suffix(tmp_path):
    path = write(tmp_path / "a.csv", "image_id,category\ndata/images/b,train\nc\\a.JPG,train\nc.v1.png,test\n")
    pairs = pairs_of(["a.png", "b.jpg", "c.v1.tif", "unused.png"])
    split = load_split(path, pairs)
    assert [pair.image_id for pair in split.train] == ["b.jpg", "a.png"]
    assert [pair.image_id for pair in split.test] == ["c.v1.tif"]
    assert split.folds is None
    assert split.description.startswith("2 train + 1 test images, split by image")
    assert "not in the CSV and so not used: 1 image of the folder" in split.description


def test_ids_without_a_file(tmp_path):
    path = write(tmp_path / "a.csv", "image_id,category\na,train\nx,train\ny,test\n")
    with pytest.raises(UserError, match=r"no image for 2 of 3 ids.*\n  x\n  y$"):
        load_split(path, pairs_of(["a.png"]))


def test_a_part_may_be_empty_and_a_part_for_validation_takes_the_place_of_folds(tmp_path):
    path = write(tmp_path / "a.csv", "image_id,category,group\na,test,1\n")
    split = load_split(path, pairs_of(["a.png"]), num_folds=5)
    assert (len(split.train), len(split.val), len(split.test)) == (0, 0, 1)
    assert (split.folds, split.description) == (None, "1 test image")
    path = write(tmp_path / "a.csv", "image_id,category,group\na,train,1\nb,Val,2\nc,val,2\n")
    split = load_split(path, pairs_of(["a.png", "b.png", "c.png"]), num_folds=5)
    assert [pair.image_id for pair in split.val] == ["b.png", "c.png"]
    assert (split.folds, split.test) == (None, [])
    assert split.description == "1 train + 2 val images, split by group: 1 + 1 groups, none in both parts"
    path = write(tmp_path / "a.csv", "image_id,category,group\na,train,1\nb,val,2\nc,test,2\n")
    split = load_split(path, pairs_of(["a.png", "b.png", "c.png"]))
    assert split.description == "1 train + 1 val + 1 test images, split by image: 1 group in several parts"
    path = write(tmp_path / "a.csv", "image_id,category,fold\na,train,0\nb,train,1\nc,val,\n")
    with pytest.raises(UserError, match="found the category val and the column fold"):
        load_split(path, pairs_of(["a.png", "b.png", "c.png"]))


def test_folds_are_drawn_by_group_unless_the_file_has_them(tmp_path):
    path = tmp_path / "a.csv"
    ids = [f"g{number % 5}_{number}.png" for number in range(20)]
    rows = [Row(name, "train" if name[1] != "4" else "test", None, name[:2]) for name in ids]
    write_split(path, rows)
    split = load_split(path, pairs_of(ids), num_folds=2, seed=7)
    assert len({(pair.image_id[:2], fold) for pair, fold in zip(split.train, split.folds)}) == 4
    words = "16 train + 4 test images, split by group: 4 + 1 groups, none in both parts"
    assert split.description == f"{words}; folds by group"
    write_split(path, [row._replace(group=None) for row in rows])
    split = load_split(path, pairs_of(ids), num_folds=2, seed=7)
    assert Counter(split.folds) == {0: 8, 1: 8}
    assert split.folds == assign_folds([row.image_id for row in rows if row.category == "train"], 2, 7)
    given = [row._replace(fold=None if row.category == "test" else int(row.image_id[1]) % 3) for row in rows]
    write_split(path, given)
    split = load_split(path, pairs_of(ids), num_folds=2, seed=7)
    assert split.folds == [row.fold for row in given if row.category == "train"]
    write_split(path, [row._replace(group=None) for row in given])
    description = load_split(path, pairs_of(ids)).description
    assert description.endswith("split by image: patients or videos may be in both parts; folds by image")


def test_a_fold_validates_and_the_others_train():
    train = pairs_of(list("abcd"))
    split = Split(train, [], [], [1, 0, 1, 0], "")
    assert split.fold(1) == ([train[1], train[3]], [train[0], train[2]])
    with pytest.raises(UserError, match="--fold 2: expected 0 to 1, or all"):
        split.fold(2)


@pytest.mark.parametrize("folds", [["0", "2"], ["0", ""], ["1", "2"], ["0", "0"]])
def test_a_fold_column_with_gaps_is_refused(tmp_path, folds):
    text = f"image_id,category,fold\na,train,{folds[0]}\nb,train,{folds[1]}\nc,test,\n"
    with pytest.raises(UserError, match="column fold: found"):
        load_split(write(tmp_path / "a.csv", text), pairs_of(list("abc")))
