"""Batch size, recomputation and cache that fit in memory."""

import dataclasses
import math
import shutil
from types import SimpleNamespace

import pytest
import torch

from isic_polyp_rectal.cross_validation import train_folds
from models import memory
from models.memory import LARGEST, choose_cache, fit_batch, largest, settle_memory, step_bytes
from tests.support.shallow import SMALL
from tests.support.strict_group import under_torchrun
from utils.config import AUTO_BATCH, Config
from utils.distributed import barrier, init_distributed, rank
from utils.errors import UserError
from utils.training.losses import loss_for

CPU = torch.device("cpu")


def config(**fields) -> Config:
    return Config(img_size=(64, 96), **fields)


def settle(cfg, data_bytes=0):
    return settle_memory(cfg, CPU, "fp32", None, data_bytes)


@pytest.fixture
def free(monkeypatch):
    """A function that sets the free memory in GB and the free disk space in bytes."""

    def pretend(gigabytes, disk=0):
        monkeypatch.setattr(memory, "free_memory", lambda device: gigabytes * 1e9)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))

    return pretend


@pytest.mark.parametrize(
    ("first", "second", "free", "count"),
    [
        (30, 50, 30, 2),  # each image takes 10, and 10 are taken anyway
        (30, 50, 29, 1),
        (30, 50, 10, 0),
        (30, 50, 89, 7),
        (30, 50, 99, 8),
        (30, 50, 250, 24),
        (30, 50, 251, 24),
        (30, 50, 249, 16),
        (30, 50, 10**9, LARGEST),
        (30, math.inf, 100, 2),
        (math.inf, math.inf, 100, 0),
    ],
)
def test_largest(first, second, free, count):
    assert largest(first, second, free) == count


@pytest.mark.parametrize("gigabytes", [1.5, 3.0, 20.0])
def test_the_estimated_step_fills_the_free_memory(free, gigabytes):
    free(gigabytes)
    cfg, notes = settle(config(batch_size=AUTO_BATCH))
    count = cfg.batch_size
    more = count + 8 if count >= 8 else count + 1
    assert step_bytes(cfg, "fp32", count) <= 0.9 * gigabytes * 1e9 < step_bytes(cfg, "fp32", more)
    assert count <= 8 or count % 8 == 0
    assert cfg.recompute == "no"
    assert f"batch size {count}" in notes[0]


def test_a_cached_data_set_leaves_less_for_the_batch(free):
    free(4.0)
    alone, _ = settle(config(batch_size=AUTO_BATCH))
    beside, _ = settle(config(batch_size=AUTO_BATCH), data_bytes=int(1.9e9))
    assert beside.cache == "yes"
    assert beside.batch_size < alone.batch_size
    assert step_bytes(beside, "fp32", beside.batch_size) + 1.9e9 <= 4e9


def test_where_no_image_fits_the_remedy_is_named(free):
    free(0.5)
    with pytest.raises(UserError, match=r"--batch_size auto: not one image of 64x96 .* --img_size"):
        settle(config(batch_size=AUTO_BATCH))
    with pytest.raises(UserError, match="--recompute yes"):
        settle(config(batch_size=AUTO_BATCH, recompute="no"))


def test_where_the_free_memory_is_unknown_a_number_is_asked_for(free):
    free(math.inf)
    with pytest.raises(UserError, match="give a number"):
        settle(config(batch_size=AUTO_BATCH))
    assert settle(config(batch_size=4))[0].recompute == "no"


@pytest.mark.parametrize(
    ("limit", "start", "found", "attempts"),
    [(16, 32, 16, [32, 24, 16]), (5, 8, 5, [8, 7, 6, 5]), (0, 2, 0, [2, 1])],
)
def test_a_step_that_does_not_fit_after_all_is_made_smaller(monkeypatch, limit, start, found, attempts):
    tried = []

    def measure(cfg, precision, images):
        tried.append(images)
        return math.inf if images > limit else 1.0

    monkeypatch.setattr(memory, "step_bytes", measure)
    monkeypatch.setattr(memory, "largest", lambda *_: start)
    assert memory.fitting_images(config(), CPU, "fp32", None, 1e9) == found
    assert tried == [*memory.PROBES, *attempts]


