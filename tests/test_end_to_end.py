"""Every command as a user types it, on small data: what it prints, what it writes, what it refuses."""

import json

import numpy as np
import pytest
import torch

from tests.support.commands import SMALL_NETWORK, command
from tests.support.trees import write_picture_tree, write_synapse_tree
from utils.results.summary import read_cases


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A tree in the Synapse layout and a run of two epochs on it, by the README's command."""
    folder = tmp_path_factory.mktemp("volumes")
    tree = write_synapse_tree(folder / "DATA")
    printed = command(
        *("train.py", "--dataset", "Syanpse", "--root_path", tree, "--list_dir", tree / "lists", "--max_epochs", 2),
        *("--output_dir", "OUT", "--img_size", 32, "--base_lr", 0.001, "--batch_size", 4),
        *SMALL_NETWORK,
        cwd=folder,
    )
    return folder, tree, printed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An images/ + masks/ tree, its split and a run of one epoch, by the README's commands."""
    folder = tmp_path_factory.mktemp("pictures")
    tree = write_picture_tree(folder / "DATA")
    split = command("data_split_csv.py", "--dataset", tree, "--size", 0.8, cwd=folder)
    assert "8 train + 2 test" in split
    csv = tree / "test_train_data.csv"
    printed = command(
        *("train.py", "--dataset", tree, "--csvfile", csv, "--loss", "dice", "--batch", 4, "--lr", 0.0005),
        *("--epoch", 1, "--img_size", 32, "--folds", 2),
        *SMALL_NETWORK,
        cwd=folder,
    )
    return folder, tree, csv, printed


def test_training_on_volumes_says_what_it_does_and_writes_a_run(volumes):
    folder, _, printed = volumes
    for line in (
        "--dataset Syanpse is taken as synapse",
        "network heteromedseg: 1,161,973 parameters",
        "SSD causal",
        "device ",
    ):
        assert line in printed
    assert "2 cases, 8 images of 40x40" in printed
    out = folder / "OUT"
    assert {p.name for p in out.iterdir()} >= {
        *("epoch_last.pth", "best_model.pth", "history.csv", "log.txt", "config.json", "tensorboard"),
    }
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["epochs"], config["batch_size"], config["img_size"]) == (2, 4, [32, 32])
    assert "initialised from scratch" in (out / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_testing_on_volumes_writes_figures_volumes_and_overlays(volumes, protocol):
    folder, tree, _ = volumes
    printed = command(
        *("test.py", "--dataset", "Synapse", "--is_savenii", "--volume_path", tree, "--output_dir", "OUT"),
        *("--max_epoch", 2, "--base_lr", 0.001, "--img_size", 32, "--batch_size", 3, "--debug", "--protocol", protocol),
        cwd=folder,
    )
    assert "warning" not in printed
    results = folder / "OUT" / f"test_{protocol}"
    summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
    assert summary["protocol"] == protocol
    assert summary["num_cases"] == 1
    (origin,) = summary["checkpoints"]
    assert len(origin["sha256"]) == len(origin["split_sha256"]) == 64
    assert (origin["seed"], origin["pretrained"]) == (1234, "none")
    assert [row["class"] for row in read_cases(results / "cases.csv")][:2] == ["aorta", "gallbladder"]
    assert {p.name for p in (results / "nifti").iterdir()} == {
        f"case0003_{kind}.nii.gz" for kind in ("img", "gt", "pred")
    }
    assert (results / "overlays" / "case0003.png").stat().st_size > 1000
    import SimpleITK

    saved = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(results / "nifti" / "case0003_gt.nii.gz")))
    import h5py

    with h5py.File(tree / "test_vol_h5" / "case0003.npy.h5") as file:
        assert np.array_equal(saved, file["label"][:])


def test_a_flag_that_contradicts_the_training_is_pointed_out(volumes):
    folder, _, _ = volumes
    printed = command("test.py", "--output_dir", "OUT", "--max_epoch", 300, "--base_lr", 0.01, cwd=folder)
    assert "warning: --epochs 300: the checkpoint was trained with 2" in printed
    assert "warning: --lr 0.01: the checkpoint was trained with 0.001" in printed
    refused = command("test.py", "--output_dir", "OUT", "--num_classes", 4, cwd=folder, expect=2)
    assert "--num_classes 4: the checkpoint's network has 9 classes" in refused
    refused = command("test.py", "--output_dir", "OUT", "--class_names", "x,y", cwd=folder, expect=2)
    assert "--class_names x,y: 2 names; expected 8" in refused


def test_pictures_train_and_test_by_the_readmes_commands(pictures):
    folder, tree, csv, printed = pictures
    assert "10 images of 40x48" in printed
    assert "4 images to train on, 4 for validation" in printed
    tested = command(
        *("test.py", "--dataset", tree, "--csvfile", csv, "--model", "save_models/epoch_last.pth", "--debug", True),
        cwd=folder,
    )
    assert "lesion" in tested
    results = folder / "save_models" / "test_standard"
    assert len(read_cases(results / "cases.csv")) == 2
    assert len(list((results / "overlays").iterdir())) == 2
    legacy = command("test.py", "--checkpoint", "save_models/best_model.pth", "--protocol", "legacy", cwd=folder)
    assert "protocol legacy" in legacy
    assert not (folder / "save_models" / "test_legacy" / "overlays").exists()


