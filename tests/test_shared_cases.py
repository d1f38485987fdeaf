"""Ranks share the cases of test.py and of the folds of `--fold all`: the results are those of one process."""

import csv
import json
from dataclasses import replace
from unittest import mock

import pytest
import torch

import test as test_script
from isic_polyp_rectal import cross_validation
from models import build_model
from recipes import RECIPES
from tests.support.shallow import SMALL
from tests.support.strict_group import under_torchrun
from tests.support.trees import write_picture_tree, write_synapse_tree
from utils import checkpoint
from utils.config import to_dict
from utils.training.folder import BEST


def save_network(path, cfg):
    torch.manual_seed(0)
    state = {"format": "heteromedseg", "model": build_model(cfg.num_classes, **SMALL).state_dict()}
    names = [f"class {k}" for k in range(1, max(cfg.num_classes, 2))]
    config = to_dict(replace(cfg, **SMALL))
    checkpoint.save(path, state | {"config": config, "class_names": names, "selection": "last", "epoch": 1})


def run_test(*flags):
    """Test; returns how often this process wrote the report."""
    torch.set_num_threads(1)
    with mock.patch.object(test_script, "write_report", side_effect=test_script.write_report) as write:
        test_script.main([*map(str, flags), "--device", "cpu", "--precision", "fp32", "--debug"])
    return write.call_count


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["volumes", "images"])
def test_a_test_of_two_ranks_gives_the_results_of_one_process(tmp_path, kind):
    """Five volumes; nine images in batches of two, of which rank 0 has three and rank 1 two. All files are alike."""
    tree = tmp_path / "data"
    if kind == "volumes":
        write_synapse_tree(tree, num_cases=5, slices=2, size=32)
        cfg = replace(RECIPES["synapse"], root_path=str(tree), list_dir=str(tree / "lists"), img_size=(32, 32))
        flags = ["--split", "train", "--is_savenii"]
    else:
        write_picture_tree(tree, num_images=9)
        (tree / "split.csv").write_text("image_id,category\n" + "".join(f"{k:03d}.jpg,test\n" for k in range(9)))
        cfg = replace(RECIPES["isic2018"], root_path=str(tree), csvfile=str(tree / "split.csv"), img_size=(32, 32))
        flags = []
    save_network(tmp_path / "net.pth", cfg)
    flags += ["--checkpoint", tmp_path / "net.pth", "--batch_size", 2, "--output_dir"]
    run_test(*flags, tmp_path / "one")
    assert under_torchrun(2, run_test, *flags, tmp_path / "two") == [1, 0]
    one, two = files_in(tmp_path / "one"), files_in(tmp_path / "two")
    assert {path for path in one if one[path] != two.get(path)} == set()
    assert len(two) == len(one) == 3 + (5 * 4 if kind == "volumes" else 9)


def score_finished_folds(folder, tree):
    """Call `--fold all` with nothing left to train; returns how often this process wrote the report."""
    torch.set_num_threads(1)
    cfg = replace(RECIPES["isic2018"], root_path=str(tree), csvfile=str(tree / "split.csv"), img_size=(32, 32))
    cfg = replace(cfg, folds=2, fold="all", batch_size=2, device="cpu", output_dir=str(folder), num_classes=3, **SMALL)
    for fold in range(2):
        if not (folder / f"fold_{fold}" / BEST).exists():
            save_network(folder / f"fold_{fold}" / BEST, replace(cfg, fold=str(fold)))
    original = cross_validation.write_report
    with (
        mock.patch.object(cross_validation, "plan", return_value=None),
        mock.patch.object(cross_validation, "write_report", side_effect=original) as write,
    ):
        cross_validation.train_folds(cfg, pytest.fail)
    return write.call_count


def test_two_ranks_score_finished_folds_as_one_process_does(tmp_path):
    tree = write_picture_tree(tmp_path / "data", num_images=7)
    (tree / "split.csv").write_text("image_id,category\n" + "".join(f"{k:03d}.jpg,train\n" for k in range(7)))
    values = [{"name": name, "value": value} for name, value in (("background", 0), ("a", 255), ("b", 100))]
    (tree / "classes.json").write_text(json.dumps({"classes": values}))
    score_finished_folds(tmp_path / "runs", tree)
    summary = json.loads((tmp_path / "runs" / "out_of_fold" / "summary.json").read_text())
    assert sorted(name for part in summary["folds"] for name in part["cases"]) == [f"{k:03d}.jpg" for k in range(7)]
    found = [tmp_path / "runs" / "out_of_fold" / "cases.csv", tmp_path / "runs" / "best_fold.json"]
    before = [path.read_bytes() for path in found]
    for path in found:
        path.unlink()
    assert under_torchrun(2, score_finished_folds, tmp_path / "runs", tree) == [1, 0]
    assert [path.read_bytes() for path in found] == before
    assert len(list(csv.DictReader(before[0].decode().splitlines()))) == 7 * 2
