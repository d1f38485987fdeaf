"""Runs of a study that are made up, for all that is not training."""

import json

from benchmarks.study.plans import Plan
from tests.support.result_folders import write_result

ARMS = {"scsa": (), "plain": ("--skips", "plain")}
MADE_UP = Plan(("--dataset", "nowhere"), ("--epochs", "2"), ARMS, seeds=(1, 2))


def finish(out, seed, part="test_standard", epochs=2, **result):
    """A run as it is once it is tested."""
    write_result(out / part, seed=seed, **result)
    settings = {"epochs": epochs, "folds": 2, "fold": 1, "img_size": result.get("img_size", [224, 224])}
    (out / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (out / "history.csv").write_text("epoch,loss\n" + "1,0.5\n" * epochs, encoding="utf-8")
    cost = {"seconds": 6.0, "epochs": epochs, "peak_bytes": 2**30, "memory": "process", "machines": []}
    (out / "cost.json").write_text(json.dumps(cost | {"parameters": 7, "gflop": 0.1}), encoding="utf-8")


def train_in_words(out, epochs):
    """What a training of `epochs` epochs leaves, of a run set to two."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text('{"epochs": 2, "folds": 0, "fold": 0}', encoding="utf-8")
    (out / "history.csv").write_text("epoch\n" + "1\n" * epochs, encoding="utf-8")
    (out / "epoch_last.pth").touch()
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write("network: 1,234 parameters\n0.25 GFLOP an image\n")
