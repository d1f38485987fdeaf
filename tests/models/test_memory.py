"""--batch_size auto: the largest batch whose training step fits in memory."""

import dataclasses
import math

import pytest
import torch

from isic_polyp_rectal.cross_validation import train_folds
from models import memory as batch_size
from models.build import step_bytes
from models.memory import LARGEST, fitting_batch, largest, settle_batch
from tests.support.toy import toy_config
from utils import checkpoint
from utils.config import AUTO_BATCH, Config, to_dict
from utils.errors import UserError

CPU = torch.device("cpu")


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
        (30, 50, math.inf, LARGEST),
        (30, math.inf, 100, 2),
        (math.inf, math.inf, 100, 0),
    ],
)
def test_largest(first, second, free, count):
    assert largest(first, second, free) == count


def config(**fields) -> Config:
    return Config(img_size=(64, 96), precision="fp32", **fields)


@pytest.mark.parametrize("gigabytes", [1.5, 3.0, 20.0])
def test_on_a_cpu_the_estimate_of_the_step_fills_what_is_free(monkeypatch, gigabytes):
    monkeypatch.setattr(batch_size, "free_memory", lambda device: gigabytes * 1e9)
    count = fitting_batch(config(), CPU, "fp32", None)
    fits = step_bytes(config(batch_size=count), CPU)
    more = step_bytes(config(batch_size=count + 8 if count >= 8 else count + 1), CPU)
    assert fits <= 0.9 * gigabytes * 1e9 < more
    assert count <= 8 or count % 8 == 0


def test_where_no_image_fits_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(batch_size, "free_memory", lambda device: 0.5e9)
    with pytest.raises(UserError, match=r"--batch_size auto: not one image of 64x96 .* --img_size"):
        fitting_batch(config(), CPU, "fp32", None)


@pytest.mark.parametrize(
    ("limit", "start", "found", "attempts"),
    [(16, 32, 16, [32, 24, 16]), (5, 8, 5, [8, 7, 6, 5]), (0, 2, 0, [2, 1])],
)
def test_a_step_that_does_not_fit_after_all_is_made_smaller(monkeypatch, limit, start, found, attempts):
    tried = []

    def peak(cfg, device, precision, loss, count):
        tried.append(count)
        return math.inf if count > limit else 1.0

    monkeypatch.setattr(batch_size, "_peak", peak)
    assert batch_size._tried(config(), CPU, "fp32", None, start) == found
    assert tried == attempts


def test_auto_is_settled_and_a_resumed_run_keeps_its_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_size, "fitting_batch", lambda *_: 7)
    cfg, last = toy_config(tmp_path, batch_size=AUTO_BATCH), tmp_path / "epoch_last.pth"
    settled, notes = settle_batch(cfg, CPU, "fp32", None, last)
    assert settled == dataclasses.replace(cfg, batch_size=7)
    assert "batch size 7" in notes[0]
    checkpoint.save(last, {"config": to_dict(dataclasses.replace(cfg, batch_size=5))})
    settled, _ = settle_batch(dataclasses.replace(cfg, resume=True), CPU, "fp32", None, last)
    assert settled.batch_size == 5
    assert settle_batch(settled, CPU, "fp32", None, last) == (settled, ())


def test_folds_all_take_the_same_batch():
    with pytest.raises(UserError, match=r"--batch_size auto: .* --fold all"):
        train_folds(config(batch_size=AUTO_BATCH, fold="all"), None)
