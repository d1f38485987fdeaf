"""Which cases of a folder of volumes are of one patient, and stay in one part."""

import re
from pathlib import Path

import pytest

from datasets.prepare.verify.volumes import verify_volumes
from datasets.volumes.lists import hold_out_cases, patient_of, read_list
from tests.datasets.prepare.test_volumes import draw, nnunet, prepare, write_nifti
from utils.errors import UserError
from utils.log import logging_to


def test_frames_of_a_patient_stay_in_one_part(tmp_path):
    for patient in range(8):
        for frame in (1, 9):
            image, label = draw(10 * patient + frame, slices=1)
            name = f"patient{patient:03d}_frame{frame:02d}"
            write_nifti(tmp_path / f"raw/imagesTr/{name}_0000.nii.gz", image)
            write_nifti(tmp_path / f"raw/labelsTr/{name}.nii.gz", label)
    out = prepare(tmp_path / "raw", tmp_path / "out")
    trained, tested = (read_list(out / f"lists/{part}.txt") for part in ("train", "test_vol"))
    assert (len(trained), len(tested)) == (12, 4)
    assert not {patient_of(name) for name in trained} & {patient_of(name) for name in tested}


def test_cases_without_frames_are_split_as_ever(tmp_path):
    out = prepare(nnunet(tmp_path / "raw", cases=10), tmp_path / "out")
    assert read_list(out / "lists/test_vol.txt") == ["abd_01", "abd_02", "abd_05"]


@pytest.fixture
def visits(tmp_path) -> Path:
    """Eight patients with two scans each: 2020_P0_a, 2021_P0_b ..., and BIDS names of the same."""
    for patient in range(8):
        for number, visit in enumerate("ab"):
            image, label = draw(10 * patient + number, slices=1)
            write_nifti(tmp_path / f"raw/imagesTr/202{number}_P{patient}_{visit}_0000.nii.gz", image)
            write_nifti(tmp_path / f"raw/labelsTr/202{number}_P{patient}_{visit}.nii.gz", label)
    return tmp_path / "raw"


def parts_of(out: Path) -> tuple[list[str], list[str]]:
    return read_list(out / "lists/train.txt"), read_list(out / "lists/test_vol.txt")


def test_sessions_of_bids_stay_in_one_part(visits, tmp_path):
    for path in sorted(visits.rglob("*.nii.gz")):
        path.rename(path.with_name(re.sub(r"202(\d)_P(\d)_.", r"sub-\2_ses-\1", path.name)))
    with logging_to(tmp_path / "log.txt"):
        trained, tested = parts_of(prepare(visits, tmp_path / "out"))
    assert (len(trained), len(tested)) == (12, 4)
    assert not {name[:5] for name in trained} & {name[:5] for name in tested}
    assert "patients: 8 in 16 cases (by their names; " in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("pattern", [r"P\d", r"_(P\d)_"])
def test_groups_by_a_pattern_stay_together_here_and_later(visits, tmp_path, pattern):
    with logging_to(tmp_path / "log.txt"):
        out = prepare(visits, tmp_path / "out", "--group-by", pattern)
    trained, tested = parts_of(out)
    assert (len(trained), len(tested)) == (12, 4)
    assert all(re.fullmatch(r"(P\d)@202\d_\1_[ab](_slice000)?", name) for name in trained + tested)
    assert not {name[:2] for name in trained} & {name[:2] for name in tested}
    assert f"patients: 8 in 16 cases (--group-by {pattern})" in (tmp_path / "log.txt").read_text()
    for part in hold_out_cases(trained, 2, seed=1):
        assert len(part) == 2 * len({name[:2] for name in part})
    (out / "lists/train.txt").write_text("\n".join([*trained, f"{tested[0]}_slice000"]))
    report = verify_volumes(out, None, out / "lists")
    assert [f.where for f in report.findings if f.kind == "patients in several parts"] == [tested[0][:2]]


def test_names_that_say_the_group_are_kept(visits, tmp_path):
    names = [name for part in parts_of(prepare(visits, tmp_path / "out", "--group-by", "202._P.*")) for name in part]
    assert not any("@" in name for name in names)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("Q", "finds nothing in 16 names"), ("(", "no regular expression"), ("202", "are of the one group '202'")],
)
def test_patterns_that_give_no_groups_are_refused(visits, tmp_path, pattern, expected):
    with pytest.raises(UserError, match=expected):
        prepare(visits, tmp_path / "out", "--group-by", pattern)