def test_recomputing_is_the_last_resort_for_the_batch(monkeypatch):
    """Activations of one image take 20, or 2 when they are computed again."""
    monkeypatch.setattr(memory, "step_bytes", lambda cfg, precision, n: n * (2 if cfg.recompute == "yes" else 20))
    for free, recompute, batch_size in ((100, "no", 4), (10, "yes", 4)):
        cfg = fit_batch(config(batch_size=AUTO_BATCH), CPU, "fp32", None, free)
        assert (cfg.recompute, cfg.batch_size) == (recompute, batch_size)


@pytest.mark.parametrize(
    ("recompute", "gigabytes", "expected"),
    [("auto", 100, "no"), ("auto", 1, "yes"), ("yes", 100, "yes"), ("no", 1, "no")],
)
def test_recomputing_is_chosen_where_memory_is_short(free, recompute, gigabytes, expected):
    free(gigabytes)
    cfg, notes = settle(Config(recompute=recompute, batch_size=24))
    assert cfg.recompute == expected
    assert any("computed again" in note for note in notes) is (expected == "yes")


def test_the_estimate_follows_batch_size_side_and_precision():
    cfg = Config(img_size=(224, 224))
    need = step_bytes(cfg, "fp32", 8)
    assert 4e9 < need < 6e9
    assert step_bytes(cfg, "fp32", 16) > 1.5 * need
    assert step_bytes(dataclasses.replace(cfg, img_size=(448, 224)), "fp32", 8) > 1.5 * need
    assert step_bytes(cfg, "bf16", 8) < need
    assert step_bytes(dataclasses.replace(cfg, recompute="auto"), "fp32", 8) == need
    less = dataclasses.replace(cfg, recompute="yes")
    assert 3.2e9 < step_bytes(less, "fp32", 24) < 4e9, "3.6 GB were measured"
    assert step_bytes(less, "bf16", 24) < step_bytes(less, "fp32", 24)


@pytest.mark.parametrize(
    ("gigabytes", "disk", "processes", "expected"),
    [
        (2, 0, 1, "yes"),
        (1.99, 2e9, 1, "disk"),
        (1.99, 1.9e9, 1, "no"),
        (1.99, 8e9, 4, "disk"),
        (1.99, 7.9e9, 4, "no"),
    ],
)
def test_the_data_set_is_kept_where_it_fits(free, monkeypatch, gigabytes, disk, processes, expected):
    free(gigabytes, disk)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert choose_cache(10**9) == expected
    assert settle(config(batch_size=1), data_bytes=10**9)[0].cache == expected
    assert settle(config(batch_size=1, cache="no"), data_bytes=10**9)[0].cache == "no"


def test_folds_all_take_the_same_batch():
    with pytest.raises(UserError, match=r"--batch_size auto: .* --fold all"):
        train_folds(config(batch_size=AUTO_BATCH, fold="all"), None)


def fitting_images_of_ranks():
    """What this rank finds where ranks take different numbers of steps, and then where rank 1 fails."""
    init_distributed(CPU)
    number, said = rank(), []
    cfg = Config(img_size=(32, 32), num_classes=3, **SMALL)

    def measure(cfg, precision, images):
        for _ in range(1 + number):
            memory.peak_bytes(cfg, CPU, precision, loss_for("ce_dice", 3), 1)
        return images * (1 + number)

    def break_down(cfg, precision, images):
        if images == memory.PROBES[1]:
            raise RuntimeError("broken")
        return measure(cfg, precision, images)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty_cache", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
            patch.setattr(torch.cuda, name, lambda *_: 0)
        for step_bytes in (measure, break_down if number == 1 else measure):
            patch.setattr(memory, "step_bytes", step_bytes)
            try:
                said.append(memory.fitting_images(cfg, CPU, "fp32", None, 10))
            except (UserError, RuntimeError) as error:
                said.append(f"{type(error).__name__} {error}")
            barrier()
    return said


def test_ranks_that_measure_different_steps_agree_and_none_waits_for_one_that_failed():
    (found, other), (found_too, own) = under_torchrun(2, fitting_images_of_ranks)
    assert found == found_too == 4
    assert own == "RuntimeError broken"
    assert other.startswith("UserError --batch_size auto: another process failed")
