"""The parts of a CSV: validation beside folds, tests of another data set, masks that are all empty, warnings."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from isic_polyp_rectal.evaluation import evaluate
from isic_polyp_rectal.task import ISIC2018, build_task, num_folds
from tests.support.trees import write_picture_tree
from utils.errors import UserError
from utils.results.page.build import write_report
from utils.results.page.frames import Album
from utils.results.summary import describe_result


@pytest.fixture
def tree(tmp_path):
    return write_picture_tree(tmp_path / "data", num_images=6)


def split(root, categories):
    lines = [f"{index:03d}.jpg,{category}" for index, category in enumerate(categories.split())]
    (root / "test_train_data.csv").write_text("\n".join(["image_id,category", *lines]) + "\n")
    return replace(ISIC2018, root_path=str(root), img_size=(40, 48), batch_size=4)


def bright(images):
    return images.mean(1, keepdim=True) - 0.3


def test_images_of_the_category_val_validate(tree):
    cfg = split(tree, "train train val val val test")
    task = build_task(cfg)
    assert (len(task.train_set), len(task.validate.images)) == (2, 3)
    assert "its part val for validation" in task.split
    assert "3 for validation" in task.found[-1]
    rows, words = evaluate(replace(cfg, split="val"), bright, torch.device("cpu"), ("lesion",), tree)
    assert [row["case"] for row in rows] == ["002.jpg", "003.jpg", "004.jpg"]
    assert words.startswith("validation part (2 train + 3 val + 1 test images")
    rows, _ = evaluate(replace(cfg, split="train"), bright, torch.device("cpu"), ("lesion",), tree)
    assert [row["case"] for row in rows] == ["000.jpg", "001.jpg"]
    with pytest.raises(UserError, match="--fold 1: the CSV has images of the category val"):
        build_task(replace(cfg, fold="1"))
    with pytest.raises(UserError, match=r"--fold all: .*leave --fold out, or the category val"):
        num_folds(cfg)
    other = build_task(split(tree, "train train val val test test"))
    assert other.split_sha256 != task.split_sha256


def test_rows_have_the_group_of_the_csv(tree):
    cfg = split(tree, "train test test")
    rows, _ = evaluate(cfg, bright, torch.device("cpu"), ("lesion",), tree)
    assert [row["group"] for row in rows] == ["", ""]
    lines = ["image_id,category,group", "000.jpg,train,a", "001.jpg,test,b", "002.jpg,test,c"]
    (tree / "test_train_data.csv").write_text("\n".join(lines) + "\n")
    rows, _ = evaluate(cfg, bright, torch.device("cpu"), ("lesion",), tree)
    assert [(row["case"], row["group"]) for row in rows] == [("001.jpg", "b"), ("002.jpg", "c")]
    assert list(rows[0])[:3] == ["case", "group", "class"]


def test_another_data_set_of_test_images_alone_can_be_tested(tree):
    cfg = split(tree, "test test test")
    rows, words = evaluate(cfg, bright, torch.device("cpu"), ("lesion",), tree)
    assert (len(rows), words.split(";")[0]) == (3, "test part (3 test images")
    for part in ("train", "val"):
        with pytest.raises(UserError, match=f"--split {part}: the CSV has 3 test images"):
            evaluate(replace(cfg, split=part), bright, torch.device("cpu"), ("lesion",), tree)
    with pytest.raises(UserError, match="no image of the category train"):
        build_task(cfg)


def test_a_test_of_other_images_does_not_replace_results(tree, tmp_path):
    (tmp_path / "cases.csv").write_text("case,class,outcome,dice\n000.jpg,lesion,found,1\n")
    cfg = split(tree, "test test train")
    with pytest.raises(UserError, match=r"results of other cases \(1 case, now 2, in common 1\)"):
        evaluate(cfg, bright, torch.device("cpu"), ("lesion",), tmp_path)
    rows, _ = evaluate(replace(cfg, force=True), bright, torch.device("cpu"), ("lesion",), tmp_path)
    assert len(rows) == 2


def test_fewer_training_images_than_folds_hinder_a_training_but_no_test(tree):
    cfg = split(tree, "train train test")
    rows, _ = evaluate(cfg, bright, torch.device("cpu"), ("lesion",), tree)
    assert len(rows) == 1
    with pytest.raises(UserError, match="--folds 5: expected 2 to 2"):
        build_task(cfg)


def test_a_split_without_a_test_part_trains(tree):
    cfg = split(tree, "train train train val val val")
    assert len(build_task(cfg).train_set) == 3
    with pytest.raises(UserError, match="--select test: the CSV has no image of the category test"):
        build_task(replace(cfg, select="test"))
    with pytest.raises(UserError, match="--split test: the CSV has 3 train"):
        evaluate(cfg, bright, torch.device("cpu"), ("lesion",), tree)


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_a_test_part_whose_masks_are_all_empty_is_counted_and_reported(tree, tmp_path, protocol):
    import cv2

    cfg, album = replace(split(tree, "train train train train test test"), protocol=protocol), Album()
    for index in (4, 5):
        cv2.imwrite(str(tree / "masks" / f"{index:03d}.png"), np.zeros((40, 48), np.uint8))
    rows, words = evaluate(cfg, lambda x: -torch.ones_like(x[:, :1]), torch.device("cpu"), ("lesion",), tree, album)
    assert [row["outcome"] for row in rows] == ["absent", "absent"]
    assert all(math.isnan(row["dice"]) if protocol == "standard" else row["dice"] == 1 for row in rows)
    origin = {"file": "a.pth", "sha256": "0", "selection": "last", "split": "", "epoch": 1, "seed": 1}
    summary = write_report(tmp_path / "out", rows, describe_result(cfg, "fp32", [origin], words), album.cases, [])
    assert summary["overall"]["absent"] == 2
    assert summary["overall"]["metrics"]["dice"]["left_out"] == (2 if protocol == "standard" else 0)
    rows, _ = evaluate(cfg, lambda x: torch.ones_like(x[:, :1]), torch.device("cpu"), ("lesion",), tree)
    assert [row["outcome"] for row in rows] == ["false_positive", "false_positive"]


def test_few_images_for_validation_are_a_warning(tree):
    for categories, words in (("train train train val test", "one image"), ("train train val val test", "2 images")):
        found = "\n".join(build_task(split(tree, categories)).found)
        assert f"warning: {words} for validation" in found
    assert "warning" not in "\n".join(build_task(split(tree, "train train val val val test")).found)
