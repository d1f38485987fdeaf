"""The training loop: resuming bit for bit, accumulation, averaging, which checkpoint is kept, what is written."""

import csv
import dataclasses
import math
from itertools import chain

import pytest
import torch

from tests.support.toy import ToyNetwork, toy_config, toy_task
from utils import checkpoint
from utils.errors import UserError
from utils.training.batches import EpochBatches
from utils.training.engine import as_fraction, fit, selection_rule
from utils.training.run import BEST, LAST, claim_folder, open_folder, parameter_groups, start
from utils.training.schedule import learning_rate
from utils.training.task import hash_names

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def _device(device, monkeypatch):
    monkeypatch.setattr(f"{__name__}.DEVICE", device)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def run(folder, task=None, **fields):
    """Train the toy; returns its last checkpoint."""
    cfg = toy_config(folder, **fields)
    torch.manual_seed(3)
    model = ToyNetwork()
    open_folder(cfg, claim_folder(cfg))
    fit(model, task or toy_task(), cfg, DEVICE, "fp32")
    return checkpoint.read(folder / LAST)


def losses(state):
    return [record["loss"] for record in state["history"]]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("fields", [{}, {"ema": 0.9}, {"accumulate": 2}, {"optimizer": "adam", "clip_grad": 0.1}])
def test_two_epochs_and_two_more_equal_four_bit_for_bit(tmp_path, fields):
    whole = run(tmp_path / "whole", **fields)
    run(tmp_path / "halves", epochs=2, **fields)
    halves = run(tmp_path / "halves", epochs=4, resume=True, **fields)
    assert losses(whole) == losses(halves)
    assert_same_weights(whole["model"], halves["model"])
    if "ema" in fields:
        assert_same_weights(whole["ema"], halves["ema"])
    assert (whole["iteration"], whole["best"]) == (halves["iteration"], halves["best"])
    with (tmp_path / "halves" / "history.csv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == losses(whole)


def test_training_learns_and_a_seed_means_one_run(tmp_path):
    first, again = run(tmp_path / "a", epochs=12), run(tmp_path / "b", epochs=12)
    other = run(tmp_path / "c", epochs=12, seed=5)
    assert losses(first) == losses(again)
    assert losses(first) != losses(other)
    assert losses(first)[-1] < 0.8 * losses(first)[0]
    assert first["history"][-1]["mean_dice"] > first["history"][0]["mean_dice"]
    assert {"dice one", "dice two", "lr", "images_per_s", "iteration"} <= first["history"][0].keys()


def test_augmentation_and_its_switch(tmp_path):
    assert losses(run(tmp_path / "with")) != losses(run(tmp_path / "without", augment=False))


def test_accumulated_batches_have_the_mean_of_their_gradients():
    """Two batches accumulated = one step along the mean gradient, by hand."""
    task = toy_task(num_images=8)
    from utils.training.engine import train_step

    model = ToyNetwork().to(DEVICE).eval()
    by_hand = [torch.zeros_like(p) for p in model.parameters()]
    images, targets = (x.to(DEVICE) for x in task.train_set.tensors)
    for part in (slice(0, 4), slice(4, 8)):
        model.zero_grad()
        task.loss(model(images[part]), targets[part]).backward()
        by_hand = [total + p.grad / 2 for total, p in zip(by_hand, model.parameters())]
    cfg = toy_config("unused", accumulate=2)
    state = start(model, cfg, DEVICE, "fp32")
    seen = []
    state.optimizer.step = lambda *_, **__: seen.extend(p.grad.clone() for p in model.parameters())
    model.zero_grad()
    for part, update in ((slice(0, 4), False), (slice(4, 8), True)):
        train_step(state, task, cfg, images[part], targets[part], update)
    for mine, expected in zip(seen, by_hand):
        torch.testing.assert_close(mine, expected)


def test_gradients_are_clipped_to_their_norm(tmp_path):
    from utils.training.engine import train_step

    task, cfg = toy_task(), toy_config("unused", clip_grad=1e-3)
    model = ToyNetwork()
    state = start(model, cfg, DEVICE, "fp32")
    norms = []
    state.optimizer.step = lambda *_, **__: norms.append(
        math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    )
    images, targets = (x.to(DEVICE) for x in task.train_set.tensors)
    train_step(state, task, cfg, images[:4], targets[:4], True)
    assert norms == [pytest.approx(1e-3, rel=1e-3)]


def test_weight_decay_spares_vectors_and_the_state_space_parameters():
    model = ToyNetwork()
    decay, rest = parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [names[id(p)] for p in decay["params"]] == ["conv.weight", "out.weight"]
    assert {names[id(p)] for p in rest["params"]} == {"A_log", "conv.bias", "norm.weight", "norm.bias"}
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_the_optimizer_uses_the_schedule(tmp_path):
    state = run(tmp_path, epochs=3)
    cfg = toy_config(tmp_path)
    expected = [learning_rate(cfg, 3 * epoch + 2, 3) for epoch in range(3)]
    assert [record["lr"] for record in state["history"]] == pytest.approx(expected)
    assert state["iteration"] == 9


# --- which checkpoint is kept --------------------------------------------------------------------


def test_validation_keeps_the_best_epoch_and_its_weights(tmp_path):
    state = run(tmp_path, epochs=6)
    scores = [record["mean_dice"] for record in state["history"]]
    best = checkpoint.read(tmp_path / BEST)
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert best["selection"] == "validation"
    assert state["best"] == max(scores)


def test_without_validation_the_end_of_the_last_complete_cycle_is_kept(tmp_path):
    """11 images in batches of 4: 3 updates an epoch, cycles of 4 and 8 end at updates 4 and 12 of 15."""
    run(tmp_path, task=toy_task(validate=False), epochs=5)
    best = checkpoint.read(tmp_path / BEST)
    assert (best["iteration"], best["selection"]) == (12, "cycle_end")


def test_select_last_keeps_the_last_epoch(tmp_path):
    state = run(tmp_path, select="last", ema=0.5)
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


# --- what is there already, what is written --------------------------------------------------------


def test_a_run_is_neither_overwritten_nor_resumed_by_accident(tmp_path):
    run(tmp_path, epochs=1)
    before = (tmp_path / LAST).read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        run(tmp_path, epochs=1)
    assert (tmp_path / LAST).read_bytes() == before
    with pytest.raises(UserError, match="batch_size 4 -> 5"):
        run(tmp_path, epochs=2, batch_size=5, resume=True)
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()
    assert len(run(tmp_path, epochs=2, force=True)["history"]) == 2


def test_resuming_another_network_or_file_is_refused(tmp_path):
    run(tmp_path, epochs=1)
    checkpoint.save(tmp_path / LAST, {"model": {}})
    with pytest.raises(UserError, match=r"not an epoch_last\.pth"):
        run(tmp_path, epochs=2, resume=True)


def test_a_diverged_loss_stops_with_a_remedy_and_keeps_the_last_checkpoint(tmp_path):
    task = toy_task()
    task.train_set.tensors[0][0] = math.nan
    with pytest.raises(UserError, match="the loss became nan in epoch 1"):
        run(tmp_path, task=task)
    assert not (tmp_path / LAST).exists()


def test_tensorboard_holds_scalars_and_overlays(tmp_path):
    run(tmp_path, epochs=2)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "validation/mean_dice", "validation/dice/one"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2]
    assert "overlay/0" in events.Tags()["images"]


