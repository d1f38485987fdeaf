"""A study: what is missing is trained and tested, what is there stays; a kill or a failure loses nothing else."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.study import __main__ as study
from benchmarks.study.plans import PLANS, Plan
from datasets.images.make_split import split_dataset
from recipes import RECIPES
from tests.support.commands import SMALL_NETWORK
from tests.support.places import ROOT
from tests.support.study_runs import ARMS, MADE_UP, finish, train_in_words
from tests.support.trees import write_picture_tree
from train import configure
from utils.command_line import parse_flags
from utils.config import FIELDS, TRAIN
from utils.errors import UserError


@pytest.fixture
def calls(monkeypatch):
    """Scripts run in this process; out: what was called."""
    called = []

    def call(script, *words, log_to):
        called.append((script, words))
        importlib.import_module(script.removesuffix(".py")).main(list(words))
        return 0, 6.0, 2**30

    monkeypatch.setattr(study, "call", call)
    return called


@pytest.fixture
def plan(tmp_path, monkeypatch):
    tree = write_picture_tree(tmp_path / "tree", num_images=12)
    data = ("--dataset", str(tree), "--recipe", "cvc_clinicdb", "--csvfile", str(tree / "test_train_data.csv"))
    split_dataset(tree, 0.6)
    words = "--img_size 32 --epochs 2 --batch_size 4 --folds 2 --device cpu"
    plan = Plan(data, (*words.split(), *map(str, SMALL_NETWORK)), ARMS, seeds=(1, 2))
    monkeypatch.setitem(PLANS, "toy", plan)
    return plan


def test_a_study_trains_what_is_missing_and_writes_one_table(tmp_path, plan, calls, monkeypatch):
    study.main(["toy", "--output", str(tmp_path / "out"), "--jobs", "1"])
    assert [script for script, _ in calls] == ["train.py", "test.py"] * 4
    found = json.loads((tmp_path / "out" / "toy.json").read_text(encoding="utf-8"))
    assert [setting["name"] for setting in found["comparison"]["settings"]] == ["scsa", "plain"]
    assert found["costs"]["scsa"]["parameters"] > found["costs"]["plain"]["parameters"]
    assert found["costs"]["scsa"]["seconds_per_epoch"] == 3.0
    assert found["missing"] == {}
    assert found["machines"][0].keys() >= {"torch", "commit", "threads", "packages"}
    assert [pair["second"] for pair in found["comparison"]["pairs"] if pair["metric"] == "dice"] == ["plain"]
    rows = (tmp_path / "out" / "toy.md").read_text(encoding="utf-8").splitlines()
    for arm, setting in zip(ARMS, found["comparison"]["settings"]):
        (row,) = (row for row in rows if row.startswith(f"| {arm} |"))
        assert f"{100 * setting['means']['all classes']['dice']['mean']:.1f} ± " in row
        assert " | 1.0 |" in row
    calls.clear()
    before = (tmp_path / "out" / "toy.json").read_bytes()
    study.main(["toy", "--output", str(tmp_path / "out")])
    assert calls == []
    assert (tmp_path / "out" / "toy.json").read_bytes() == before
    for path in (tmp_path / "out" / "toy" / "plain" / "seed_2").glob("test_standard/*.*"):
        path.unlink()
    study.main(["toy", "--output", str(tmp_path / "out")])
    out = str(tmp_path / "out" / "toy" / "plain" / "seed_2")
    assert [(script, words[0]) for script, words in calls] == [("train.py", "--resume"), ("test.py", "--split")]
    assert all(words[-1] == out for _, words in calls)
    calls.clear()
    monkeypatch.setitem(PLANS, "toy", replace(plan, arms=ARMS | {"plain": ("--skips", "plain", "--lr", "0.1")}))
    with pytest.raises(UserError, match=r"plain, seed 1: .*seed_1 is from other flags than the plan's"):
        study.main(["toy", "--output", str(tmp_path / "out")])
    assert calls == []


def test_the_recipe_that_won_is_the_published_one_with_the_flags_of_its_arm():
    plan = PLANS["better_arm_cpu"]
    published, plus = RECIPES["cvc_clinicdb"], RECIPES["cvc_clinicdb_plus"]
    given = parse_flags([*plan.train, *plan.arms["chosen"]], TRAIN, "")
    small = parse_flags(list(plan.train), TRAIN, "")
    changed = {name: getattr(plus, name) for name in FIELDS if getattr(plus, name) != getattr(published, name)}
    assert changed.keys() == {name for name in given if given[name] != small.get(name)} | {"recipe"}
    sides = [size["img_size"][0] for size in (given, small)]
    assert changed.pop("img_size")[0] / published.img_size[0] == sides[0] / sides[1]
    assert changed == {name: given.get(name, "cvc_clinicdb_plus") for name in changed}


# --- runs that are made up, for all that is not training ------------------------------------------


def test_a_table_alone_runs_nothing(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "heteromedseg")
    monkeypatch.setitem(PLANS, "toy", MADE_UP)
    monkeypatch.setattr(study, "call", lambda *_, **__: pytest.fail("a run was started"))
    finish(tmp_path / "toy" / "scsa" / "seed_1", 1, part="val_standard_fold1")
    study.main(["toy", "--output", str(tmp_path), "--jobs", "0"])
    assert not (tmp_path / "toy.json").exists()
    study.main(["toy", "--output", str(tmp_path), "--jobs", "0", "--val"])
    assert json.loads((tmp_path / "toy_val.json").read_text(encoding="utf-8"))["part"] == "val"
    lines = (tmp_path / "toy_val.md").read_text(encoding="utf-8").splitlines()
    assert [record.message for record in caplog.records][-len(lines) :] == lines
    with pytest.raises(UserError, match="--jobs -1: expected"):
        study.main(["toy", "--jobs", "-1"])


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    def call(script, *words, log_to):
        if "--skips" in words:
            return 2, 1.0, 0
        if script == "train.py":
            train_in_words(log_to.parent, 2)
        return 0, 1.0, 2**20

    monkeypatch.setattr(study, "call", call)
    tables = []
    with pytest.raises(
        UserError, match=r"plain, seed 1: train.py ended with exit code 2; see .*train.py.txt"
    ) as caught:
        study.run_all(MADE_UP, tmp_path / "out", "test", 2, lambda: tables.append(1))
    assert "scsa" not in str(caught.value)
    assert len(tables) == 2  # after each that ended well


def test_a_training_that_was_asked_to_stop_is_not_tested_and_goes_on(tmp_path, monkeypatch):
    calls, log_text = [], "epoch 1 ... peak GPU memory 1.50 GiB\npeak GPU memory 1.25 GiB\n"

    def call(script, *words, log_to):
        calls.append((script, words[0]))
        if script == "train.py":
            train_in_words(log_to.parent, min(len(calls), 2))
            (log_to.parent / "log.txt").write_text((log_to.parent / "log.txt").read_text() + log_text)
        return 0, 5.0 * len(calls), 2**20

    monkeypatch.setattr(study, "call", call)
    out = tmp_path / "scsa" / "seed_1"
    assert "was asked to stop" in study.run_one(MADE_UP, "scsa", 1, out, "test", 0)
    assert calls == [("train.py", "--dataset")]
    assert study.run_one(MADE_UP, "scsa", 1, out, "test", 0) == ""
    assert calls[1:] == [("train.py", "--resume"), ("test.py", "--split")]
    cost = json.loads((out / "cost.json").read_text())
    assert (cost["seconds"], cost["epochs"], cost["parameters"], cost["gflop"]) == (15.0, 2, 1234, 0.25)
    assert (cost["peak_bytes"], cost["memory"], len(cost["machines"])) == (1.5 * 2**30, "GPU", 1)
    # a training that has ended is resumed once more, which takes time but no epoch
    study.run_one(MADE_UP, "scsa", 1, out, "test", 0)
    assert json.loads((out / "cost.json").read_text())["seconds"] == 15.0


def test_a_run_without_its_weights_starts_again(tmp_path, monkeypatch):
    """As after a kill in the first epoch, or in a clone: git keeps no weights."""
    monkeypatch.setattr(study, "call", lambda script, *words, log_to: pytest.fail(" ".join(words)))
    out = tmp_path / "scsa" / "seed_1"
    train_in_words(out, 2)
    (out / "epoch_last.pth").unlink()
    (out / "best_model.pth").touch()
    with pytest.raises(pytest.fail.Exception, match="--seed 1 --force"):
        study.run_one(MADE_UP, "scsa", 1, out, "test", 0)


def test_runs_at_a_time_have_a_gpu_each(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(study, "describe_machine", dict)
    both, busy, seen = threading.Barrier(2, timeout=20), set(), []

    def call(script, *words, log_to):
        device = words[words.index("--device") + 1]
        assert device not in busy
        busy.add(device)
        if script == "train.py":
            both.wait()  # two trainings are going on
            train_in_words(log_to.parent, 2)
        seen.append(device)
        busy.remove(device)
        return 0, 1.0, 2**20

    monkeypatch.setattr(study, "call", call)
    study.run_all(MADE_UP, tmp_path, "test", 2, lambda: None)
    assert sorted(seen) == ["cuda:0"] * 4 + ["cuda:1"] * 4


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell the memory of a process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_asked_to_stop_passes_it_on_once_and_starts_no_other_run(tmp_path, number):
    """`train.py` stands for a training: it notes each signal, and ends after the first."""
    (tmp_path / "train.py").write_text(
        "import pathlib, signal, sys, time\n"
        "out = pathlib.Path(sys.argv[-1])\n"
        "caught = []\n"
        "for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, lambda n, _: caught.append(n))\n"
        "(out / 'started').touch()\n"
        "while not caught: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "(out / 'signals').write_text(str(len(caught)))\n"
        "sys.exit(2)\n",
        encoding="utf-8",
    )
    program = (
        "import pathlib, signal\nfrom benchmarks.study import __main__ as study\n"
        "from benchmarks.study.plans import Plan\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell starts what it runs behind without it
        f"study.ROOT = pathlib.Path({str(tmp_path)!r})\n"
        "plan = Plan((), (), {'a': (), 'b': ()}, seeds=(1,))\n"
        "study.run_main(lambda _: study.run_all(plan, study.ROOT / 'out', 'test', 1, lambda: None))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True)
    for _ in range(3000):
        if (tmp_path / "out/a/seed_1/started").exists():
            break
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as Ctrl-C does: to all of the group
    assert process.wait(60) == 130
    assert (tmp_path / "out/a/seed_1/signals").read_text() == "1"
    assert not (tmp_path / "out" / "b" / "seed_1" / "started").exists()


def test_git_keeps_the_small_files_of_a_run_alone():
    names = ["config.json", "history.csv", "log.txt", "flags.txt", "cost.json"]
    kept = [*names, "test_standard/summary.json", "val_standard_fold0/cases.csv"]
    lost = ["best_model.pth", "epoch_last.pth", ".lock", "train.py.txt", "tensorboard/events", "test_standard/a.png"]
    lost += ["test_standard/overlays/a.png", ".part-host-1-x/epoch_last.pth"]
    paths = [f"results/study/cvc_cpu/causal/seed_1/{name}" for name in (*kept, *lost)]
    command = ["git", "check-ignore", *paths, "results/study/cvc_cpu.json", "results/study/cvc_cpu.md"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8").stdout.split()
    assert found == paths[len(kept) :]


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell the memory of a process")
def test_a_script_is_called_and_measured(tmp_path):
    code, seconds, peak = study.call("data_split_csv.py", "--help", log_to=tmp_path / "out.txt")
    assert (code, seconds > 0, peak > 2**22) == (0, True, True)
    assert "usage" in (tmp_path / "out.txt").read_text()
    assert study.call("data_split_csv.py", "--nothing", log_to=tmp_path / "out.txt")[0] == 2


@pytest.mark.parametrize("name", PLANS)
def test_train_takes_the_flags_of_every_plan(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("CVC-ClinicDB", "ISIC2018", "ACDC"):
        for part in ("images", "masks"):
            (tmp_path / "data" / folder / part).mkdir(parents=True)
    for arm in PLANS[name].arms.values():
        configure([*PLANS[name].data, *PLANS[name].train, *arm])


def test_the_plans_of_the_queue_are_there_and_every_plan_for_gpus_is_in_it():
    text = (ROOT / "results" / "GPU_QUEUE.md").read_text(encoding="utf-8")
    queued = set(re.findall(r"`python -m benchmarks\.study (\w+)(?: --val)?`", text))
    assert queued == {"cvc_tiny", *(name for name in PLANS if name.endswith("_gpu"))}


def test_an_unknown_plan():
    with pytest.raises(UserError, match="plan nothing: expected one of cvc_cpu"):
        study.main(["nothing"])
