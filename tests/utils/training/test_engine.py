"""The training loop: accumulation, averaging, which checkpoint is kept, what is written."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from datasets.augment import Draws, binary_warp
from models import build_model
from tests.support.shallow import SMALL
from tests.support.toy import ToyNetwork, assert_same_weights, losses, toy_config, toy_task, train_toy
from utils import checkpoint
from utils.errors import UserError
from utils.preprocess.intensities import as_fraction, normalise
from utils.training.batches import EpochBatches, train_loader
from utils.training.engine import prepare, train_one_epoch, train_step
from utils.training.folder import BEST, LAST
from utils.training.run import parameter_groups, start, update_average
from utils.training.schedule import learning_rate, selection_rule
from utils.training.stopping import StopRequest


def test_training_learns_and_a_seed_means_one_train_toy(tmp_path):
    first, again = train_toy(tmp_path / "a", epochs=12), train_toy(tmp_path / "b", epochs=12)
    other = train_toy(tmp_path / "c", epochs=12, seed=5)
    assert losses(first) == losses(again)
    assert losses(first) != losses(other)
    assert losses(first)[-1] < 0.8 * losses(first)[0]
    assert first["history"][-1]["mean_dice"] > first["history"][0]["mean_dice"]
    assert {"dice one", "dice two", "lr", "images_per_s", "iteration"} <= first["history"][0].keys()


def test_augmentation_and_its_switch(tmp_path):
    assert losses(train_toy(tmp_path / "with")) != losses(train_toy(tmp_path / "without", augment=False))


def test_what_is_augmented_does_not_follow_from_what_is_dropped():
    """Each flip and the rotation happen to a quarter of the images, and of those that drop any one branch."""
    changed, dropped = [], []

    def record(images, targets, generator, total, offset):
        plan = binary_warp(Draws(generator, len(images), total, offset))
        changed.append(torch.stack([plan.flip_x, plan.flip_y, plan.moved]))
        return images, targets

    model = build_model(1, drop_path=0.5, **SMALL)
    task, batch = dataclasses.replace(toy_task(), augment=record), (torch.zeros(42, 1, 1, 1), torch.zeros(42, 1, 1))
    for position in range(200):
        prepare(*batch, task, toy_config("unused"), torch.device("cpu"), position, 42, 0)
        dropped.append(model.draw_paths(42, torch.device("cpu")) == 0)
    changed, dropped = torch.cat(changed, dim=1), torch.cat(dropped, dim=1).movedim(2, 1).flatten(0, 1)
    branches = dropped[dropped.any(1)]
    assert len(branches) == 4
    for branch in branches:
        assert changed[:, branch].float().mean(1).tolist() == pytest.approx([0.25] * 3, abs=0.05)


def test_accumulated_batches_have_the_mean_of_their_gradients(monkeypatch, tmp_path):
    """Batches of 4, 4 and 3 images, two to an update: the last update has a single batch."""
    task, cfg = toy_task(), toy_config(tmp_path, accumulate=2, augment=False)
    model = ToyNetwork().eval()
    monkeypatch.setattr(model, "train", lambda mode=True: model)
    monkeypatch.setattr(model, "draw_paths", lambda count, device: torch.ones(1, count))  # nothing is dropped
    batches, gradients = EpochBatches(11, 4, cfg.seed), []
    for indices in batches:
        images, targets = task.train_set[indices]
        loss = task.loss(model(normalise(images, task.preprocess)), targets)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    expected = [[(a + b) / 2 for a, b in zip(*gradients[:2])], gradients[2]]
    state, seen = start(model, cfg, torch.device("cpu"), "fp32"), []
    state.optimizer.step = lambda *_, **__: seen.append([p.grad.clone() for p in model.parameters()])
    train_one_epoch(
        state, task, cfg, train_loader(task.train_set, batches, cfg, pin=False), "last", tmp_path, StopRequest()
    )
    assert len(seen) == 2
    for mine, by_hand in zip(seen, expected):
        for a, b in zip(mine, by_hand):
            torch.testing.assert_close(a, b)


def test_the_moving_average_equals_pytorchs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    mine, oracle = (AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True) for _ in range(2))
    for _ in range(3):
        with torch.no_grad():
            for tensor in (*model.parameters(), model[1].running_mean):
                tensor.add_(torch.randn_like(tensor))
        update_average(mine, model, 0.9)
        oracle.update_parameters(model)
        assert_same_weights(mine.state_dict(), oracle.state_dict())


def test_gradients_are_clipped_to_their_norm(tmp_path):
    task, cfg = toy_task(), toy_config("unused", clip_grad=1e-3)
    model = ToyNetwork()
    state = start(model, cfg, torch.device("cpu"), "fp32")
    norms = []
    state.optimizer.step = lambda *_, **__: norms.append(
        math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    )
    images, targets = task.train_set.tensors
    train_step(state, task, cfg, images[:4], targets[:4], 1, True)
    assert norms == [pytest.approx(1e-3, rel=1e-3)]


def test_weight_decay_spares_vectors_and_the_state_space_parameters():
    model = ToyNetwork()
    decay, rest = parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in decay["params"]] == ["conv.weight", "out.weight"]
    assert {names[id(p)] for p in rest["params"]} == {"A_log", "conv.bias", "norm.weight", "norm.bias"}
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_the_optimizer_uses_the_schedule(tmp_path):
    state = train_toy(tmp_path, epochs=3)
    cfg = toy_config(tmp_path)
    expected = [learning_rate(cfg, 3 * epoch + 2, 3) for epoch in range(3)]
    assert [record["lr"] for record in state["history"]] == pytest.approx(expected)
    assert state["iteration"] == 9


# --- which checkpoint is kept --------------------------------------------------------------------


def test_validation_keeps_the_best_epoch_and_its_weights(tmp_path):
    state = train_toy(tmp_path, epochs=6)
    scores = [record["mean_dice"] for record in state["history"]]
    best = checkpoint.read(tmp_path / BEST)
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert best["selection"] == "validation"
    assert state["best"] == max(scores)


def test_without_validation_the_end_of_the_last_complete_cycle_is_kept(tmp_path):
    """11 images in batches of 4: 3 updates an epoch, cycles of 4 and 8 end at updates 4 and 12 of 15."""
    train_toy(tmp_path, task=toy_task(validate=False), epochs=5)
    best = checkpoint.read(tmp_path / BEST)
    assert (best["iteration"], best["selection"]) == (12, "cycle_end")


def test_select_last_keeps_the_last_epoch(tmp_path):
    state = train_toy(tmp_path, select="last", ema=0.5)
    best = checkpoint.read(tmp_path / BEST)
    assert (best["epoch"], best["selection"]) == (4, "last")
    average = {name.removeprefix("module."): value for name, value in state["ema"].items() if name != "n_averaged"}
    assert_same_weights(best["model"], average)
    assert not torch.equal(best["model"]["conv.weight"], state["model"]["conv.weight"])


@pytest.mark.parametrize(
    ("fields", "validate", "message"),
    [
        ({"select": "test"}, True, "--select test: this task has no test part"),
        ({"select": "validation"}, False, "--select validation: this task has no validation part"),
        ({"select": "cycle_end", "schedule": "cosine"}, False, "complete no warm-restart cycle"),
        ({"select": "cycle_end", "epochs": 1, "restart_iterations": 50}, False, "3 updates .* complete no"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(fields, validate, message):
    with pytest.raises(UserError, match=message):
        selection_rule(toy_config("unused", **fields), toy_task(validate=validate), 3)


# --- what is written --------------------------------------------------------------------------------


def test_a_diverged_loss_stops_with_a_remedy_and_keeps_the_last_checkpoint(tmp_path):
    task = toy_task()
    task.train_set.tensors[0][0] = math.nan
    with pytest.raises(UserError, match=r"the loss became nan in epoch 1 .*; nothing was saved yet\. .*--force"):
        train_toy(tmp_path, task=task)
    assert not (tmp_path / LAST).exists()


@pytest.mark.parametrize(
    ("at", "fields", "name"),
    [
        (4, {"select": "cycle_end", "log_every": 1000}, BEST),  # the cycle's last update, between two lines of the log
        (6, {}, LAST),  # the last update of an epoch, after a finite loss
        (6, {"ema": 0.9}, LAST),
    ],
)
def test_ruined_weights_are_never_saved(tmp_path, monkeypatch, at, fields, name):
    """Update number `at` makes one weight infinite; the loss before it is finite."""
    steps = []

    def ruin(run, task, cfg, *rest):
        loss = train_step(run, task, cfg, *rest)
        steps.append(loss)
        if len(steps) == at:
            with torch.no_grad():
                run.model.conv.weight[0, 0, 0, 0] = math.inf
                if run.ema:
                    run.ema.module.conv.weight[0, 0, 0, 0] = math.inf
        return loss

    monkeypatch.setattr("utils.training.engine.train_step", ruin)
    with pytest.raises(UserError, match=rf"infinite or NaN for {name} in epoch 2 .*{LAST} still holds .*--resume"):
        train_toy(tmp_path, **fields)
    state = checkpoint.read(tmp_path / LAST)
    assert state["epoch"] == 1
    assert all(value.isfinite().all() for value in state["model"].values())
    assert name == LAST or not (tmp_path / BEST).exists()


def test_tensorboard_holds_scalars_and_overlays(tmp_path):
    train_toy(tmp_path, epochs=2)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "validation/mean_dice", "validation/dice/one"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2]
    assert "overlay/0" in events.Tags()["images"]


def test_integer_images_are_fractions_of_their_range():
    assert as_fraction(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
    assert as_fraction(torch.tensor([0.5], dtype=torch.float16)).dtype == torch.float32


def test_an_update_is_counted_once_for_all_its_batches(tmp_path):
    state = train_toy(tmp_path, epochs=2, batch_size=4, accumulate=2)  # 11 images: batches of 4, 4 and 3
    assert state["iteration"] == 4
    rates = [learning_rate(toy_config(tmp_path, epochs=2, batch_size=4, accumulate=2), i, 2) for i in (1, 3)]
    assert [record["lr"] for record in state["history"]] == rates
