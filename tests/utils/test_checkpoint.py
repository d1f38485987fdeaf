"""Checkpoint files: whole or absent, both formats, nothing executed, damage named, found by name."""

import argparse
import os
import pathlib
import pickle
import warnings
import zipfile
from copy import copy
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
import torch

from utils import checkpoint
from utils.errors import UserError

STATE = {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)}


def write_state(path: Path, state: object = STATE, zipped: bool = True) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_are_read(tmp_path, zipped):
    state = checkpoint.read(
        write_state(tmp_path / "a.pth", STATE | {"epoch": 3, "name": "ü", "rest": [1, None]}, zipped)
    )
    assert state["epoch"] == 3
    assert state["name"] == "ü"
    assert state["rest"] == [1, None]
    assert torch.equal(state["weight"], STATE["weight"])
    assert state["weight"].dtype == torch.float32
    assert torch.equal(state["steps"], STATE["steps"])


def test_save_and_read_return_the_state_and_leave_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "a.pth"
    checkpoint.save(path, {"model": STATE, "epoch": 1})
    checkpoint.save(path, {"model": STATE, "epoch": 2})
    state = checkpoint.read(path)
    assert state["epoch"] == 2
    assert torch.equal(state["model"]["weight"], STATE["weight"])
    assert [p.name for p in path.parent.iterdir()] == ["a.pth"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_new_file_is_complete_before_it_takes_the_name(tmp_path, monkeypatch):
    """The bytes are on the disk (fsync) while the old file is still there, and only then the name moves."""
    path, seen = write_state(tmp_path / "a.pth"), []
    before = path.read_bytes()

    def spy(_: int) -> None:
        part = next(tmp_path.glob(".part*/a.pth"))
        seen.append((path.read_bytes() == before, torch.load(part, weights_only=True)["epoch"]))

    monkeypatch.setattr(os, "fsync", spy)
    (tmp_path / "kept").hardlink_to(path)
    checkpoint.save(path, {"epoch": 5})
    assert seen == [(True, 5)]
    assert (tmp_path / "kept").read_bytes() == before  # the name moved to a new file, the old one was not written over
    assert checkpoint.read(path)["epoch"] == 5


# --- the two further kinds of object -------------------------------------------------------------


def pickle_of(module: str, name: str, args: str) -> bytes:
    """A protocol-2 pickle of `{"x": module.name(*args)}`, assembled by hand so that the class need not exist here."""
    arguments = b"".join(b"X" + len(a.encode()).to_bytes(4, "little") + a.encode() for a in args.split("|"))
    return b"\x80\x02}X\x01\x00\x00\x00xc" + f"{module}\n{name}\n".encode() + b"(" + arguments + b"tRs."


def write_old_format(path: Path, payload: bytes) -> Path:
    """A checkpoint of the older format whose object is the pickle `payload`."""
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path.write_bytes(head + payload + pickle.dumps([], 2))
    return path


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])  # the latter since Python 3.13
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("PosixPath", "/|data|run 1", PurePosixPath("/data/run 1")),
        ("WindowsPath", "C:\\|data|run", PureWindowsPath("C:\\data\\run")),
        ("PurePosixPath", "a|b", PurePosixPath("a/b")),
        ("PureWindowsPath", "a|b", PureWindowsPath("a\\b")),
    ],
)
def test_paths_of_either_system_come_back_pure(tmp_path, module, name, args, expected):
    state = checkpoint.read(write_old_format(tmp_path / "a.pth", pickle_of(module, name, args)))
    assert state["x"] == expected
    assert type(state["x"]) is type(expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_arguments_and_paths_as_this_python_pickles_them(tmp_path, zipped):
    args = argparse.Namespace(
        lr=0.1, output=pathlib.Path("/out/run"), device=torch.device("cpu"), inner=argparse.Namespace(a=1)
    )
    state = checkpoint.read(write_state(tmp_path / "a.pth", {"model": STATE, "args": args}, zipped))
    assert type(state["args"]) is argparse.Namespace
    assert state["args"].lr == 0.1
    assert state["args"].inner.a == 1
    assert state["args"].output == PurePosixPath("/out/run")


def test_what_is_allowed_is_exactly_this_and_only_while_reading(tmp_path):
    assert {name for _, name in checkpoint.ALLOWED} == {
        "argparse.Namespace",
        *(
            f"pathlib{m}.{k}"
            for m in ("", "._local")
            for k in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
        ),
    }
    before, filters = set(torch.serialization.get_safe_globals()), list(warnings.filters)
    checkpoint.read(write_state(tmp_path / "a.pth"))
    assert list(warnings.filters) == filters
    assert set(torch.serialization.get_safe_globals()) == before
    assert not before & set(checkpoint.ALLOWED)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("subprocess", "Popen"),
        ("pathlib", "Path"),
        ("argparse", "ArgumentParser"),
        ("torch.nn.modules.linear", "Linear"),
    ],
)
def test_a_pickle_that_would_run_something_is_refused_by_name(tmp_path, module, name):
    witness = tmp_path / "witness"
    path = write_old_format(tmp_path / "a.pth", pickle_of(module, name, f"touch {witness}"))
    with pytest.raises(UserError, match=rf"a\.pth: asks to run or build '({module}\.)?{name}'.*re-save its weights"):
        checkpoint.read(path)
    assert not witness.exists()


class Large:
    """Pickled as a call of `kind` with a number, as no checkpoint holds it."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __reduce__(self):
        return self.kind, (2**31,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [bytearray, torch.Tensor, torch.DoubleTensor, torch.UntypedStorage])
def test_nothing_of_any_size_that_a_small_file_asks_for_is_built(tmp_path, zipped, kind):
    path = write_state(tmp_path / "a.pth", {"model": STATE, "x": Large(kind)}, zipped)
    with pytest.raises(UserError, match=rf"a\.pth: asks to build '\S+ {kind.__name__}'; expected the tensors"):
        checkpoint.read(path)


@pytest.mark.parametrize("how", ["compressed", "overlapping"])
def test_a_file_that_would_become_larger_is_not_unpacked(tmp_path, how):
    whole = write_state(tmp_path / "whole.pth", {"model": {"w": torch.zeros(100_000), "v": torch.zeros(100_000)}})
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            twice = how == "overlapping" and name.endswith("data/1")
            if twice:
                new.infolist().append(copy(new.getinfo(name[:-1] + "0")))
                new.infolist()[-1].filename = name
            else:
                new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED)
    with pytest.raises(UserError, match=r"a\.pth: its parts are compressed or overlap"):
        checkpoint.read(tmp_path / "a.pth")


class Malice:
    def __init__(self, witness: Path) -> None:
        self.witness = str(witness)

    def __reduce__(self):
        return os.mkdir, (self.witness,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_runs_nothing(tmp_path, zipped):
    path = write_state(
        tmp_path / "a.pth", {"model": STATE, "args": argparse.Namespace(x=Malice(tmp_path / "w"))}, zipped
    )
    with pytest.raises(UserError, match=r"asks to run or build .*mkdir"):
        checkpoint.read(path)
    assert not (tmp_path / "w").exists()
    torch.load(path, weights_only=False)  # the file does what it is meant to do when it is let
    assert (tmp_path / "w").exists()
