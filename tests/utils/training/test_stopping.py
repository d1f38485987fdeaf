"""A run that is asked to stop: it ends after its update, saves, and goes on bit for bit as if nothing had happened."""

import contextlib
import datetime
import os
import signal

import pytest
import torch

from tests.support.strict_group import STARTER, free_port, on_ranks
from tests.support.toy import ToyNetwork, assert_same_weights, losses, toy_task, train_toy
from utils import checkpoint, distributed
from utils.distributed import any_rank, rank
from utils.errors import run_main
from utils.training.folder import BEST, LAST
from utils.training.stopping import Stopped, StopRequest


class Signalling(ToyNetwork):
    """Sends this process a signal in its forward pass number `at`, counted over training and validation."""

    at = None

    def forward(self, x, keep=None):
        if Signalling.at == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        Signalling.at -= 1
        return super().forward(x, keep)


def stop_toy(folder, monkeypatch, at, **fields):
    """Train until forward pass number `at` sends a signal; returns what was saved."""
    with monkeypatch.context() as patched:
        patched.setattr("tests.support.toy.ToyNetwork", Signalling)
        patched.setattr(Signalling, "at", at)
        with pytest.raises(Stopped, match="stopped after update"):
            train_toy(folder, **fields)
    return checkpoint.read(folder / LAST)


def assert_same_run(one, other):
    assert losses(one) == losses(other)
    assert (one["iteration"], one["epoch"], one["best"]) == (other["iteration"], other["epoch"], other["best"])
    assert_same_weights(one["model"], other["model"])
    for number, moments in one["optimizer"]["state"].items():
        assert_same_weights(moments, other["optimizer"]["state"][number])
    if one["ema"]:
        assert_same_weights(one["ema"], other["ema"])


@pytest.mark.parametrize(
    ("fields", "at", "iteration"),
    [
        # 11 images in batches of 4: an epoch is three updates, then two batches and two previews of validation
        ({}, 0, 1),
        ({}, 2, 3),
        ({}, 3, 3),  # within the validation of epoch 1
        ({}, 8, 5),
        ({"ema": 0.9, "accumulate": 2}, 0, 1),  # the update is finished: two batches
        ({"workers": 2}, 1, 2),
        ({"optimizer": "adam", "select": "cycle_end"}, 3, 3),
    ],
)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch, fields, at, iteration):
    whole = train_toy(tmp_path / "whole", epochs=3, **fields)
    state = stop_toy(tmp_path / "stopped", monkeypatch, at, epochs=3, **fields)
    assert state["iteration"] == iteration
    again = train_toy(tmp_path / "stopped", epochs=3, resume=True, **fields)
    assert_same_run(whole, again)
    assert_same_weights(*(checkpoint.read(tmp_path / name / BEST)["model"] for name in ("whole", "stopped")))
    assert again["position"] is None


def test_a_run_may_be_stopped_again_and_again(tmp_path, monkeypatch):
    whole = train_toy(tmp_path / "whole", epochs=2)
    stop_toy(tmp_path / "stopped", monkeypatch, 0, epochs=2)
    for _ in range(3):
        stop_toy(tmp_path / "stopped", monkeypatch, 0, epochs=2, resume=True)
    assert_same_run(whole, train_toy(tmp_path / "stopped", epochs=2, resume=True))


@pytest.mark.parametrize(
    ("validated", "fields"),
    [
        (False, {"select": "last"}),
        (False, {"restart_iterations": 6}),  # stopped before its first cycle ended
        (True, {"eval_every": 4}),
    ],
)
def test_a_run_that_is_told_to_end_where_it_was_stopped_has_weights_to_test(tmp_path, monkeypatch, validated, fields):
    fields |= {"task": toy_task(validate=validated)}
    stop_toy(tmp_path, monkeypatch, 3, **fields)
    assert not (tmp_path / BEST).exists()
    state, best = train_toy(tmp_path, epochs=1, resume=True, **fields), checkpoint.read(tmp_path / BEST)
    assert (best["selection"], best["iteration"]) == ("last", 4)
    assert_same_weights(best["model"], state["model"])


def test_the_second_signal_does_what_it_did_before():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what it runs behind without it
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# --- several processes ------------------------------------------------------------------------------


def ask_rank_1():
    return any_rank(rank() == 1), any_rank(False)


def test_all_ranks_know_when_one_is_asked():
    assert on_ranks(3, ask_rank_1) == [(True, False)] * 3


def stop_one_rank(folder):
    with pytest.MonkeyPatch.context() as patched:
        if rank() == 1:
            patched.setattr("tests.support.toy.ToyNetwork", Signalling)
            patched.setattr(Signalling, "at", 1)
        with pytest.raises(Stopped):
            train_toy(folder, epochs=2)


def test_ranks_stop_together_and_go_on_as_one_run(tmp_path):
    whole = train_toy(tmp_path / "whole", epochs=2)
    on_ranks(2, stop_one_rank, tmp_path / "ranks", fake_device=False)
    assert checkpoint.read(tmp_path / "ranks" / LAST)["iteration"] == 2
    again = train_toy(tmp_path / "ranks", epochs=2, resume=True)
    assert losses(again) == pytest.approx(losses(whole), rel=1e-5)


def freeze_rank_1(number, port, stderr):
    """A script of two ranks of which one stops answering; its messages go to the file `stderr`."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
    distributed.PATIENCE = datetime.timedelta(seconds=2)

    def main(argv):
        distributed.init_distributed(torch.device("cpu"))
        distributed.any_rank(False)
        if rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        distributed.any_rank(False)

    with stderr.open("w") as file, contextlib.redirect_stderr(file):
        run_main(main)


def test_a_frozen_rank_ends_the_others(tmp_path):
    port, files = free_port(), [tmp_path / "0", tmp_path / "1"]
    ranks = [STARTER.Process(target=freeze_rank_1, args=(number, port, files[number])) for number in range(2)]
    for process in ranks:
        process.start()
    try:
        ranks[0].join(120)
        assert ranks[0].exitcode == 1
        assert "error: another process did not answer" in files[0].read_text()
    finally:
        for process in ranks:
            process.kill()
            process.join()
