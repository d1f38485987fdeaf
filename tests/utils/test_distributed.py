"""Two ranks under torchrun train the run that one process trains: same loss curve, same weights."""

import subprocess
import sys

import pytest
import torch

from models import build_model
from tests.support.places import ROOT
from tests.support.trees import write_synapse_tree
from utils import checkpoint
from utils.training.run import LAST


def train(tree, out, *launcher):
    flags = ["--dataset", str(tree), "--list_dir", str(tree / "lists"), "--output_dir", str(out), "--img_size", "32"]
    flags += ["--epochs", "2", "--batch_size", "5", "--precision", "fp32", "--device", "cpu", "--lr", "1e-3"]
    flags += ["--val_cases", "1", "--schedule", "cosine"]
    command = [sys.executable, *launcher, str(ROOT / "train.py"), *flags]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, encoding="utf-8", timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return checkpoint.read(out / LAST), done.stdout


def test_torchrun_gives_the_loss_curve_of_one_process(tmp_path):
    """8 training slices in global batches of 5 and 3, cut 3 + 2 and 2 + 1 between the ranks."""
    tree = write_synapse_tree(tmp_path / "tree", num_cases=3, slices=4, size=32)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29517"]
    one, _ = train(tree, tmp_path / "one")
    two, printed = train(tree, tmp_path / "two", *launcher)
    assert "x 2 processes" in printed
    for a, b in zip(one["history"], two["history"], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-5)
        assert b["mean_dice"] == pytest.approx(a["mean_dice"], abs=0.02, nan_ok=True)
    # Not the weights one by one: a bias in front of a norm has no gradient but rounding, which Adam makes a full step.
    torch.manual_seed(0)
    image, logits = torch.randn(2, 1, 32, 32), []
    for state in (one, two):
        model = build_model(9, drop_path=0.0).eval()
        model.load_state_dict(state["model"])
        with torch.no_grad():
            logits.append(model(image))
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-3, atol=2e-3 * float(logits[0].abs().max()))
