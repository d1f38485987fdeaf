"""Result files: aggregation by hand, what is left out and counted, round trip, atomic writes, the table."""

import json
import math

import numpy as np
import pytest

from utils.results import summary as report
from utils.results.summary import read_cases, summarise, write_results
from utils.results.table import format_table
from utils.scoring.statistics import bootstrap_means, interval

NAN = math.nan
META = {
    "protocol": "standard",
    "split": "fixed lists, 12 test volumes",
    "selection": "end of the last cycle",
    "checkpoints": [{"file": "best_model.pth", "sha256": "ab" * 32}],
    "img_size": [224, 224],
}


def row(case: str, name: str, outcome: str, dice: float, hd95: float, predicted: float) -> report.Row:
    return {
        "case": case,
        "class": name,
        "outcome": outcome,
        "dice": dice,
        "hd95_mm": hd95,
        "predicted_mm3": predicted,
    }


ROWS = [
    row("a", "liver", "found", 0.8, 4.0, 100.0),
    row("a", "spleen", "found", 0.6, 3.0, 50.0),
    row("b", "liver", "found", 1 / 3, 1e-17, 90.0),
    row("b", "spleen", "missed", 0.0, NAN, 0.0),
    row("c", "liver", "false_positive", 0.0, NAN, 12.5),
    row("c", "spleen", "absent", NAN, NAN, 0.0),
]


def test_summary_by_hand():
    summary = summarise(ROWS, META)
    liver, spleen = summary["classes"]["liver"], summary["classes"]["spleen"]
    assert {k: liver[k] for k in report.OUTCOMES} == {"found": 2, "missed": 0, "false_positive": 1, "absent": 0}
    assert {k: spleen[k] for k in report.OUTCOMES} == {"found": 1, "missed": 1, "false_positive": 0, "absent": 1}
    assert (liver["false_positive_mm3"], spleen["false_positive_mm3"]) == (12.5, 0.0)
    dice = liver["metrics"]["dice"]
    assert dice["mean"] == pytest.approx((0.8 + 1 / 3 + 0) / 3)
    assert dice["sd"] == pytest.approx(np.std([0.8, 1 / 3, 0], ddof=1))
    assert (dice["cases"], dice["left_out"]) == (3, 0)
    assert 0 <= dice["ci95"][0] < dice["mean"] < dice["ci95"][1] < 0.8 + 1e-9
    assert spleen["metrics"]["dice"]["mean"] == pytest.approx(0.3)
    hd95 = spleen["metrics"]["hd95_mm"]
    assert hd95 == {"mean": 3.0, "sd": None, "ci95": [None, None], "cases": 1, "left_out": 2}

    overall = summary["overall"]
    assert overall["metrics"]["dice"]["mean"] == pytest.approx(((0.8 + 1 / 3) / 3 + 0.3) / 2)  # classes weigh the same
    assert overall["metrics"]["dice"]["left_out"] == 1
    assert overall["metrics"]["dice"]["sd"] == pytest.approx(np.std([0.7, 1 / 6, 0], ddof=1))
    assert overall["metrics"]["hd95_mm"]["left_out"] == 3
    assert (overall["found"], overall["missed"], overall["false_positive"], overall["absent"]) == (3, 1, 1, 1)
    assert overall["false_positive_mm3"] == 12.5
    assert (summary["num_cases"], summary["unit"], summary["protocol"]) == (3, "mm", "standard")
    assert summary["checkpoints"] == META["checkpoints"]


def test_legacy_sd_divides_by_the_number_of_cases():
    rows = [{"case": c, "class": "polyp", "outcome": "found", "dice": d} for c, d in (("a", 0.5), ("b", 1.0))]
    for protocol, expected in (("legacy", 0.25), ("standard", 0.25 * math.sqrt(2))):
        summary = summarise(rows, META | {"protocol": protocol})
        assert summary["overall"]["metrics"]["dice"]["sd"] == pytest.approx(expected)
        assert summary["classes"]["polyp"]["metrics"]["dice"]["sd"] == pytest.approx(expected)


