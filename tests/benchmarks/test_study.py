"""A study: what is missing is trained and tested, what is there stays, and the table says what the files say."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.study import __main__ as study
from benchmarks.study.plans import PLANS, Plan
from tests.support.places import ROOT
from tests.support.trees import write_picture_tree
from utils.command_line import parse_flags
from utils.config import TRAIN
from utils.errors import UserError

ARMS = {"scsa": (), "plain": ("--skips", "plain")}


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
    subprocess.run([sys.executable, ROOT / "data_split_csv.py", "--dataset", tree, "--size", "0.6"], check=True)
    words = "--img_size 32 --epochs 2 --batch_size 4 --width 32 --folds 2 --device cpu"
    plan = Plan(data, tuple(words.split()), ARMS, seeds=(1, 2))
    monkeypatch.setitem(PLANS, "toy", plan)
    return plan


def test_a_study_trains_what_is_missing_and_writes_one_table(tmp_path, plan, calls, monkeypatch):
    study.main(["toy", "--output", str(tmp_path / "out"), "--jobs", "1"])
    assert [script for script, _ in calls] == ["train.py", "test.py"] * 4
    found = json.loads((tmp_path / "out" / "toy.json").read_text(encoding="utf-8"))
    assert [setting["name"] for setting in found["comparison"]["settings"]] == ["scsa", "plain"]
    assert found["costs"]["scsa"]["parameters"] > found["costs"]["plain"]["parameters"]
    assert found["costs"]["scsa"]["seconds_per_epoch"] == 3.0
    assert list(found["p_holm"]) == ["plain"]
    rows = (tmp_path / "out" / "toy.md").read_text(encoding="utf-8").splitlines()
    for arm, setting in zip(ARMS, found["comparison"]["settings"]):
        (row,) = (row for row in rows if row.startswith(f"| {arm} |"))
        assert f"{100 * setting['means']['all classes']['dice']['mean']:.1f} ± " in row
        assert " | 1.0 |" in row
    calls.clear()
    study.main(["toy", "--output", str(tmp_path / "out")])
    assert calls == []
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


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(study, "note_cost", lambda *_: None)
    monkeypatch.setattr(study, "call", lambda script, *words, log_to: (2 * ("--skips" in words), 1.0, 0))
    with pytest.raises(
        UserError, match=r"plain, seed 1: train.py ended with exit code 2; see .*train.py.txt"
    ) as caught:
        study.run_all(plan, tmp_path / "out", "test", 2)
    assert "scsa" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell the memory of a process")
def test_a_script_is_called_and_measured(tmp_path):
    code, seconds, peak = study.call("data_split_csv.py", "--help", log_to=tmp_path / "out.txt")
    assert (code, seconds > 0, peak > 2**22) == (0, True, True)
    assert "usage" in (tmp_path / "out.txt").read_text()
    assert study.call("data_split_csv.py", "--nothing", log_to=tmp_path / "out.txt")[0] == 2


@pytest.mark.parametrize("name", PLANS)
def test_flags_of_every_plan_are_those_of_train(name):
    for arm in PLANS[name].arms.values():
        parse_flags([*PLANS[name].data, *PLANS[name].train, *arm], TRAIN, "")


def test_an_unknown_plan():
    with pytest.raises(UserError, match="plan nothing: expected one of cvc_cpu"):
        study.main(["nothing"])
