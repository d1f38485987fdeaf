"""The two protocols side by side: figures found by hand, one case a trap, and two results of one checkpoint."""

import json
import math
import sys

import numpy as np
import pytest

from benchmarks import protocol_cases, protocols
from benchmarks.protocol_cases import TRAPS, Trap, of_volumes
from benchmarks.protocol_pair import read_pair, side_by_side
from tests.support.result_folders import write_result
from utils.errors import UserError
from utils.scoring import protocols as scores
from utils.scoring import surface

BY_NAME = {trap.name: trap for trap in TRAPS}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
@pytest.mark.parametrize("protocol", ["legacy", "standard"])
def test_every_figure_is_the_one_found_by_hand(trap, protocol):
    assert protocols.agree(protocols.measure(trap, protocol), getattr(trap, protocol))


@pytest.mark.parametrize(
    ("name", "legacy", "standard"),
    [  # Dice and HD95 under legacy; Dice, HD95 and NSD under standard
        ("both there", (0.5, 2), (0.5, 2, 1)),
        ("missed organ", (0, 0), (0, None, 0)),
        ("invented organ", (1, 0), (0, None, 0)),
        ("absent organ", (0, 0), (None, None, None)),
        ("thick slices", (0, 1), (0, 5, 0)),
        ("far strays", (0.95, 1), (0.95, 20, 0.95)),
        ("resized slice", (0.8, 1), (1, 0, 1)),
        ("mean with a miss", (0.25, 1), (0.25, 2, 0.5)),
        ("mean with an absence", (0.25, 0), (0.5, 0, 0.5)),
        ("thin line in an image", (1,), (0, None, 0)),
        ("missed pixel of an image", (0.5,), (0, None, 0)),
        ("empty image", (1,), (None, None, None)),
        ("spread over images", (0.75,), (0.5, 0, 0.5)),
    ],
)
def test_the_table_of_both(name, legacy, standard):
    """The printed figures written down once more, so that what a case expects cannot follow the code unseen."""
    for protocol, expected in (("legacy", legacy), ("standard", standard)):
        figures = protocols.measure(BY_NAME[name], protocol)
        shown = [value for key, value in figures.items() if not protocols._extra(key)]
        assert shown == [None if one is None else pytest.approx(one) for one in expected]


def test_every_trap_parts_the_protocols_and_one_case_does_not():
    for trap in TRAPS:
        legacy, standard = (
            {name.replace("_mm", "_px"): value for name, value in getattr(trap, p).items()}
            for p in ("legacy", "standard")
        )
        parted = any(legacy[name] != standard[name] for name in legacy.keys() & standard.keys())
        assert parted == (trap.name != "both there")


def test_distances_and_tolerance_have_the_unit_of_the_spacing():
    assert {"hd95_mm", "nsd_2mm"} <= protocols.measure(BY_NAME["thick slices"], "standard").keys()
    assert {"hd95_px", "nsd_2px"} <= protocols.measure(BY_NAME["far strays"], "standard").keys()


def without_misses(n, *masks):
    """The legacy rule as it might be mended: a distance only where there is one."""
    row = LEGACY_VOLUME(n, *masks)
    return row if scores.outcome(n) == "found" else row | {"hd95_px": math.nan}


LEGACY_VOLUME = scores._legacy_volume
ONE_EMPTY = {"missed organ", "invented organ", "absent organ", "mean with a miss"}


@pytest.mark.parametrize(
    ("module", "name", "broken", "caught"),
    [
        (surface, "hd95", surface.hd95_pooled, {"far strays"}),
        (surface, "hd95_pooled", surface.hd95, {"far strays"}),
        (scores, "_legacy_volume", without_misses, ONE_EMPTY),
    ],
)
def test_another_rule_shows_in_the_cases_that_are_about_it(monkeypatch, module, name, broken, caught):
    monkeypatch.setattr(module, name, broken)
    assert {entry["case"] for entry in protocols.traps() if not entry["as_found_by_hand"]} == caught


def test_a_figure_that_differs_is_marked(monkeypatch, capsys, tmp_path):
    square = protocol_cases.SQUARE
    wrong = Trap("wrong", "none", "", of_volumes((square, square)), {"dice": 0.5}, {"dice": 1.0, "hd95_px": 1.0})
    monkeypatch.setattr(protocols, "TRAPS", (wrong,))
    protocols.main(["--output", str(tmp_path / "p.json")])
    assert capsys.readouterr().out.count("NOT AS FOUND BY HAND") == 1
    assert [t["as_found_by_hand"] for t in json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))["traps"]] == [
        False
    ]


