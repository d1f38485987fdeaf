"""CONTRIBUTING.md says which files to touch for a recipe, a loss, a metric, a network: done here on a copy."""

import csv
import json
import shutil
import subprocess
import sys

import pytest

from tests.support.places import ROOT
from tests.support.trees import write_picture_tree
from utils import checkpoint

PRODUCT = ("models", "datasets", "utils", "synapse_train_test", "isic_polyp_rectal")
RECIPE = """
RECIPES["busi"] = replace(CVC_CLINICDB, dataset="busi", recipe="busi", lr=2e-3)
FOREGROUND["busi"] = "tumour"
"""
LOSS = '''
def hard_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a sigmoid that counts pixels that are wrong the most."""
    losses = F.binary_cross_entropy_with_logits(logits.float()[:, 0], target.float(), reduction="none")
    return _global_mean((1 - (-losses).exp()) ** 2 * losses)


BINARY["hard"] = hard_loss
'''
METRIC = '''
def error_rate(n: Overlap) -> float:
    """Share of the pixels that are wrong."""
    return (n.fp + n.fn) / (n.tp + n.fp + n.fn + n.tn)
'''
NETWORK = '''"""A single convolution."""

from torch import nn

from utils.config import Config


def build_tiny(cfg: Config) -> nn.Module:
    return nn.Conv2d(3, cfg.num_classes, 3, padding=1)
'''

# in one process, which imports PyTorch once
ONE_AFTER_THE_OTHER = """
import runpy, sys
for script, *words in {}:
    sys.argv = [script, *words]
    runpy.run_path(sys.path[0] + "/" + script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the product with one of each added, as CONTRIBUTING.md says; two files each at most."""
    root = tmp_path_factory.mktemp("house")
    for name in PRODUCT:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, root)

    def edit(name, old, new):
        text = (root / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, (name, old)
        (root / name).write_text(text.replace(old, new), encoding="utf-8")

    def append(name, text):
        with (root / name).open("a", encoding="utf-8") as file:
            file.write(text)

    append("isic_polyp_rectal/task.py", RECIPE)
    append("utils/training/losses.py", LOSS)
    edit("utils/config.py", 'LOSSES = ("ce_dice", ', 'LOSSES = ("hard", "ce_dice", ')
    append("utils/scoring/metrics.py", METRIC)
    edit(
        "utils/scoring/protocols.py",
        '"specificity": metrics.specificity(n),\n',
        '"specificity": metrics.specificity(n),\n        "error_rate": metrics.error_rate(n),\n',
    )
    (root / "models" / "tiny.py").write_text(NETWORK, encoding="utf-8")
    append("models/build.py", "\n\nfrom models.tiny import build_tiny\n\nNETWORKS['tiny'] = build_tiny\n")
    return root


def test_recipe_loss_metric_and_network_are_added_where_the_guide_says(house, tmp_path):
    tree = write_picture_tree(tmp_path / "tree", num_images=12)

    run, cpu = tmp_path / "run", ("--device", "cpu")
    best, small = run / "best_model.pth", ("--img_size", 32, "--epochs", 1, "--batch_size", 2, "--folds", 3)
    new = ("--recipe", "busi", "--loss", "hard", "--network", "tiny")
    commands = [
        ("data_split_csv.py", "--dataset", tree, "--size", 0.75),
        ("train.py", "--dataset", tree, *new, *small, *cpu, "--output_dir", run),
        ("test.py", "--dataset", tree, "--checkpoint", best, *cpu, "--report", "False"),
        ("predict.py", "--checkpoint", best, "--input", tree / "images", *cpu),
    ]
    (house / "all.py").write_text(ONE_AFTER_THE_OTHER.format([[*map(str, words)] for words in commands]))
    words = [sys.executable, str(house / "all.py")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "network tiny: 28 parameters" in done.stdout
    saved = checkpoint.read(best)["config"]
    assert [saved[name] for name in ("recipe", "loss", "network", "lr")] == ["busi", "hard", "tiny", 2e-3]
    with (run / "test_standard" / "cases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"tumour"}
    assert all(0 <= float(row["error_rate"]) <= 1 for row in rows)
    summary = json.loads((run / "test_standard" / "summary.json").read_text(encoding="utf-8"))
    assert "error_rate" in summary["overall"]["metrics"]
    assert len(list((tmp_path / "predictions").glob("*_mask.png"))) == 12
