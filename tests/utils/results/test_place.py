"""The folder of a test's results: its name, what may be replaced; and cases that the network was trained on."""

import os
from pathlib import Path

import pytest

from tests.support.result_folders import write_result
from tools.compare.comparison import warn_of_results
from utils.config import Config
from utils.errors import UserError
from utils.results.place import check_replaceable, check_same_cases, result_folder, trained_on
from utils.results.reading import parse_settings
from utils.results.summary import describe_result
from utils.training.task import hash_case, hash_cases

ORIGINS = [{"file": "a.pth", "sha256": "1" * 64, "selection": "last"}]


@pytest.mark.parametrize(
    ("fields", "count", "name"),
    [
        ({}, 1, "test_standard"),
        ({"protocol": "legacy", "folds": 5, "fold": "3"}, 1, "test_legacy"),
        ({"split": "val", "folds": 5, "fold": "3"}, 1, "val_standard_fold3"),
        ({"tta": True, "tta_scales": (0.75, 1.5)}, 3, "test_standard_tta_scales0.75-1.5_mean3"),
    ],
)
def test_the_name_says_what_makes_the_results(fields, count, name):
    assert result_folder(Path("run"), Config(**fields), count) == Path("run") / name


def describe(origins=ORIGINS, split="", **fields):
    return describe_result(Config(**fields), "fp32", origins, split)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (describe([ORIGINS[0] | {"sha256": "2" * 64}]), "another checkpoint"),
        (describe(img_size=(64, 64), tolerance=3.0), "img_size, tolerance"),
        (describe(root_path="/b", list_dir="lists"), "dataset"),
    ],
)
def test_results_of_another_test_are_not_replaced_by_accident(tmp_path, other, message):
    write_result(tmp_path, **describe(split="part A"))
    before = (tmp_path / "summary.json").read_bytes()
    with pytest.raises(UserError, match=rf"results of another test \({message}\); give --force"):
        check_replaceable(tmp_path, other, force=False)
    check_replaceable(tmp_path, other, force=True)
    check_replaceable(tmp_path / "new", other, force=False)
    check_replaceable(tmp_path, describe(split="part A, in other words"), force=False)
    assert (tmp_path / "summary.json").read_bytes() == before


def test_results_of_other_cases_are_not_replaced_by_accident(tmp_path):
    write_result(tmp_path, cases=3)
    check_same_cases(tmp_path, ["case02", "case01", "case00"], force=False)
    message = r"results of other cases \(3 cases, now 2, in common 1\); give --force"
    with pytest.raises(UserError, match=message):
        check_same_cases(tmp_path, ["case02", "case03"], force=False)
    check_same_cases(tmp_path, ["case02", "case03"], force=True)
    check_same_cases(tmp_path / "new", ["case02", "case03"], force=False)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"checkpoints": 3}', "null", "[" * 200_000, "9" * 5000])
def test_results_that_cannot_be_read_are_not_replaced_either(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match="cannot be read"):
        check_replaceable(tmp_path, describe(), force=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_results_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "summary.json")
    with pytest.raises(UserError, match="cannot be read"):
        check_replaceable(tmp_path, describe(), force=False)


ROWS = [{"case": name, "class": kind, "outcome": "found"} for name in ("a", "b", "c") for kind in ("x", "y")]


def test_cases_that_any_of_the_networks_saw_are_named():
    seen = [hash_cases(["b", "k"], ["c"]), {"earlier": [hash_case("a")]}]
    found = trained_on(ROWS, seen, "test")
    assert found["trained_on"] == ["a", "b"]
    assert found["note"].startswith("2 of 3 cases have the names of cases that the network was trained on")
    assert trained_on(ROWS, seen, "train") == {"trained_on": ["a", "b"]}  # asked for
    assert trained_on(ROWS, [hash_cases(["k"], ["c"])], "test") == {"trained_on": []}
    assert trained_on(ROWS, [{}], "test") == {"trained_on": None}  # an older file does not say


def test_a_comparison_repeats_it(tmp_path):
    write_result(tmp_path / "a", trained_on=["case00", "case01"])
    assert "a: 2 of 12 cases are of its checkpoint's training part" in warn_of_results(
        parse_settings([str(tmp_path / "a")], None)
    )


def test_no_name_of_a_case_is_kept_in_clear():
    cases = hash_cases(["patient_smith", "b"], [])
    assert cases["train"] == sorted(map(hash_case, ["b", "patient_smith"]))
    assert not any("smith" in digest for digest in cases["train"])
