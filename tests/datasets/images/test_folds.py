"""`--fold all` end to end: every fold trained, every training image scored by the fold that left it out."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import test as test_command
import train as train_command
from isic_polyp_rectal import cross_validation
from isic_polyp_rectal.cross_validation import OPTIMISTIC, fold_table, over_folds, train_folds
from tests.support.commands import SMALL_NETWORK, command
from tests.support.trees import write_picture_tree, write_synapse_tree
from utils import checkpoint
from utils.errors import UserError
from utils.results.summary import read_cases

FOLD_OF = {f"{index:03d}.jpg": fold for index, fold in enumerate((0, 1, 0, 1, 1, 1, None, None))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(flags, folder of the run, what was printed) of two folds of one epoch on 2 + 4 images."""
    folder = tmp_path_factory.mktemp("folds")
    tree = write_picture_tree(folder / "DATA", num_images=len(FOLD_OF))
    lines = [f"{name},{'test' if k is None else 'train'},{'' if k is None else k}" for name, k in FOLD_OF.items()]
    (folder / "split.csv").write_text("\n".join(["image_id,category,fold", *lines]) + "\n")
    out = folder / "OUT"
    flags = [
        *("--dataset", str(tree), "--csvfile", str(folder / "split.csv"), "--fold", "all", "--epochs", "1"),
        *("--batch", "4", "--img_size", "32", "--output_dir", str(out), "--device", "cpu", "--precision", "fp32"),
        *map(str, SMALL_NETWORK),
    ]
    return flags, out, command("train.py", *flags, cwd=folder)


def resumed(flags, *more):
    """The configs that `--resume` hands to training; nothing is trained."""
    called = []
    train_folds(train_command.configure([*flags, "--resume", *more]), called.append)
    return called


def test_every_image_is_scored_once_by_the_fold_that_left_it_out(run):
    _, out, printed = run
    rows = read_cases(out / "out_of_fold" / "cases.csv")
    assert sorted(row["case"] for row in rows) == [name for name, fold in FOLD_OF.items() if fold is not None]
    summary = json.loads((out / "out_of_fold" / "summary.json").read_text(encoding="utf-8"))
    for part in summary["folds"]:
        assert part["cases"] == [name for name, fold in FOLD_OF.items() if fold == part["fold"]]
        assert part["sha256"] == checkpoint.sha256(out / f"fold_{part['fold']}" / "best_model.pth")
    assert [origin["sha256"] for origin in summary["checkpoints"]] == [part["sha256"] for part in summary["folds"]]
    assert (summary["protocol"], summary["selection"], summary["num_cases"]) == ("standard", "validation", 6)
    assert summary["split"].startswith("out of fold: 2 folds of the training part (6 train + 2 test images")
    assert summary["note"] == OPTIMISTIC
    page = (out / "out_of_fold" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in (*summary["folds"][0]["cases"], *summary["folds"][1]["cases"]))
    assert f"note: {OPTIMISTIC}" in printed
    assert "fold 0: 2 images, dice" in printed
    assert "mean ± SD over folds: dice" in printed


def test_a_fold_scores_as_test_py_does_on_its_validation_part(run, tmp_path):
    _, out, _ = run
    joined = {row["case"]: row for row in read_cases(out / "out_of_fold" / "cases.csv")}
    for fold in (0, 1):
        weights = str(out / f"fold_{fold}" / "best_model.pth")
        flags = ["--checkpoint", weights, "--split", "val", "--device", "cpu"]
        test_command.main([*flags, "--output_dir", str(tmp_path / str(fold))])
        rows = read_cases(tmp_path / str(fold) / f"val_standard_fold{fold}" / "cases.csv")
        assert [row["case"] for row in rows] == [name for name, k in FOLD_OF.items() if k == fold]
        for row in rows:
            mine = joined[row["case"]]
            assert row.keys() == mine.keys()
            assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(*map(figures, (row, mine))))


def figures(row):
    return [value for value in row.values() if isinstance(value, float)]


def test_the_best_fold_is_labelled_in_its_weights_and_results(run, tmp_path):
    _, out, printed = run
    best = json.loads((out / "best_fold.json").read_text(encoding="utf-8"))
    dice = {part["fold"]: part["means"]["dice"] for part in summary_of(out)["folds"]}
    assert best["mean_dice"] == {str(fold): value for fold, value in dice.items()}
    assert best["fold"] == max(dice, key=dice.get)
    assert f"best fold on validation: fold {best['fold']}" in printed
    mine, theirs = checkpoint.read(out / "best_fold.pth"), checkpoint.read(best["checkpoint"])
    assert all(torch.equal(mine["model"][name], value) for name, value in theirs["model"].items())
    test_command.main(["--checkpoint", str(out / "best_fold.pth"), "--output_dir", str(tmp_path)])
    summary = json.loads((tmp_path / "test_standard" / "summary.json").read_text(encoding="utf-8"))
    assert summary["selection"] == "validation; best of 2 folds, each on its own validation part"


