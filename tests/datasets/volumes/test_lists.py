"""Lists, folders, cases and the held-out part of the Synapse layout."""

from collections import Counter

import pytest

from datasets.volumes.lists import find_root, group_by_case, hold_out_cases, patient_of, read_list
from tests.support.places import ROOT
from tests.support.synapse_tree import LISTED, write_slices
from utils.errors import UserError

LISTS = ROOT / "synapse_train_test/lists/lists_Synapse"


def test_published_lists():
    train, test = read_list(LISTS / "train.txt"), read_list(LISTS / "test_vol.txt")
    cases = group_by_case(train)
    assert (len(train), len(cases), len(test)) == (2211, 18, 12)
    assert not set(cases) & set(test)
    assert (len(cases["case0005"]), len(cases["case0040"]), cases["case0040"][-1]) == (117, 195, "case0040_slice194")
    assert all(names == [f"{case}_slice{i:03d}" for i in range(len(names))] for case, names in cases.items())
    assert {"case0008", "case0035"} <= set(test)


@pytest.mark.parametrize(
    "content",
    [
        b"a_slice1\nb.v2\n",
        b"a_slice1\r\n\r\n  b.v2 \r\n",
        b"\xef\xbb\xbfa_slice1.npz\nb.v2.npy.h5",
        b"a_slice1.npz.h5\n\n\nb.v2.h5\n",
    ],
)
def test_list_is_tolerant(tmp_path, content):
    (tmp_path / "train.txt").write_bytes(content)
    assert read_list(tmp_path / "train.txt") == ["a_slice1", "b.v2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such list file"),
        (b"\n \r\n", "empty"),
        (b"a\nb\na.npz\n", "listed twice.*: a"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_list_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"list\.txt.*{message}"):
        read_list(tmp_path / "list.txt")


def test_root_is_the_data_folder_or_an_inner_one(tmp_path, monkeypatch):
    slices, volumes = write_slices(tmp_path / "data"), tmp_path / "data/test_vol_h5"
    volumes.mkdir()
    for given in (tmp_path / "data", slices, str(volumes)):
        assert find_root(given, "train_npz") == slices
        assert find_root(given, "test_vol_h5") == volumes
    monkeypatch.chdir(slices)
    assert find_root(".", "test_vol_h5").resolve() == volumes
    loose = tmp_path / "loose"
    slices.rename(loose)
    assert find_root(loose, "train_npz") == loose
    with pytest.raises(UserError, match=r"loose.*test_vol_h5.*\*\.npy\.h5"):
        find_root(loose, "test_vol_h5")
    with pytest.raises(UserError, match=r"absent: found nothing; expected the data folder"):
        find_root(tmp_path / "absent", "train_npz")
    with pytest.raises(UserError, match=r"\.npz: found a file"):
        find_root(loose / f"{LISTED[0]}.npz", "train_npz")


def test_cases_by_number():
    names = [
        "p1_frame01_slice_10",
        "p1_frame01_slice_9",
        "p1_frame02_slice_1",
        "case0005_slice002",
        "case0005_slice001",
    ]
    assert group_by_case([*names, "alone"]) == {
        "alone": ["alone"],
        "case0005": ["case0005_slice001", "case0005_slice002"],
        "p1_frame01": ["p1_frame01_slice_9", "p1_frame01_slice_10"],
        "p1_frame02": ["p1_frame02_slice_1"],
    }


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("patient001_frame01", "patient001"),
        ("patient001_frame12_slice_9", "patient001"),
        ("case0005_slice002", "case0005"),
        ("frame_7_frame", "frame_7_frame"),
        ("sub-02_ses-1_slice003", "sub-02"),
        ("sub-02_ses-1_run-2_T1w", "sub-02"),
        ("sub-A1_T1w", "sub-A1"),
        ("sub-02_frame01", "sub-02"),
        ("sub-02", "sub-02"),
        ("sub-01_02", "sub-01_02"),
        ("sub-01-2_ses-1", "sub-01-2_ses-1"),
        ("my_sub-01_ses-1", "my_sub-01_ses-1"),
        ("P7@2021_P7_a_slice003", "P7"),
        ("P7_frame01@scan_frame02", "P7_frame01"),
    ],
)
def test_patient_of_a_case_or_slice(name, patient):
    assert patient_of(name) == patient


def test_held_out_cases():
    names = [f"patient{p:03d}_frame0{f}_slice_{s}" for s in range(3) for f in (1, 2) for p in range(20)]
    train, held_out = hold_out_cases(names, 4, seed=7)
    patients = Counter(name[:10] for name in held_out)
    assert len(patients) == 4
    assert set(patients.values()) == {6}
    assert train == [name for name in names if name[:10] not in patients]
    assert held_out == [name for name in names if name[:10] in patients]
    again = hold_out_cases(names[::-1], 4, seed=7)[1]
    assert set(again) == set(held_out)
    others = {frozenset(hold_out_cases(names, 4, seed)[1]) for seed in range(8)}
    assert len(others) > 4


@pytest.mark.parametrize(
    ("names", "num_cases"), [(["a_slice1", "b_slice1"], 2), (["a_slice1", "a_slice2"], 1), (LISTED, 0)]
)
def test_held_out_refused(names, num_cases):
    with pytest.raises(UserError, match=f"hold out {num_cases} of"):
        hold_out_cases(names, num_cases, seed=1)
