"""Checkpoint files that are damaged or of another kind, and where a file is looked for by its name."""

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.places import GOLDEN
from utils import checkpoint
from utils.errors import UserError

STATE = {"weight": torch.arange(6000.0), "steps": torch.tensor(7)}


def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    tags = path.read_bytes().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert tags != path.read_bytes()
    path.write_bytes(tags)
    assert torch.equal(checkpoint.read(path)["weight"], STATE["weight"])
    assert checkpoint.read(path)["weight"].device.type == "cpu"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.97])
def test_a_truncated_file_is_named(tmp_path, zipped, part):
    path = tmp_path / "a.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"a\.pth: cannot be read .*truncated.*again and compare its size and sha256"):
        checkpoint.read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bytes_never_show_a_traceback(tmp_path, zipped):
    """Every third byte of the part that describes the tensors, one bit flipped: read, or refused by a UserError."""
    path, refused = tmp_path / "a.pth", 0
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for i in range(2, 350, 3):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        try:
            checkpoint.read(path)
        except UserError:  # anything else fails the test
            refused += 1
    assert refused > 20


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, image=np.zeros((4, 4)))


def write_torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: None, r"no such file; expected a checkpoint"),
        (lambda p: p.mkdir(), r"a folder; expected a checkpoint"),
        (lambda p: p.touch(), r"the file is empty"),
        (
            lambda p: p.write_text("<!DOCTYPE html><html>"),
            r"not a PyTorch checkpoint: it begins with b'<!DOCTYPE.*web page",
        ),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), r"begins with b'version https.*LFS"),
        (write_npz, r"cannot be read as a PyTorch checkpoint.*of another kind"),
        (lambda p: torch.save(torch.zeros(2), p), r"holds a Tensor; expected a dict"),
        (lambda p: torch.save([1], p), r"holds a list; expected a dict"),
        (write_torchscript, r"cannot be read as a PyTorch checkpoint.*TorchScript"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, write, message):
    path = tmp_path / "a.pth"
    write(path)
    with pytest.raises(UserError, match=r"(?s)a\.pth: .*" + message):
        checkpoint.read(path)


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "a.pth").write_bytes(content)
    assert checkpoint.sha256(tmp_path / "a.pth") == hashlib.sha256(content).hexdigest()


# --- by name -----------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A repository to search and a current folder outside it."""
    repository = tmp_path / "repository"
    places = [repository / p.relative_to(checkpoint.REPOSITORY) for p in map(Path, checkpoint.PLACES[1:])]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(checkpoint, "PLACES", (".", *places))
    return repository


def test_the_places_are_those_that_the_readme_names():
    places = [Path(p).relative_to(checkpoint.REPOSITORY).as_posix() for p in checkpoint.PLACES[1:]]
    assert checkpoint.PLACES[0] == "."
    assert places == [
        ".",
        "pretrained_ckpt",
        "synapse_train_test",
        "synapse_train_test/pretrained_ckpt",
        "save_models",
        "synapse_train_test/save_models",
    ]
    assert (checkpoint.REPOSITORY / "utils" / "checkpoint.py").is_file()


@pytest.mark.parametrize(
    "folder", ["pretrained_ckpt", "synapse_train_test/pretrained_ckpt", "save_models", "synapse_train_test/save_models"]
)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mine.pth", "mine.pth"),
        ("synapse", "synapse_84.00.pth"),
        ("synapse_84.00.pth", "synapse_84.00.pth"),
        ("biformer", "biformer_base_best.pth"),
        ("vssd", "vssd_base.pth"),
    ],
)
def test_a_name_is_found_in_each_place(house, folder, name, file):
    (house / folder / file).touch()
    assert checkpoint.find(name) == house / folder / file
    assert checkpoint.locate(name) == house / folder / file


def test_a_path_from_the_repositorys_root_or_the_synapse_folder(house):
    (house / "synapse_train_test/pretrained_ckpt/a.pth").touch()
    assert checkpoint.find("pretrained_ckpt/a.pth") == house / "synapse_train_test/pretrained_ckpt/a.pth"
    (house / "pretrained_ckpt/a.pth").touch()
    assert checkpoint.find("pretrained_ckpt/a.pth") == house / "pretrained_ckpt/a.pth"


def test_the_current_folder_comes_first_and_pretrained_before_save_models(house):
    (house / "save_models/a.pth").touch()
    (house / "pretrained_ckpt/a.pth").touch()
    assert checkpoint.find("a.pth") == house / "pretrained_ckpt/a.pth"
    Path("a.pth").touch()
    assert checkpoint.find("a.pth") == Path("a.pth")


def test_a_path_is_never_replaced_by_a_file_of_the_same_name(house, tmp_path):
    (house / "save_models/epoch_last.pth").touch()
    assert checkpoint.locate(tmp_path / "run/epoch_last.pth") is None
    assert checkpoint.locate("run/epoch_last.pth") is None
    with pytest.raises(UserError, match=r"run/epoch_last\.pth: no such file"):
        checkpoint.find(tmp_path / "run/epoch_last.pth")


def test_what_is_nowhere_is_refused_with_what_is_there(house):
    (house / "pretrained_ckpt/biformer_base_best.pth").touch()
    (house / "pretrained_ckpt/README.md").touch()
    (house / "synapse_train_test/save_models").rmdir()
    with pytest.raises(UserError) as caught:
        checkpoint.find("vssd")
    message = str(caught.value)
    assert message.startswith("checkpoint vssd (vssd_base.pth): no such file. Looked in:")
    assert f"  {house / 'pretrained_ckpt'}: biformer_base_best.pth\n" in message
    assert f"  {house / 'save_models'}: no checkpoints\n" in message
    assert f"  {house / 'synapse_train_test/save_models'}: no such folder\n" in message
    assert f"  {Path.cwd()}: no checkpoints\n" in message
    assert "pretrained_ckpt/README.md" in message
    (house / "save_models/best_model.pth").touch()
    with pytest.raises(UserError, match=r"save_models: is a folder\. Looked in:\n  .*save_models: best_model\.pth\n"):
        checkpoint.find(house / "save_models")


def test_manifests_are_small(request):
    manifests = sorted(GOLDEN.glob("state_dict_*.json"))
    assert [len(json.loads(m.read_text(encoding="utf-8"))) for m in manifests] == [518, 467, 467, 730]
    assert all(m.stat().st_size < 100_000 for m in manifests)
