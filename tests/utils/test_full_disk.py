"""A disk that is full: one message, the old file kept, nothing half-written; and what killed processes leave."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.files.image import Image, save_mask
from datasets.phantom.generate import write_phantom
from datasets.volumes.files import Volume
from synapse_train_test.evaluation import save_volume
from tests.support.places import ROOT
from tests.support.result_folders import write_result
from tests.support.trees import write_picture_tree
from utils import checkpoint, files
from utils.config import Config
from utils.errors import UserError, run_main
from utils.files import PART, replacing, write_atomically
from utils.log import log, logging_to
from utils.training.run import write_config

resource = pytest.importorskip("resource", reason="this system has no limits on a process")
NOISE = np.random.default_rng(0).integers(0, 256, (40, 64, 64), np.uint8)


@pytest.fixture
def full_disk():
    """No file may grow beyond 4,096 bytes; Python ignores the signal and gets an error, as of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def volume_like(spacing):
    return Image(NOISE, spacing, "volume", Path("a.nii.gz"))


WRITERS = {
    "m.nii.gz": lambda path: save_mask(path.parent / "m", NOISE, volume_like((1.0, 1.0, 1.0))),
    "m.npy": lambda path: save_mask(path.parent / "m", NOISE, volume_like(None)),
    "m.png": lambda path: save_mask(path.parent / "m", NOISE.reshape(512, 320), Image(NOISE, None, "picture", path)),
    "v_img.nii.gz": lambda path: save_volume(path.parent, Volume("v", NOISE / np.float32(255), None, None), NOISE),
    "history.csv": lambda path: write_atomically(path, "a" * 10_000),
    "config.json": lambda path: write_config(Config(class_names=("a" * 9000,)), path.parent),
    "a.pth": lambda path: checkpoint.save(path, {"model": {"a": torch.zeros(2000)}}),
    "cases.csv": lambda path: write_result(path.parent, cases=200),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_the_old_file_kept(tmp_path, full_disk, name):
    (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match=rf"{name}: cannot be written"):
        WRITERS[name](tmp_path / name)
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python 3.10 closes a zip file twice
def test_a_phantom_is_whole_or_not_there(tmp_path, full_disk):
    with pytest.raises(UserError, match=r"p: cannot be written"):
        write_phantom(tmp_path / "p", num_train=1, num_test=1, size=64, slices=8)
    assert list(tmp_path.iterdir()) == []


def test_a_command_on_a_full_disk_ends_with_one_message(tmp_path):
    data = write_picture_tree(tmp_path / "d", num_images=4)
    limit = "import resource, sys, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)); "
    program = f"{limit} sys.argv[1:1] = []; runpy.run_path({str(ROOT / 'data_split_csv.py')!r}, run_name='__main__')"
    words = [sys.executable, "-B", "-c", program, "--dataset", str(data), "--size", "0.5"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "test_train_data.csv: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in data.iterdir()) == ["images", "masks"]


def test_a_log_on_a_full_disk_ends_the_program_with_one_message(tmp_path, full_disk, monkeypatch, capsys):
    def main(_):
        with logging_to(tmp_path / "log.txt"):
            log("a" * 5000)

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit, match="2"):
        run_main(main)
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "log.txt" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "ENOTDIR", "ENOENT"])
def test_only_a_place_that_cannot_be_written_is_a_users_error(monkeypatch, capsys, code):
    """What is not there, though it was looked for, is a bug of ours."""

    def main(_):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), "a\x1b/b")

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(FileNotFoundError if code == "ENOENT" else SystemExit):
        run_main(main)
    assert code == "ENOENT" or r"'a\x1b/b'; check that there is room" in capsys.readouterr().err


def dead_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_killed_processes_left_is_removed_and_what_lives_is_kept(tmp_path):
    names = [f"{PART}{dead_process()}-abc", f"{PART}{os.getppid()}-abc", f"{PART}no-number", f"{PART}0-abc"]
    names += [".part-elsewhere.example-1234567-abc"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "epoch_last.pth").write_text("half")
    write_atomically(tmp_path / "a.txt", "text")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", *names[1:]}


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a").read_text() == "one"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_links_are_replaced_and_never_followed(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").symlink_to(tmp_path / "victim")
    (tmp_path / "out" / f"{PART}{dead_process()}-x").symlink_to(tmp_path)
    with replacing(tmp_path / "out" / "a.txt") as part:
        assert os.name != "posix" or part.parent.stat().st_mode & 0o077 == 0  # nobody else can put a link there
        part.write_text("new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert (tmp_path / "out" / "a.txt").read_text() == "new"


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    write_atomically(tmp_path / ("a" * 255), "text")
    assert files.read_text(tmp_path / ("a" * 255)) == "text"