def test_overall_interval_resamples_cases_not_rows():
    """Two classes that move together: the interval of their mean is as wide as that of one."""
    rng = np.random.default_rng(0)
    rows = [
        {"case": str(i), "class": name, "outcome": "found", "dice": d}
        for i, d in enumerate(rng.random(12))
        for name in ("left", "right")
    ]
    summary = summarise(rows, META)
    one, both = summary["classes"]["left"]["metrics"]["dice"], summary["overall"]["metrics"]["dice"]
    assert both["ci95"] == pytest.approx(one["ci95"])
    assert both["mean"] == pytest.approx(one["mean"])


def test_intervals_resample_groups_where_they_are_known(tmp_path):
    """Three videos of four alike frames: as wide as that of three cases."""
    dice = np.array([0.2, 0.5, 0.9])
    videos = [
        row(f"{v}{i}", "polyp", "found", dice[v], 1.0, 1.0) | {"group": f"video{v}"} for v in range(3) for i in "ab"
    ]
    summary = write_results(tmp_path, videos, META)
    assert summary["interval"] == "bootstrap over 3 groups (videos, patients), 95 %, 5000 resamples"
    assert "mean [95 % interval over 3 groups (videos, patients)]" in format_table(summary)
    figures = summary["classes"]["polyp"]["metrics"]["dice"]
    assert figures["ci95"] == pytest.approx(interval(bootstrap_means(dice[:, None])[:, 0]))
    assert read_cases(tmp_path / "cases.csv") == videos
    one = summarise(videos[:2], META)["overall"]["metrics"]["dice"]
    assert (one["ci95"], one["cases"]) == ([None, None], 2)
    alone = [found | {"group": group} for found, group in zip(ROWS, ("z", "z", "", "", "a", "a"))]
    assert summarise(alone, META) == summarise(ROWS, META)


def test_files_round_trip_in_full_precision(tmp_path):
    summary = write_results(tmp_path / "new" / "folder", ROWS, META)
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == ["cases.csv", "summary.json"]
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8")) == summary
    for found, given in zip(read_cases(folder / "cases.csv"), ROWS, strict=True):
        assert list(found) == list(given)
        for key, value in given.items():
            assert found[key] == value or (math.isnan(value) and math.isnan(found[key]))
    lines = (folder / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "case,class,outcome,dice,hd95_mm,predicted_mm3"
    assert lines[3] == "b,liver,found,0.3333333333333333,1e-17,90.0"
    assert lines[6] == "c,spleen,absent,,,0.0"


def test_numpy_figures_are_written_as_numbers(tmp_path):
    write_results(tmp_path, [{"case": "a,b", "class": "x", "outcome": "found", "dice": np.float64(0.25)}], META)
    assert (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[1] == '"a,b",x,found,0.25'


def test_cases_with_and_without_spacing_keep_apart():
    rows = [row("a", "x", "found", 1.0, 2.0, 3.0), {"case": "b", "class": "x", "outcome": "found", "hd95_px": 7.0}]
    summary = summarise(rows, META)
    assert summary["unit"] == "mm and px"
    assert summary["overall"]["metrics"]["hd95_px"]["mean"] == 7.0
    assert summary["overall"]["metrics"]["hd95_mm"]["mean"] == 2.0


def test_no_rows_and_doubled_rows_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        summarise([], META)
    with pytest.raises(ValueError, match="case a, class liver: 2 rows"):
        summarise([*ROWS, ROWS[0]], META)


def test_table():
    text = format_table(summarise(ROWS, META))
    lines = text.splitlines()
    assert "protocol standard, 3 cases" in lines
    assert "end of the last cycle" in text
    header = next(line for line in lines if line.startswith("class"))
    assert header.split() == ["class", "n", "missed", "false", "pos.", "dice", "%", "hd95_mm"]
    spleen = next(line for line in lines if line.startswith("spleen"))
    assert spleen.split()[:4] == ["spleen", "2", "1", "0"]
    assert spleen.split()[4] == "30.00"
    assert spleen.split()[-1] == "3.00"  # one case: no interval
    mean = next(line for line in lines if line.startswith("mean"))
    assert mean.split()[:5] == ["mean", "5", "1", "1", "33.89"]
    assert len({len(line) for line in (header, spleen, mean)}) == 1


def test_table_of_one_class_and_of_nothing_known():
    rows = [{"case": "a", "class": "polyp", "outcome": "absent", "dice": NAN, "boundary_f1": NAN, "nsd_2px": NAN}]
    lines = format_table(summarise(rows, META)).splitlines()
    assert lines[-1].split() == ["polyp", "0", "0", "0", "-", "-", "-"]