# --- batches -------------------------------------------------------------------------------------


def test_every_image_is_seen_once_an_epoch_in_a_new_order():
    batches = EpochBatches(11, 4, seed=1)
    first = list(batches)
    assert [len(b) for b in first] == batches.sizes == [4, 4, 3]
    assert sorted(chain(*first)) == list(range(11))
    batches.epoch = 1
    assert list(batches) != first
    batches.epoch = 0
    assert list(batches) == first
    assert list(EpochBatches(11, 4, seed=2)) != first


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_batches_of_one_process(monkeypatch, world):
    whole = list(EpochBatches(11, 4, seed=1))
    parts = []
    monkeypatch.setattr("utils.training.batches.world_size", lambda: world)
    for r in range(world):
        monkeypatch.setattr("utils.training.batches.rank", lambda r=r: r)
        batches = EpochBatches(11, 4, seed=1)
        mine = list(batches)
        parts.append(mine)
        for index, part in enumerate(mine):
            offset = batches.offset(index)
            assert whole[index][offset : offset + len(part)] == part
    assert [list(chain(*(p[i] for p in parts))) for i in range(len(parts[0]))] == whole


def test_integer_images_are_fractions_of_their_range():
    assert as_fraction(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
    assert as_fraction(torch.tensor([0.5], dtype=torch.float16)).dtype == torch.float32


def test_a_run_is_not_resumed_on_other_cases(tmp_path):
    split = hash_names(["a", "b"], ["c"])
    state = run(tmp_path, dataclasses.replace(toy_task(), split_sha256=split))
    assert state["split_sha256"] == split
    again = hash_names(["b", "a"], ["c"])
    run(tmp_path, dataclasses.replace(toy_task(), split_sha256=again), resume=True, epochs=2)
    for other in (hash_names(["a"], ["b", "c"]), hash_names(["a", "b"], []), hash_names(["a", "b", "c"])):
        with pytest.raises(UserError, match="trained on other cases"):
            run(tmp_path, dataclasses.replace(toy_task(), split_sha256=other), resume=True, epochs=3)


def test_an_update_is_counted_once_for_all_its_batches(tmp_path):
    state = run(tmp_path, epochs=2, batch_size=4, accumulate=2)  # 11 images: batches of 4, 4 and 3
    assert state["iteration"] == 4
    rates = [learning_rate(toy_config(tmp_path, epochs=2, batch_size=4, accumulate=2), i, 2) for i in (1, 3)]
    assert [record["lr"] for record in state["history"]] == rates