def summary_of(out):
    return json.loads((out / "out_of_fold" / "summary.json").read_text(encoding="utf-8"))


def test_finished_folds_are_not_trained_again(run):
    flags, out, _ = run
    before = summary_of(out)
    (out / "out_of_fold" / "summary.json").unlink()
    assert resumed(flags) == []
    assert summary_of(out) == before


def test_what_is_unfinished_goes_on(run, monkeypatch):
    flags, out, _ = run
    monkeypatch.setattr(cross_validation, "summarise_folds", lambda cfg, folds: None)
    kept = {path: path.read_bytes() for path in (out / "best_fold.json", out / "out_of_fold" / "summary.json")}
    longer = resumed(flags, "--epochs", "2")
    assert [(cfg.fold, cfg.resume, Path(cfg.output_dir)) for cfg in longer] == [
        ("0", True, out / "fold_0"),
        ("1", True, out / "fold_1"),
    ]
    assert not (out / "out_of_fold" / "summary.json").exists()  # it told of the folds as they were
    assert not (out / "best_fold.pth").exists()
    files = [out / "fold_1" / name for name in ("epoch_last.pth", "best_model.pth")]
    files[0].rename(out / "epoch_last.pth")  # somebody removes the large file of a finished fold
    with pytest.raises(UserError, match=r"fold_1 holds best_model.pth, but no epoch_last.pth .* move .*fold_1 away"):
        resumed(flags)
    files[1].rename(out / "best_model.pth")
    try:  # stopped within the first epoch
        assert [(cfg.fold, cfg.resume, cfg.force) for cfg in resumed(flags)] == [("1", False, True)]
    finally:
        for file in files:
            (out / file.name).rename(file)
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_run_is_not_overwritten_and_other_settings_do_not_resume(run, tmp_path):
    flags, out, _ = run
    with pytest.raises(UserError, match=r"fold_0: already holds a run .*give --resume"):
        train_folds(train_command.configure(flags), pytest.fail)
    with pytest.raises(UserError, match=r"fold_0/epoch_last.pth was trained with other settings: loss"):
        resumed(flags, "--loss", "dice_bce")
    other = (out.parent / "split.csv").read_text(encoding="utf-8").replace("005.jpg,train,1", "005.jpg,train,2")
    (tmp_path / "other.csv").write_text(other)
    with pytest.raises(UserError, match=r"fold_1.*other cases \(.*fold 1 of 2 .*than are found now \(.*fold 1 of 3"):
        resumed(flags, "--csvfile", str(tmp_path / "other.csv"))
    with pytest.raises(UserError, match=r"--resume: no epoch_last.pth in any .*elsewhere/fold_"):
        resumed(flags, "--output_dir", str(tmp_path / "elsewhere"))
    only_second = replace(train_command.configure(flags), output_dir=str(tmp_path / "later"))
    (tmp_path / "later" / "fold_1").mkdir(parents=True)
    (tmp_path / "later" / "fold_1" / "best_model.pth").write_bytes(b"")
    with pytest.raises(UserError, match="fold_1: already holds a run"):  # before fold 0 is trained for hours
        train_folds(only_second, pytest.fail)


def test_sets_without_folds_are_refused_with_the_remedy(tmp_path):
    tree = write_synapse_tree(tmp_path / "DATA")
    flags = ["--dataset", "Synapse", "--root_path", str(tree), "--fold", "all", "--output_dir", str(tmp_path / "OUT")]
    with pytest.raises(UserError, match="--fold all: recipe synapse has no folds; use --val_cases"):
        train_command.main(flags)
    assert not (tmp_path / "OUT").exists()


def test_mean_and_sd_over_folds():
    parts = [
        {"fold": 0, "means": {"dice": 0.8, "iou": 0.5}, "cases": ["a", "b"]},
        {"fold": 1, "means": {"dice": 0.9, "iou": None}, "cases": ["c"]},
    ]
    found = over_folds(parts)
    assert found["dice"] == {"mean": pytest.approx(0.85), "sd": pytest.approx(0.1 / math.sqrt(2))}
    assert found["iou"] == {"mean": 0.5, "sd": None}
    assert fold_table({"folds": parts, "over_folds": found}).splitlines() == [
        "fold 0: 2 images, dice 80.00, iou 50.00",
        "fold 1: 1 image, dice 90.00, iou -",
        "mean ± SD over folds: dice 85.00 ± 7.07, iou 50.00 ± - %",
    ]
