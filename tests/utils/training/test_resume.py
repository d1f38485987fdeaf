"""`--resume`: bit for bit where it was; what may change is applied and said, what may not is refused."""

import csv
import dataclasses
import json

import pytest
import torch

from datasets.images.make_split import split_dataset
from models.build import build_network
from recipes import RECIPES
from tests.support.commands import SMALL_NETWORK
from tests.support.toy import ToyNetwork, assert_same_weights, losses, saved_state, toy_config, toy_task, train_toy
from tests.support.trees import write_picture_tree
from train import configure, main
from utils import checkpoint
from utils.config import FIELDS, TRAIN, Config
from utils.errors import UserError
from utils.inherited import AGREE, APPLY, KEEP, NO_PART, ON_RESUME
from utils.log import logging_to
from utils.training.folder import LAST
from utils.training.resume import restore
from utils.training.run import start
from utils.training.schedule import learning_rate
from utils.training.task import hash_names


@pytest.mark.parametrize("fields", [{}, {"ema": 0.9}, {"accumulate": 2}, {"optimizer": "adam", "clip_grad": 0.1}])
def test_two_epochs_and_two_more_equal_four_bit_for_bit(tmp_path, fields):
    whole = train_toy(tmp_path / "whole", **fields)
    train_toy(tmp_path / "halves", epochs=2, **fields)
    halves = train_toy(tmp_path / "halves", epochs=4, resume=True, **fields)
    assert losses(whole) == losses(halves)
    assert_same_weights(whole["model"], halves["model"])
    if "ema" in fields:
        assert_same_weights(whole["ema"], halves["ema"])
    assert (whole["iteration"], whole["best"]) == (halves["iteration"], halves["best"])
    with (tmp_path / "halves" / "history.csv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == losses(whole)


def test_a_run_is_neither_overwritten_nor_resumed_by_accident(tmp_path):
    train_toy(tmp_path, epochs=1)
    before = (tmp_path / LAST).read_bytes(), (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        train_toy(tmp_path, epochs=1)
    with pytest.raises(UserError, match="batch_size 4 -> 5"):
        train_toy(tmp_path, epochs=2, batch_size=5, resume=True)
    assert before == ((tmp_path / LAST).read_bytes(), (tmp_path / "config.json").read_bytes())
    with pytest.raises(UserError, match="does not exist"):
        train_toy(tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()
    assert len(train_toy(tmp_path, epochs=2, force=True)["history"]) == 2


def test_resuming_another_network_or_file_is_refused(tmp_path):
    train_toy(tmp_path, epochs=1)
    checkpoint.save(tmp_path / LAST, {"model": {}})
    with pytest.raises(UserError, match=r"not an epoch_last\.pth"):
        train_toy(tmp_path, epochs=2, resume=True)


def test_a_run_is_not_resumed_on_other_cases(tmp_path):
    split = hash_names(["a", "b"], ["c"])
    state = train_toy(tmp_path, dataclasses.replace(toy_task(), split_sha256=split))
    assert state["split_sha256"] == split
    again = hash_names(["b", "a"], ["c"])
    train_toy(tmp_path, dataclasses.replace(toy_task(), split_sha256=again), resume=True, epochs=2)
    for other in (hash_names(["a"], ["b", "c"]), hash_names(["a", "b"], []), hash_names(["a", "b", "c"])):
        with pytest.raises(UserError, match="trained on other cases"):
            train_toy(tmp_path, dataclasses.replace(toy_task(), split_sha256=other), resume=True, epochs=3)


# --- the table of what may change -------------------------------------------------------------------


def test_the_table_has_an_entry_for_every_field():
    assert ON_RESUME.keys() == FIELDS.keys()
    assert set(ON_RESUME.values()) == {AGREE, APPLY, KEEP, NO_PART}
    for name, field in FIELDS.items():
        if field.metadata["verbs"] and TRAIN not in field.metadata["verbs"]:
            assert ON_RESUME[name] == NO_PART, name


@pytest.mark.parametrize("name", [name for name, kind in ON_RESUME.items() if kind == AGREE])
def test_another_setting_is_refused_by_its_name(tmp_path, name):
    cfg = Config()
    state = saved_state(cfg)
    another = dataclasses.replace(cfg.preprocess, resize="another") if name == "preprocess" else "another"
    other = dataclasses.replace(cfg, **{name: another})
    with pytest.raises(UserError, match=f"--resume: FILE was trained with other settings: {name} .* -> .*another"):
        restore(None, state, other, toy_task(), "FILE")


def goes_on(folder, **fields):
    """Losses and rates of an epoch that goes on from a copy of an epoch with the toy's own settings."""
    train_toy(folder, epochs=1)
    return train_toy(folder, epochs=2, resume=True, **fields)["history"][1]


def test_changed_settings_are_applied_recorded_and_said(tmp_path):
    plain = goes_on(tmp_path / "plain")
    for name, value in {"lr": 0.01, "min_lr": 1e-3, "clip_grad": 1e-6, "augment": False}.items():
        with logging_to(tmp_path / "log.txt"):
            found = goes_on(tmp_path / name, **{name: value})
        said = f"changed on --resume: {name} {getattr(toy_config(''), name)} -> {value}\n"
        assert said in (tmp_path / "log.txt").read_text(encoding="utf-8")
        assert json.loads((tmp_path / name / "config.json").read_text())[name] == value
        assert (found["loss"], found["lr"]) != (plain["loss"], plain["lr"]), name
    assert goes_on(tmp_path / "rate", lr=0.01)["lr"] == learning_rate(toy_config("", lr=0.01), 5, 3)


def test_the_optimizer_takes_the_new_settings_and_the_old_moments(tmp_path):
    train_toy(tmp_path, epochs=1)
    state = checkpoint.read(tmp_path / LAST)
    for group in state["optimizer"]["param_groups"]:
        group |= {"betas": (0.5, 0.6), "fused": None, "eps": 1.0}  # as another version may have set them
    cfg = toy_config(tmp_path, weight_decay=0.3)
    run = start(ToyNetwork(), cfg, torch.device("cpu"), "fp32")
    before = [{k: v for k, v in group.items() if k != "params"} for group in run.optimizer.param_groups]
    restore(run, state, cfg, toy_task(), "FILE")
    assert [{k: v for k, v in group.items() if k != "params"} for group in run.optimizer.param_groups] == before
    assert [group["weight_decay"] for group in before] == [0.3, 0.0]
    moments = run.optimizer.state_dict()["state"]
    assert all(torch.equal(moments[i]["exp_avg"], old["exp_avg"]) for i, old in state["optimizer"]["state"].items())


def test_a_run_may_go_on_in_another_precision(tmp_path):
    """A loss scale exists in float16 only."""
    train_toy(tmp_path, epochs=1)
    run = start(ToyNetwork(), toy_config(tmp_path), torch.device("cpu"), "fp16")
    state = checkpoint.read(tmp_path / LAST)
    restore(run, state, toy_config(tmp_path), toy_task(), "FILE")
    scale = run.scaler.get_scale()
    state["scaler"] = run.scaler.state_dict() | {"scale": 4.0}
    restore(run, state, toy_config(tmp_path), toy_task(), "FILE")
    assert (scale, run.scaler.get_scale()) == (65536.0, 4.0)


def test_the_precision_that_auto_found_stays(tmp_path, monkeypatch):
    """On a CPU `auto` is measured, and a busy machine measures something else."""
    tree = write_picture_tree(tmp_path / "data")
    out = ["--output_dir", str(tmp_path / "run")]
    data = ["--dataset", str(tree), "--csvfile", str(tmp_path / "split.csv")]
    split_dataset(tree, 0.8, output=tmp_path / "split.csv")
    small = ["--img_size", "32", "--batch", "4", "--folds", "2", "--workers", "0", "--device", "cpu"]
    small += map(str, SMALL_NETWORK)
    monkeypatch.setattr("utils.device._is_fast_at_bf16", lambda device: True)
    main([*data, *small, *out, "--epochs", "1"])
    monkeypatch.setattr("utils.device._is_fast_at_bf16", lambda device: False)
    main([*out, "--resume"])
    assert checkpoint.read(tmp_path / "run" / LAST)["config"]["precision"] == "bf16"
    main([*out, "--resume", "--precision", "auto", "--epochs", "2"])
    assert checkpoint.read(tmp_path / "run" / LAST)["config"]["precision"] == "fp32"


def test_the_first_weights_stay_on_record(tmp_path):
    train_toy(tmp_path, epochs=1, pretrained="biformer.pth")
    with pytest.raises(UserError, match=r"other settings: pretrained biformer\.pth -> none"):
        train_toy(tmp_path, epochs=2, resume=True, pretrained="none")
    state = train_toy(tmp_path, epochs=2, resume=True, pretrained="auto")
    assert state["config"]["pretrained"] == "biformer.pth"
    assert json.loads((tmp_path / "config.json").read_text())["pretrained"] == "biformer.pth"


# --- the command ------------------------------------------------------------------------------------


def finished_epoch(folder, **fields):
    """A run of one epoch of isic2018 with settings of its own, as the command would leave it."""
    settings = {"lr": 0.007, "img_size": (64, 32), "root_path": str(folder), "seed": 5, "folds": 2} | fields
    cfg = dataclasses.replace(RECIPES["isic2018"], **settings)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(folder / LAST, saved_state(cfg))
    return cfg


def test_resume_takes_the_settings_of_the_run(tmp_path):
    before = finished_epoch(tmp_path / "run", force=True)
    out = str(tmp_path / "run")
    found = configure(["--resume", "--output_dir", out])
    assert found == dataclasses.replace(before, output_dir=out, resume=True, force=False)
    found = configure(["--resume", "--output_dir", out, "--epochs", "9", "--dataset", str(tmp_path), "--no-augment"])
    assert (found.epochs, found.root_path, found.augment, found.lr) == (9, str(tmp_path), False, 0.007)
    assert (found.recipe, found.dataset) == ("isic2018", str(tmp_path))
    for flags in (("--img_size", "64"), ("--pretrained", "other.pth")):  # refused before any data is read
        with pytest.raises(UserError, match=f"other settings: {flags[0][2:]} "):
            configure(["--resume", "--output_dir", out, *flags])
    with pytest.raises(UserError, match="--resume and --force"):
        configure(["--resume", "--output_dir", out, "--force"])
    with pytest.raises(UserError, match=r"--resume: .*nowhere/epoch_last\.pth does not exist"):
        configure(["--resume", "--output_dir", str(tmp_path / "nowhere")])


def test_resume_of_all_folds_takes_the_settings_of_the_first(tmp_path):
    finished_epoch(tmp_path / "fold_0", fold="0")
    finished_epoch(tmp_path / "fold_1", fold="1")
    found = configure(["--resume", "--fold", "all", "--output_dir", str(tmp_path)])
    assert (found.fold, found.output_dir, found.lr) == ("all", str(tmp_path), 0.007)
    with pytest.raises(UserError, match="holds the folds of a cross-validation; give --fold all"):
        configure(["--resume", "--output_dir", str(tmp_path)])


def test_a_data_folder_that_is_gone_is_said_to_be_the_runs(tmp_path):
    finished_epoch(tmp_path / "run", root_path="/data/elsewhere")
    with pytest.raises(UserError, match=r"root_path /data/elsewhere: no such folder; .*training, from .*--root_path"):
        configure(["--resume", "--output_dir", str(tmp_path / "run")])
    assert configure(["--resume", "--output_dir", str(tmp_path / "run"), "--root_path", "there"]).root_path == "there"


def test_the_network_of_a_resumed_run_is_not_initialised_twice():
    _, fresh = build_network(Config(network="heteromedseg"), torch.device("cpu"))
    _, resumed = build_network(Config(resume=True, pretrained="/a/file/that/is/gone.pth"), torch.device("cpu"))
    assert any("initialised from scratch" in line for line in fresh)
    assert not any("initialised" in line for line in resumed)
