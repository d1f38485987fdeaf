"""Batches of indices: every image once an epoch, the same for any number of ranks; the last, smaller batch."""

import dataclasses
import re
from itertools import chain

import pytest
from torch.utils.data import TensorDataset

import isic_polyp_rectal.task as pictures
import synapse_train_test.task as volumes
from tests.support.toy import toy_config, toy_task, train_toy
from utils.errors import UserError
from utils.training.batches import EpochBatches
from utils.training.schedule import learning_rate


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


@pytest.mark.parametrize(
    ("num_images", "sizes", "said"),
    [
        (12, [4, 4, 4], "3 batches an epoch"),
        (11, [4, 4], "2 batches an epoch; .* each epoch lacks 3 images.*"),
        (3, [3], "1 batch an epoch; .* its one batch has 3 images"),
    ],
)
def test_the_incomplete_batch_is_left_out_unless_it_is_the_only_one(num_images, sizes, said):
    batches = EpochBatches(num_images, 4, seed=1, drop_last=True)
    assert [len(batch) for batch in batches] == batches.sizes == sizes
    assert len(batches) == len(sizes)
    assert re.fullmatch(said, batches.describe())


def test_schedules_and_logs_count_the_batches_that_are_used(tmp_path):
    state = train_toy(tmp_path, epochs=2, drop_last=True)
    assert state["iteration"] == 4
    rates = [learning_rate(toy_config(tmp_path, epochs=2), i, 2) for i in (1, 3)]
    assert [record["lr"] for record in state["history"]] == rates


def test_a_set_smaller_than_a_batch_is_trained_on(tmp_path):
    task = dataclasses.replace(toy_task(validate=False), train_set=TensorDataset(*toy_task().train_set[:2]))
    assert train_toy(tmp_path, task, epochs=2, drop_last=True)["iteration"] == 2


def test_fewer_images_than_ranks_are_refused(monkeypatch):
    monkeypatch.setattr("utils.training.batches.world_size", lambda: 4)
    assert EpochBatches(11, 4, seed=1).sizes == [4, 4]
    with pytest.raises(UserError, match="--batch_size 3: a batch of 3 images is too small for 4 processes"):
        EpochBatches(11, 3, seed=1)


def test_the_published_binary_recipes_leave_it_out():
    assert all(recipe.drop_last for recipe in pictures.RECIPES.values())
    assert not any(recipe.drop_last for recipe in volumes.RECIPES.values())