@pytest.mark.parametrize(
    ("measured", "expected", "same"),
    [
        ({"dice": 0.1 + 0.2}, {"dice": 0.3}, True),
        ({"dice": 0.300001}, {"dice": 0.3}, False),
        ({"dice": None}, {"dice": 0.0}, False),
        ({"dice": 0.0}, {"dice": None}, False),
        ({"dice": None}, {"dice": None}, True),
        ({"dice": math.nan}, {"dice": 0.0}, False),
        ({"dice": 0.0}, {"dice": 0.0, "iou": 0.0}, False),
    ],
)
def test_agreement_of_figures(measured, expected, same):
    assert protocols.agree(measured, expected) == same


# --- two results of one checkpoint ---------------------------------------------------------------


def legacy_rows(rows):
    """The legacy rule's figures in place of the standard one's: distance 0 for a miss, no sizes."""
    for row in rows:
        dice = 0.5 if row["outcome"] == "found" else 0.0
        figures = {"dice": dice, "hd95_px": 0.0 if np.isnan(row["hd95_px"]) else 3.0}
        for name in set(row) - {"case", "class", "outcome"}:
            del row[name]
        row |= figures


def write_pair(folder, legacy=None, standard=None):
    """test_legacy and test_standard of one checkpoint: 4 cases, of which the first misses the liver."""
    given = {"cases": 4, "missed": ((0, "liver"),), "dataset": "/srv/someone/polyps/"}
    first = given | {"protocol": "legacy", "changed": legacy_rows, "dataset": "polyps"} | (legacy or {})
    return [
        str(write_result(folder / "test_legacy", **first)),
        str(write_result(folder / "test_standard", **given | (standard or {}))),
    ]


def test_both_results_come_side_by_side_in_any_order(tmp_path, capsys, monkeypatch):
    same = {"checkpoints": [{"file": "/x/best_model.pth", "sha256": "ab" * 32}]}
    folders = write_pair(tmp_path, same, same)
    run = side_by_side(*read_pair(folders))
    assert run == side_by_side(*read_pair(folders[::-1]))
    liver = run["classes"]["liver"]
    assert (liver["legacy"]["hd95_px"]["mean"], liver["legacy"]["dice"]["mean"]) == (9 / 4, 3 / 8)
    written = json.loads((tmp_path / "test_standard" / "summary.json").read_text(encoding="utf-8"))
    assert liver["standard"]["hd95_px"]["mean"] == written["classes"]["liver"]["metrics"]["hd95_px"]["mean"]
    assert (liver["standard"]["hd95_px"]["left_out"], liver["standard"]["missed"]) == (1, 1)
    assert run["overall"]["standard"]["dice"]["mean"] == written["overall"]["metrics"]["dice"]["mean"]
    monkeypatch.setattr(sys, "argv", ["protocols.py"])
    protocols.main(["--run", *folders, "--output", str(tmp_path / "p.json")])
    text = (tmp_path / "p.json").read_text(encoding="utf-8")
    assert json.loads(text)["run"] == json.loads(json.dumps(run))
    assert json.loads(text)["machine"]["command"] == "python -m benchmarks.protocols"
    assert "someone" not in text
    assert "/x" not in text
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:5] == ["liver", "4", "1", "37.50", "2.25"] for line in lines)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "different checkpoint"),
        ({"cases": 5}, r"different cases: none besides .* case04"),
        ({"classes": ("liver",)}, "different classes"),
        ({"img_size": [96, 128]}, r"different input size: \[224, 224\] in .*legacy, \[96, 128\] in"),
        ({"split": "another"}, "different split"),
        ({"dataset": "isic2018"}, "different data set"),
        ({"tta": True}, "different test-time augmentation"),
    ],
)
def test_results_of_other_predictions_are_refused(tmp_path, other, message):
    with pytest.raises(UserError, match=message):
        read_pair(write_pair(tmp_path, standard=other))


def test_another_ground_truth_is_refused(tmp_path):
    def absent(rows):
        rows[0]["outcome"] = "absent"

    with pytest.raises(UserError, match=r"different ground truth .*'case00', 'liver'"):
        read_pair(write_pair(tmp_path, standard={"changed": absent}))


def test_two_results_of_one_protocol_are_refused(tmp_path):
    _, standard = write_pair(tmp_path)
    with pytest.raises(UserError, match=r"one result of each protocol.*test_standard: standard"):
        read_pair([standard, standard])
