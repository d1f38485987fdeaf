"""Learning rates: PyTorch's own schedulers as oracle, the published cycle's end, warm-up."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from utils.config import Config
from utils.training.schedule import cycle_at, ends_cycle, learning_rate, rate_warnings


def scheduled(make, steps, lr=1e-3):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_warm_restarts_equal_pytorch():
    cfg = Config(schedule="warm_restarts", lr=1e-3, min_lr=1e-6, restart_iterations=50)
    expected = scheduled(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=50, T_mult=2, eta_min=1e-6), 800
    )
    assert [learning_rate(cfg, i, 93) for i in range(800)] == pytest.approx(expected, rel=1e-6)


def test_the_published_run_ends_a_cycle_in_epoch_275_and_is_high_again_at_300():
    cfg = Config(schedule="warm_restarts", lr=1e-3, min_lr=1e-6, restart_iterations=50)
    ends = [i for i in range(300 * 93) if ends_cycle(cfg, i)]
    assert [end + 1 for end in ends] == [50, 150, 350, 750, 1550, 3150, 6350, 12750, 25550]
    assert (ends[-1] + 1) / 93 == pytest.approx(274.7, abs=0.05)
    assert learning_rate(cfg, ends[-1], 93) < 1e-5
    assert learning_rate(cfg, 300 * 93 - 1, 93) > 0.9e-3
    assert cycle_at(cfg, 25549) == (12750, 12800)
    assert cycle_at(cfg, 25550) == (25550, 25600)


def test_cosine_by_epochs_equals_pytorch_and_is_constant_within_an_epoch():
    cfg = Config(schedule="cosine_epochs", schedule_epochs=200, epochs=180, lr=6e-4, min_lr=0.0)
    expected = scheduled(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=200), 180, lr=6e-4)
    assert [learning_rate(cfg, 12 * e, 12) for e in range(180)] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert learning_rate(cfg, 12 * 7 + 11, 12) == learning_rate(cfg, 12 * 7, 12)


def test_cosine_warms_up_linearly_then_falls_to_the_minimum():
    cfg = Config(schedule="cosine", epochs=10, warmup_epochs=2.0, lr=1.0, min_lr=0.1)
    rates = [learning_rate(cfg, i, 5) for i in range(50)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[30] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert learning_rate(cfg, 50, 5) == pytest.approx(0.1)


def test_other_schedules_end_no_cycle():
    cfg = Config(schedule="cosine", epochs=10, restart_iterations=5)
    assert not any(ends_cycle(cfg, i) for i in range(50))


def test_a_rate_that_hardly_falls_is_said():
    published = Config(schedule="cosine_epochs", schedule_epochs=200)
    assert "falls over 200 epochs, and training ends after 15" in rate_warnings(replace(published, epochs=15))[0]
    for quiet in (
        replace(published, epochs=180),
        replace(published, epochs=15, schedule_epochs=0),
        Config(epochs=15, schedule_epochs=200),
    ):
        assert rate_warnings(quiet) == []
    assert rate_warnings(replace(published, epochs=15, lr=0.0)) == ["warning: --lr 0: the weights will not change"]