def test_cases_of_the_training_part_are_pointed_out(pictures):
    """Training and test part exchanged: of the 8 test images, 4 were trained on and 4 chose the checkpoint."""
    folder, _, csv, _ = pictures
    text = csv.read_text(encoding="utf-8").replace(",train", ",was train").replace(",test", ",train")
    (folder / "other.csv").write_text(text.replace(",was train", ",test"))
    flags = ("--checkpoint", "save_models/best_model.pth", "--csvfile", "other.csv", "--output_dir", "other")
    printed = command("test.py", *flags, cwd=folder)
    assert "WARNING: 4 of 8 cases have the names of cases that the network was trained on" in printed
    summary = json.loads((folder / "other" / "test_standard" / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["trained_on"]) == 4
    assert "4 of 8 cases" in summary["note"]
    assert "4 of 8 cases" in (folder / "other" / "test_standard" / "report.html").read_text(encoding="utf-8")
    refused = command("test.py", *flags, "--tolerance", 3, cwd=folder, expect=2)
    assert "already holds the results of another test (tolerance)" in refused


def test_several_checkpoints_are_averaged(pictures):
    folder, *_ = pictures
    both = ("save_models/best_model.pth", "save_models/epoch_last.pth")
    command("test.py", "--checkpoint", *both, "--tta", "--tta_scales", "1.5", "--output_dir", "ensemble", cwd=folder)
    summary = json.loads(
        (folder / "ensemble" / "test_standard_tta_scales1.5_mean2" / "summary.json").read_text(encoding="utf-8")
    )
    assert len(summary["checkpoints"]) == 2
    assert summary["tta"] is True
    assert summary["tta_scales"] == [1.5]


def test_resume_goes_on_and_a_run_is_not_overwritten(pictures):
    folder, tree, csv, _ = pictures
    flags = ("--dataset", tree, "--csvfile", csv, "--batch", 4, "--lr", 0.0005, "--img_size", 32, "--folds", 2)
    flags = (*flags, *SMALL_NETWORK)
    assert "already holds a run" in command("train.py", *flags, "--epoch", 2, cwd=folder, expect=2)
    printed = command("train.py", *flags, "--epoch", 2, "--output_dir", "save_models", "--resume", cwd=folder)
    assert "after epoch 1" in printed
    assert "epoch    2" in printed


# --- wrong input: one message, exit code 2, nothing written ------------------------------------------


def refuse(tmp_path, *flags, script="train.py"):
    message = command(script, *flags, "--output_dir", "OUT", cwd=tmp_path, expect=2)
    assert not (tmp_path / "OUT").exists()
    assert not (tmp_path / "save_models").exists()
    return message


def test_a_missing_folder(tmp_path):
    assert "no such folder" in refuse(tmp_path, "--dataset", "Synapse", "--root_path", "nowhere")


def test_a_misspelt_flag(tmp_path):
    assert "did you mean --epochs" in refuse(tmp_path, "--epohcs", 3)


def test_a_truncated_slice_and_a_label_out_of_range_are_listed_together(tmp_path):
    tree = write_synapse_tree(tmp_path / "DATA")
    path = tree / "train_npz" / "case0001_slice002.npz"
    path.write_bytes(path.read_bytes()[:200])
    np.savez(tree / "train_npz" / "case0002_slice001.npz", image=np.zeros((9, 9)), label=np.full((9, 9), 12.0))
    message = refuse(tmp_path, "--dataset", tree, "--list_dir", tree / "lists")
    assert "case0001_slice002.npz" in message
    assert "case0002_slice001.npz" in message
    assert "12" in message
    assert "0 to 8" in message or "0..8" in message


def test_an_empty_csv(tmp_path):
    tree = write_picture_tree(tmp_path / "DATA")
    (tmp_path / "empty.csv").write_text("")
    message = refuse(tmp_path, "--dataset", tree, "--csvfile", "empty.csv")
    assert "empty.csv" in message
    assert "image_id" in message


def test_a_mask_of_another_size(tmp_path):
    import cv2

    tree = write_picture_tree(tmp_path / "DATA")
    command("data_split_csv.py", "--dataset", tree, cwd=tmp_path)
    cv2.imwrite(str(tree / "masks" / "003.png"), np.zeros((10, 10), np.uint8))
    message = refuse(tmp_path, "--dataset", tree)
    assert "003" in message
    assert "10x10" in message


def test_a_checkpoint_of_another_network(tmp_path):
    tree = write_synapse_tree(tmp_path / "DATA")
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    flags = ("--dataset", "Synapse", "--root_path", tree, "--checkpoint", "other.pth")
    message = refuse(tmp_path, *flags, script="test.py")
    assert "other.pth" in message
    assert "not a HeteroMedSeg checkpoint" in message
    missing = refuse(tmp_path, *flags[:-1], "nowhere.pth", script="test.py")
    assert "nowhere.pth" in missing
