"""The folder of a run: what may be written there, one training at a time, and a lock that no dead process holds."""

import signal

import pytest

from tests.support.strict_group import STARTER
from tests.support.toy import toy_config, train_toy
from utils.config import Config
from utils.errors import UserError
from utils.training import folder
from utils.training.folder import BEST, LAST, claim_folder, hold_folder


def hold(out, held):
    """Train in the folder `out`, and never end."""
    with hold_folder(Config(output_dir=out)):
        held.set()
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in tmp_path / "run"."""
    held = STARTER.Event()
    process = STARTER.Process(target=hold, args=(str(tmp_path / "run"), held))
    process.start()
    assert held.wait(60)
    yield process
    process.kill()
    process.join()


def test_two_trainings_do_not_share_a_folder(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(folder, "WAIT", 0)
    with pytest.raises(UserError, match=r"run: another training is writing there"):
        train_toy(tmp_path / "run", epochs=1)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {".lock"}
    train_toy(tmp_path / "other", epochs=1)


def test_a_killed_training_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.join()
    (tmp_path / "run" / ".part-1-epoch_last.pth").write_bytes(b"half a checkpoint")
    (tmp_path / "run" / ".part-host-1-x").mkdir()
    (tmp_path / "run" / ".part-host-1-x" / "epoch_last.pth").write_bytes(b"half a checkpoint")
    (tmp_path / "run" / ".part-host-2-x").symlink_to(tmp_path)
    train_toy(tmp_path / "run", epochs=1)
    assert not list((tmp_path / "run").glob(".part-*"))


def test_the_folder_is_looked_at_again_once_it_is_held(tmp_path):
    """Another training ended there while this one checked its data."""
    cfg = toy_config(tmp_path)
    claim_folder(cfg)
    (tmp_path / LAST).write_bytes(b"another's")
    with pytest.raises(UserError, match="already holds a run"), hold_folder(cfg):
        pytest.fail("entered")
    assert (tmp_path / LAST).read_bytes() == b"another's"


@pytest.mark.parametrize("name", ["file/x", "file/x/y", "file"])
def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output_dir .*file.* is (no folder|a file)"):
        claim_folder(toy_config(tmp_path / name))


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_was_killed_between_its_first_best_and_last(tmp_path, resume):
    (tmp_path / BEST).touch()
    with pytest.raises(UserError, match=r"killed within its first epoch; give --force to start again"):
        claim_folder(toy_config(tmp_path, resume=resume))
    assert len(train_toy(tmp_path, epochs=1, force=True)["history"]) == 1
