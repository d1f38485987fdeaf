"""A study: what is missing is trained and tested, what is there stays, and the table says what the files say."""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.study import __main__ as study
from benchmarks.study.plans import PLANS, Plan
from benchmarks.study.table import result_of, summarise
from benchmarks.study.text import as_markdown
from datasets.images.make_split import split_dataset
from recipes import RECIPES
from tests.support.commands import SMALL_NETWORK
from tests.support.places import ROOT
from tests.support.result_folders import write_result
from tests.support.trees import write_picture_tree
from utils.command_line import parse_flags
from utils.config import FIELDS, TRAIN
from utils.errors import UserError
from utils.results.reading import read_result
from utils.scoring.statistics import bootstrap_means, interval

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


def finish(out, seed, part="test_standard", epochs=2, **result):
    """A run as it is once it is tested."""
    write_result(out / part, seed=seed, **result)
    settings = {"epochs": epochs, "folds": 2, "fold": 1, "img_size": result.get("img_size", [224, 224])}
    (out / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (out / "history.csv").write_text("epoch,loss\n" + "1,0.5\n" * epochs, encoding="utf-8")
    cost = {"seconds": 6.0, "epochs": epochs, "peak_bytes": 2**30, "memory": "process", "machines": []}
    (out / "cost.json").write_text(json.dumps(cost | {"parameters": 7, "gflop": 0.1}), encoding="utf-8")


@pytest.fixture
def made_up():
    return Plan(("--dataset", "nowhere"), ("--epochs", "2"), ARMS, seeds=(1, 2))


def dice_pair(found, arm="plain"):
    """The pair of an arm with the first, over all classes."""
    wanted = {"second": arm, "metric": "dice", "class_name": "all classes"}
    (pair,) = (pair for pair in found["comparison"]["pairs"] if wanted.items() <= pair.items())
    return pair


def train_in_words(out, epochs):
    """What a training of `epochs` epochs leaves, of a run set to two."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text('{"epochs": 2, "folds": 0, "fold": 0}', encoding="utf-8")
    (out / "history.csv").write_text("epoch\n" + "1\n" * epochs, encoding="utf-8")
    (out / "epoch_last.pth").touch()
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write("network: 1,234 parameters\n0.25 GFLOP an image\n")


def test_the_table_is_of_the_runs_that_are_finished_and_names_the_others(tmp_path, made_up):
    assert summarise(made_up, tmp_path, "test") is None
    finish(tmp_path / "plain" / "seed_2", 5)
    text = as_markdown(summarise(made_up, tmp_path, "test"))
    assert "| plain | 1 |" in text
    assert "| scsa |" not in text
    assert "not in the table: scsa (1, 2), plain (1) (seeds)" in text
    for seed, shift in ((1, -0.3), (2, 0.05)):  # seed 1 is of no account, since plain lacks it
        finish(tmp_path / "scsa" / f"seed_{seed}", seed, shift=shift)
    found = summarise(made_up, tmp_path, "test")
    assert found["missing"] == {"plain": [1]}
    pair = dice_pair(found)
    assert pair["difference"] == pytest.approx(-0.05, abs=0.01)
    assert pair["p_holm"] < 0.01
    low, high = (f"{100 * end:+.1f}" for end in pair["ci95"])
    (row,) = (row for row in as_markdown(found).splitlines() if row.startswith("| plain | 1 |"))
    assert f" | {100 * pair['difference']:+.1f} [{low}, {high}] | {pair['p_holm']:.3g} | " in row
    assert "different numbers of seeds: scsa 2, plain 1" in as_markdown(found)
    shutil.rmtree(tmp_path / "scsa")
    finish(tmp_path / "third" / "seed_1", 9)
    three = replace(made_up, arms=ARMS | {"third": ()})
    assert "No tests: they are against scsa, which has no finished seed" in as_markdown(
        summarise(three, tmp_path, "test")
    )


def test_p_is_corrected_over_the_arms(tmp_path, made_up):
    three = replace(made_up, arms=ARMS | {"third": ()})
    for number, arm in enumerate(three.arms):
        finish(tmp_path / arm / "seed_1", number, shift=0.002 * number)
    pairs = [dice_pair(summarise(three, tmp_path, "test"), arm) for arm in ("plain", "third")]
    low, high = sorted(pairs, key=lambda pair: pair["p"])
    assert low["p_holm"] == pytest.approx(min(1, 2 * low["p"]))
    assert high["p_holm"] == pytest.approx(max(low["p_holm"], high["p"]))


def test_the_table_tells_of_groups(tmp_path, made_up):
    for number, arm in enumerate(ARMS):
        videos = {"changed": lambda rows: [row.update(group=row["case"][:5]) for row in rows]}  # case0 and case1
        finish(tmp_path / arm / "seed_1", number, **videos)
    text = as_markdown(summarise(made_up, tmp_path, "test"))
    assert "; 12 cases of 2 groups (videos, patients) of the test part;" in text
    assert "interval from resampled groups; Wilcoxon's signed-rank test over groups" in text
    assert "dice: with 2 groups (videos, patients) and 1 pair(s) the smallest possible p is 0.5" in text


def test_an_arm_that_was_chosen_after_a_seed_is_told_without_it(tmp_path, made_up):
    made_up = replace(made_up, chosen_after={"plain": 1})
    finish(tmp_path / "scsa" / "seed_1", 1)
    finish(tmp_path / "plain" / "seed_1", 3, shift=0.1)
    assert "chosen" not in as_markdown(summarise(made_up, tmp_path, "test"))
    finish(tmp_path / "scsa" / "seed_2", 2)
    finish(tmp_path / "plain" / "seed_2", 4, shift=0.02)
    found = summarise(made_up, tmp_path, "test")
    assert dice_pair(found)["difference"] == pytest.approx(0.06, abs=0.01)
    assert found["comparison"]["unseen"]["plain"]["difference"] == pytest.approx(0.02, abs=0.01)
    assert re.search(r"plain was chosen after seed 1 of .* Over the other seeds: \+[12]\.\d \[", as_markdown(found))


def test_the_seconds_are_those_of_the_run_that_was_disturbed_least(tmp_path, made_up):
    for seed, seconds in ((1, 80.0), (2, 6.0)):
        out = tmp_path / "scsa" / f"seed_{seed}"
        finish(out, seed)
        cost = json.loads((out / "cost.json").read_text(encoding="utf-8"))
        (out / "cost.json").write_text(json.dumps(cost | {"seconds": seconds}), encoding="utf-8")
    assert summarise(made_up, tmp_path, "test")["costs"]["scsa"]["seconds_per_epoch"] == 3.0


def test_seeds_that_validated_on_different_folds_make_one_table(tmp_path, made_up):
    """Arms are compared seed by seed and case by case; seed 2 has harder cases, of which seed 1 has some."""

    def of_fold(fold):
        return lambda rows: [row.update(case=f"case{int(row['case'][4:]) + 8 * fold:02d}") for row in rows]

    def finish_val(arm, seed, fold, **result):
        number, shift = seed + 10 * (arm == "plain"), 0.05 * (arm == "plain") - 0.3 * (seed - 1)
        out = tmp_path / arm / f"seed_{seed}"
        finish(out, number, "val_standard_fold1", shift=shift, changed=of_fold(fold), **result)
        return read_result(out / "val_standard_fold1").table("dice").mean(1)

    scsa = finish_val("scsa", 1, 0), finish_val("scsa", 2, 1)
    plain = [finish_val("plain", 1, 0)]
    found = summarise(made_up, tmp_path, "val")
    assert (found["comparison"]["parts"], found["comparison"]["cases"]) == (2, 20)
    assert dice_pair(found)["cases"] == 12
    assert dice_pair(found)["difference"] == pytest.approx((plain[0] - scsa[0]).mean())
    assert "only one of two settings has" not in as_markdown(found)

    plain.append(finish_val("plain", 2, 1))
    found = summarise(made_up, tmp_path, "val")
    first, second = (b - a for a, b in zip(scsa, plain))
    each = np.concatenate([first[:8], (first[8:] + second[:4]) / 2, second[4:]])
    assert dice_pair(found)["cases"] == 20
    assert dice_pair(found)["difference"] == pytest.approx(each.mean())
    assert dice_pair(found)["ci95"] == pytest.approx(interval(bootstrap_means(each[:, None])[:, 0]))
    text = as_markdown(found)
    for setting, tables in zip(found["comparison"]["settings"], (scsa, plain)):
        means = setting["means"]["all classes"]["dice"]
        assert means["seeds"] == pytest.approx([table.mean() for table in tables])
        assert means["mean"] == pytest.approx(np.mean(means["seeds"]))
        assert means["ci95"] == [None, None]
        assert f"| {100 * means['mean']:.1f} ± {100 * means['sd']:.1f} | – |" in text
    assert "validated on other cases, 2 parts in all" in text
    finish_val("plain", 2, 0)
    with pytest.raises(UserError, match="different cases"):
        summarise(made_up, tmp_path, "val")


def test_arms_may_differ_in_input_size_and_epochs_and_the_table_says_so(tmp_path, made_up):
    finish(tmp_path / "scsa" / "seed_1", 1, img_size=[64, 64])
    finish(tmp_path / "plain" / "seed_1", 2, img_size=[64, 64])
    assert "Arms differ" not in as_markdown(summarise(made_up, tmp_path, "test"))
    finish(tmp_path / "plain" / "seed_1", 2, img_size=[96, 96], epochs=4)
    found = summarise(made_up, tmp_path, "test")
    assert "Arms differ: scsa 64x64, 2 epochs; plain 96x96, 4 epochs." in as_markdown(found)
    finish(tmp_path / "plain" / "seed_1", 2, tolerance=3.0)
    with pytest.raises(UserError, match="different surface tolerance"):
        summarise(made_up, tmp_path, "test")


def test_only_the_result_of_the_plain_test_counts(tmp_path):
    finish(tmp_path, 1, part="test_standard_tta")
    assert result_of(tmp_path, "test") is None
    finish(tmp_path, 1, part="val_standard_fold0")
    assert result_of(tmp_path, "val") is None
    finish(tmp_path, 1, part="val_standard_fold1")
    assert result_of(tmp_path, "val") == tmp_path / "val_standard_fold1"


def test_a_table_alone_runs_nothing(tmp_path, made_up, monkeypatch, caplog):
    caplog.set_level("INFO", "heteromedseg")
    monkeypatch.setitem(PLANS, "toy", made_up)
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


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, made_up, monkeypatch):
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
        study.run_all(made_up, tmp_path / "out", "test", 2, lambda: tables.append(1))
    assert "scsa" not in str(caught.value)
    assert len(tables) == 2  # after each that ended well


def test_a_training_that_was_asked_to_stop_is_not_tested_and_goes_on(tmp_path, made_up, monkeypatch):
    calls, log_text = [], "epoch 1 ... peak GPU memory 1.50 GiB\npeak GPU memory 1.25 GiB\n"

    def call(script, *words, log_to):
        calls.append((script, words[0]))
        if script == "train.py":
            train_in_words(log_to.parent, min(len(calls), 2))
            (log_to.parent / "log.txt").write_text((log_to.parent / "log.txt").read_text() + log_text)
        return 0, 5.0 * len(calls), 2**20

    monkeypatch.setattr(study, "call", call)
    out = tmp_path / "scsa" / "seed_1"
    assert "was asked to stop" in study.run_one(made_up, "scsa", 1, out, "test", 0)
    assert calls == [("train.py", "--dataset")]
    assert study.run_one(made_up, "scsa", 1, out, "test", 0) == ""
    assert calls[1:] == [("train.py", "--resume"), ("test.py", "--split")]
    cost = json.loads((out / "cost.json").read_text())
    assert (cost["seconds"], cost["epochs"], cost["parameters"], cost["gflop"]) == (15.0, 2, 1234, 0.25)
    assert (cost["peak_bytes"], cost["memory"], len(cost["machines"])) == (1.5 * 2**30, "GPU", 1)
    # a training that has ended is resumed once more, which takes time but no epoch
    study.run_one(made_up, "scsa", 1, out, "test", 0)
    assert json.loads((out / "cost.json").read_text())["seconds"] == 15.0


def test_a_run_without_its_weights_starts_again(tmp_path, made_up, monkeypatch):
    """As after a kill in the first epoch, or in a clone: git keeps no weights."""
    monkeypatch.setattr(study, "call", lambda script, *words, log_to: pytest.fail(" ".join(words)))
    out = tmp_path / "scsa" / "seed_1"
    train_in_words(out, 2)
    (out / "epoch_last.pth").unlink()
    (out / "best_model.pth").touch()
    with pytest.raises(pytest.fail.Exception, match="--seed 1 --force"):
        study.run_one(made_up, "scsa", 1, out, "test", 0)


def test_runs_at_a_time_have_a_gpu_each(tmp_path, made_up, monkeypatch):
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
    study.run_all(made_up, tmp_path, "test", 2, lambda: None)
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
def test_flags_of_every_plan_are_those_of_train(name):
    for arm in PLANS[name].arms.values():
        parse_flags([*PLANS[name].data, *PLANS[name].train, *arm], TRAIN, "")


def test_the_plans_of_the_queue_are_there_and_every_plan_for_gpus_is_in_it():
    text = (ROOT / "results" / "GPU_QUEUE.md").read_text(encoding="utf-8")
    queued = set(re.findall(r"`python -m benchmarks\.study (\w+)(?: --val)?`", text))
    assert queued == {"cvc_tiny", *(name for name in PLANS if name.endswith("_gpu"))}


def test_an_unknown_plan():
    with pytest.raises(UserError, match="plan nothing: expected one of cvc_cpu"):
        study.main(["nothing"])
