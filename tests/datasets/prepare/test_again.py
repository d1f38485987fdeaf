"""A folder that is prepared a second time: with other parameters, other cases, and stopped half-way."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from datasets.prepare.shared import run
from datasets.volumes.lists import read_list
from prepare_data import main
from tests.support.trees import write_picture_tree
from utils.errors import UserError


def write_case(raw: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    label = np.zeros((5, 32, 40), np.uint8)
    label[1:3, 4:14, 8:14] = 1
    for folder, array in (("imagesTr", rng.normal(0, 300, label.shape).astype(np.int16)), ("labelsTr", label)):
        (raw / folder).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(raw / folder / f"p{number}.nii.gz"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """raw/ with six cases, and out/ as made of them: five train, one tests."""
    root = tmp_path_factory.mktemp("again")
    for number in range(6):
        write_case(root / "raw", number)
    prepare(root)
    return root


@pytest.fixture
def root(prepared, tmp_path) -> Path:
    return shutil.copytree(prepared, tmp_path / "again")


def prepare(root: Path, *flags: str) -> Path:
    main(["folder", str(root / "raw"), str(root / "out"), "--workers", "1", *flags])
    return root / "out"


def damage(root: Path) -> None:
    path = root / "raw/imagesTr/p5.nii.gz"
    path.write_bytes(path.read_bytes()[:100])


def prepare_and_stop(root: Path, monkeypatch, *flags: str) -> None:
    """Ctrl-C after the first case."""
    done, whole = [], run._do

    def do(case, *rest):
        if done:
            raise KeyboardInterrupt
        done.append(case)
        return whole(case, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_do", do)
        with pytest.raises(KeyboardInterrupt):
            prepare(root, *flags)


def findings(out: Path) -> tuple[int, list[tuple[str, str]]]:
    """The exit code of verify, and (where, text) of what it says of the manifest."""
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(out)])
    found = json.loads((out / "verify.json").read_text())["findings"]
    return stopped.value.code, [(one["where"], one["text"]) for one in found if one["kind"] == "manifest"]


def cases_of(folder: Path) -> set[str]:
    return {path.name.partition("_slice")[0].partition(".")[0] for path in folder.iterdir()}


def shapes(out: Path) -> set[tuple[int, ...]]:
    return {np.load(path)["image"].shape for path in (out / "train_npz").iterdir()}


def test_a_call_with_other_parameters_that_fails_leaves_nothing_to_train_on(root):
    out = root / "out"
    assert findings(out) == (0, [])
    assert shapes(out) == {(32, 40)}
    damage(root)
    with pytest.raises(UserError, match="1 of 6 cases failed"):
        prepare(root, "--orientation", "SLP")
    assert shapes(out) == {(32, 40), (40, 32)}
    assert not (out / "prepared.json").exists()
    assert not any((out / "lists").iterdir())
    code, found = findings(out)
    assert code == 1
    assert ("p5", "1 of 6 cases made with other parameters; prepare the folder again") in found
    write_case(root / "raw", 5)
    prepare(root, "--orientation", "SLP")
    assert findings(out) == (0, [])
    assert shapes(out) == {(40, 32)}


def test_what_a_stopped_call_did_not_come_to_is_removed_by_the_next(root, monkeypatch):
    out, tested = root / "out", read_list(root / "out/lists/test_vol.txt")
    prepare_and_stop(root, monkeypatch, "--size", "0.4")
    prepare(root, "--size", "0.4")
    train, test = cases_of(out / "train_npz"), cases_of(out / "test_vol_h5")
    assert (len(train), len(test)) == (2, 4)
    assert not train & test
    assert test >= set(tested)
    assert findings(out) == (0, [])


def test_cases_that_are_gone_are_removed_after_a_stopped_call_too(root, monkeypatch):
    for folder in ("imagesTr", "labelsTr"):
        (root / f"raw/{folder}/p0.nii.gz").unlink()
    prepare_and_stop(root, monkeypatch)
    out = prepare(root)
    assert cases_of(out / "train_npz") | cases_of(out / "test_vol_h5") == {f"p{number}" for number in range(1, 6)}


def test_a_test_case_that_trains_now_is_made_anew(root):
    """With p21 as a seventh case, p2 is no longer the last tenth."""
    out = root / "out"
    assert read_list(out / "lists/test_vol.txt") == ["p2"]
    write_case(root / "raw", 21)
    prepare(root)
    assert read_list(out / "lists/test_vol.txt") == ["p21"]
    assert cases_of(out / "test_vol_h5") == {"p21"}
    assert "p2_slice000" in read_list(out / "lists/train.txt")


def test_a_list_that_the_user_changed_stays_through_a_call_that_fails(root):
    path = root / "out/lists/train.txt"
    path.write_text("p1_slice000\n")
    damage(root)
    with pytest.raises(UserError, match="1 of 6 cases failed"):
        prepare(root, "--orientation", "SLP")
    assert [item.name for item in (root / "out/lists").iterdir()] == ["train.txt"]
    assert path.read_text() == "p1_slice000\n"


def test_a_prepared_json_of_other_parameters_is_an_error(root):
    path = root / "out/prepared.json"
    path.write_text(path.read_text().replace("SPL", "SLP"))
    text = "orientation is SLP, but the files were made with SPL; prepare the folder again"
    assert findings(root / "out") == (1, [("prepared.json", text)])


@pytest.mark.parametrize("layout", ["volumes", "pictures"])
def test_listed_cases_that_the_manifest_lacks_are_an_error(root, layout):
    out, case = root / "out", "p0"
    if layout == "pictures":
        tree = write_picture_tree(root / "tree", 4)
        out, case = root / "pictures", "000"
        main(["folder", str(tree), str(out), "--workers", "1"])
        assert findings(out)[1] == []
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["cases"][case]
    (out / "manifest.json").write_text(json.dumps(manifest))
    code, [(where, text)] = findings(out)
    assert (code, where.split(", ")[0]) == (1, "p0_slice000" if layout == "volumes" else "000")
    assert "without a case in manifest.json; prepare the folder again" in text
