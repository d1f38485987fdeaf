"""python -m tools.compare: what it reads, refuses, warns of, prints and writes."""

import json

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tests.support.result_folders import NAN, write_result
from tools.compare import __main__ as command
from tools.compare.statistics import ALL_CLASSES
from tools.compare.text import pairs_table
from utils.errors import UserError
from utils.log import _Terminal, logging_to
from utils.results.reading import check_comparable, find_result, parse_settings, read_result
from utils.scoring.statistics import bootstrap_means, interval


def run(capsys, *words):
    """What `python -m tools.compare` prints."""
    with logging_to(_Terminal()):
        command.main([str(word) for word in words])
    return capsys.readouterr().out


# --- the command ---------------------------------------------------------------------------------


def test_two_runs_end_to_end(tmp_path, capsys):
    a = write_result(tmp_path / "a" / "test_standard", seed=1)
    b = write_result(tmp_path / "b" / "test_standard", shift=0.05, seed=2, missed={(3, "spleen")})
    printed = run(capsys, tmp_path / "a", tmp_path / "b", "--output_dir", tmp_path / "out")
    assert "protocol standard, cvc_clinicdb, 12 cases, input 224x224, split: test part" in printed
    assert "a → b" in printed
    assert "hd95_px: figures that only one of two settings has are left out" in printed
    assert "left out (1 in 1 of 1 pairs; a structure" in printed
    assert "the tests are over cases or their groups and do not see the scatter between trainings" in printed
    assert "only some seeds" not in printed
    found = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [s["name"] for s in found["settings"]] == ["a", "b"]
    assert found["metrics"] == {"dice": "higher", "hd95_px": "lower"}
    summary = json.loads((b / "summary.json").read_text(encoding="utf-8"))
    stated = found["settings"][1]["means"]
    assert stated[ALL_CLASSES]["dice"]["mean"] == pytest.approx(summary["overall"]["metrics"]["dice"]["mean"])
    assert stated["spleen"]["dice"]["ci95"] == summary["classes"]["spleen"]["metrics"]["dice"]["ci95"]
    assert found["settings"][1]["counts"]["spleen"] == {"missed": [1], "false_positive": [0]}
    rows = {(r["metric"], r["class_name"]): r for r in found["pairs"]}
    first, second = (read_result(folder).table("dice") for folder in (a, b))
    assert rows["dice", "liver"]["p"] == pytest.approx(wilcoxon(second[:, 0] - first[:, 0]).pvalue)
    assert rows["dice", "liver"]["effect"] == 1.0
    assert rows["hd95_px", "liver"]["effect"] == -1.0
    assert rows["hd95_px", "spleen"]["cases"] == 11
    assert found["ranks"]["hd95_px"]["average"]["b"] < 1.3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"comparison.{e}" for e in ("json", "html", "svg")}


def test_seeds_are_averaged_per_case_and_their_spread_shown(tmp_path, capsys):
    folders = [write_result(tmp_path / f"s{k}", shift=0.01 * k, seed=k) for k in range(3)]
    other = write_result(tmp_path / "other", seed=9)
    settings = parse_settings([f"ours={','.join(map(str, folders))}", str(other)], None)
    assert [s.name for s in settings] == ["ours", "other"]
    tables = [read_result(folder).table("dice") for folder in folders]
    np.testing.assert_allclose(settings[0].table("dice"), np.mean(tables, 0))
    found = command.compare(settings, ["dice"])
    figures = found["settings"][0]["means"][ALL_CLASSES]["dice"]
    means = [table.mean() for table in tables]
    assert figures["mean"] == pytest.approx(np.mean(means))
    assert figures["sd"] == pytest.approx(np.std(means, ddof=1))
    assert figures["seeds"] == pytest.approx(means)
    low, high = interval(bootstrap_means(np.mean(tables, 0)).mean(1))
    assert figures["ci95"] == pytest.approx([low, high])
    assert low < figures["mean"] < high
    assert any("different numbers of seeds: ours 3, other 1" in warning for warning in found["warnings"])
    assert any("do not see the scatter between trainings" in warning for warning in found["warnings"])
    alone = run(capsys, f"ours={','.join(map(str, folders))}")
    assert f"{100 * np.mean(means):.2f} ± {100 * np.std(means, ddof=1):.2f}" in alone
    assert "→" not in alone
    assert "scatter between trainings" not in alone


def test_a_miss_by_some_seeds_is_pointed_out(tmp_path, capsys):
    """b misses a case with two seeds of three: its distance is that of the third, and nothing is one-sided."""

    def far(distance):
        return lambda rows: rows[0].update(hd95_px=distance)

    words = []
    for name, distances in (("a", (100.0, 100.0, 100.0)), ("b", (NAN, NAN, 20.0))):
        folders = [tmp_path / f"{name}{seed}" for seed in range(3)]
        for seed, distance in enumerate(distances):
            write_result(folders[seed], seed=seed + 3 * (name == "b"), changed=far(distance))
        words.append(f"{name}={','.join(map(str, folders))}")
    printed = run(capsys, *words)
    assert "hd95_px: figures that only some seeds of a setting have are means over these seeds (b 1; a " in printed
    assert "only one of two settings" not in printed
    assert "dice: figures that only some" not in printed
    assert "are means over these seeds (s 1;" in run(capsys, f"s={','.join(map(str, folders))}")


def test_volume_error_is_compared_by_its_size(tmp_path):
    folders = [write_result(tmp_path / name, shift=s, seed=k) for k, (name, s) in enumerate((("a", 0), ("b", 0.1)))]
    settings = parse_settings([str(folder) for folder in folders], None)
    assert command.choose_metrics(settings, ["volume_error"]) == ["|volume_error|"]
    found = command.compare(settings, ["|volume_error|"])
    assert found["pairs"][0]["effect"] == -1.0
    assert found["settings"][0]["means"]["liver"]["|volume_error|"]["mean"] > 0.1
    json.dumps(found, allow_nan=False)


def test_one_case_has_no_interval(tmp_path, capsys):
    folders = [write_result(tmp_path / name, seed=k, cases=1) for k, name in enumerate("ab")]
    found = command.compare(parse_settings([str(folder) for folder in folders], None), ["dice"])
    assert found["settings"][0]["means"][ALL_CLASSES]["dice"]["ci95"] == [None, None]
    assert found["pairs"][0]["ci95"] == [None, None]


def test_few_cases_are_pointed_out(tmp_path, capsys):
    few = [write_result(tmp_path / "few" / name, s, k, cases=5) for k, (name, s) in enumerate((("a", 0), ("b", 0.1)))]
    printed = run(capsys, *few)
    assert "dice: with 5 cases and 1 pair(s) the smallest possible p is 0.0625" in printed
    assert "*" not in printed
    enough = [write_result(tmp_path / name, s, k, cases=6) for k, (name, s) in enumerate((("a", 0), ("b", 0.1)))]
    printed = run(capsys, *enough)
    assert "smallest possible p" not in printed
    assert "2 comparisons of single classes none of those can reach p < 0.05" in printed
    assert " *" in printed


def test_few_groups_are_pointed_out(tmp_path, capsys):
    """Twelve frames of three videos; only b's file has the column."""

    def of_videos(rows):
        rows[:] = [row | {"group": f"video{int(row['case'][4:]) // 4}"} for row in rows]

    a = write_result(tmp_path / "a", seed=1)
    b = write_result(tmp_path / "b", shift=0.1, seed=2, changed=of_videos)
    printed = run(capsys, a, b)
    assert "12 cases of 3 groups (videos, patients), input" in printed
    assert "dice: with 3 groups (videos, patients) and 1 pair(s) the smallest possible p is 0.25" in printed
    assert "*" not in printed


def test_few_cases_for_several_pairs(tmp_path, capsys):
    printed = run(capsys, *(write_result(tmp_path / k, cases=6, seed=i) for i, k in enumerate("abc")))
    assert "with 6 cases and 3 pair(s) the smallest possible p is 0.0938" in printed


def test_the_star_is_for_the_corrected_p(tmp_path):
    row = {"metric": "dice", "class_name": ALL_CLASSES, "first": "a", "second": "b", "difference": 0.012}
    row |= {"ci95": [None, None], "effect": 0.5, "p": 0.01, "cases": 9}
    comparison = {"classes": ["polyp"], "pairs": [row | {"p_holm": 0.06}, row | {"p_holm": 0.049}]}
    assert pairs_table(comparison, "dice")[1:] == [
        ["polyp", "a → b", "+1.20", "+0.50", "0.010", "0.060", "9"],
        ["polyp", "a → b", "+1.20", "+0.50", "0.010", "0.049 *", "9"],
    ]


def test_selection_on_the_test_part_and_legacy_are_pointed_out(tmp_path, capsys):
    a = write_result(tmp_path / "a", seed=1, selection="test", protocol="legacy")
    b = write_result(tmp_path / "b", seed=2, protocol="legacy")
    printed = run(capsys, a, b)
    assert "a: a checkpoint was chosen on the test part" in printed
    assert "b: a checkpoint was chosen" not in printed
    assert "legacy protocol: a missed class" in printed


def test_another_recipe_and_input_size_are_compared_on_the_same_labels(tmp_path, capsys):
    a = write_result(tmp_path / "a", seed=1)
    b = write_result(tmp_path / "b", seed=2, recipe="cvc_clinicdb_plus", img_size=[256, 256])
    assert "12 cases, input 224x224 (a), 256x256 (b), split" in run(capsys, a, b)
    with pytest.raises(UserError, match=r"x: seeds of one setting: different recipe: cvc_clinicdb in .*"):
        command.main([f"x={a},{b}"])


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"protocol": "legacy"}, "different protocol: standard in .*a, legacy in .*b"),
        ({"split": "fold 1"}, "different split: test part in .*a, fold 1 in .*b"),
        ({"dataset": "/data/isic2018"}, "different data set: cvc_clinicdb in .*a, isic2018 in .*b"),
        ({"tolerance": 1.0}, "different surface tolerance: 2.0 in .*a, 1.0 in .*b"),
        ({"cases": 11}, r"different cases: .*a has 12 \(only there: case11\), .*b has 11 \(only there: none\)"),
        ({"classes": ("liver", "aorta")}, r"different classes: .*only there: spleen.*only there: aorta"),
        (
            {"changed": lambda rows: rows[6].update(labelled_px=7.0)},
            "different ground truth: labelled_px of 1 cases, the first case03",
        ),
    ],
)
def test_results_that_cannot_be_compared(tmp_path, meta, words):
    a, b = write_result(tmp_path / "a", seed=1), write_result(tmp_path / "b", seed=2, **meta)
    with pytest.raises(UserError, match=words):
        command.main([str(a), str(b), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_data_set_is_the_same_wherever_its_folder_lies(tmp_path):
    a = write_result(tmp_path / "a", seed=1, dataset="/mnt/CVC_ClinicDB")
    b = write_result(tmp_path / "b", seed=2)
    check_comparable(parse_settings([str(a), str(b)], None))


def test_cases_are_matched_by_name_and_labels_may_be_missing(tmp_path):
    """Other order of rows, and a column that only some cases have (those with a spacing, say)."""

    def shuffle(rows):
        rows[2].pop("labelled_px")
        rows.reverse()

    folders = [write_result(tmp_path / "a", changed=lambda rows: rows[2].pop("labelled_px"), classes=("liver",))]
    folders.append(write_result(tmp_path / "b", changed=shuffle, classes=("liver",)))
    settings = parse_settings([str(folder) for folder in folders], None)
    check_comparable(settings)
    assert np.array_equal(settings[0].table("dice"), settings[1].table("dice"))
    assert [row["difference"] for row in command.compare(settings, ["dice"])["pairs"]] == [0.0]


def test_seeds_that_are_not_of_one_setting(tmp_path):
    a, same = write_result(tmp_path / "a", seed=1), write_result(tmp_path / "again", seed=1)
    other = write_result(tmp_path / "b", seed=2, ssd="noncausal")
    with pytest.raises(UserError, match=r"x: seeds of one setting: different SSD form: causal in .*, noncausal in"):
        check_comparable(parse_settings([f"x={a},{other}"], None))
    check_comparable(parse_settings([str(a), str(other)], None))
    with pytest.raises(UserError, match="x: one checkpoint counts as two seeds"):
        check_comparable(parse_settings([f"x={a},{same}"], None))
    check_comparable(parse_settings([str(a), str(same)], None))


def test_networks_are_named(tmp_path, capsys):
    """Results of before another network's named no form of SSD may stand beside newer ones."""
    ours = write_result(tmp_path / "ours", seed=1, ssd="noncausal")
    old, new = (write_result(tmp_path / f"unet{k}", seed=k, network="unet_resnet34") for k in (2, 3))
    summary = json.loads((new / "summary.json").read_text(encoding="utf-8"))
    del summary["ssd"]
    (new / "summary.json").write_text(json.dumps(summary))
    unnamed = write_result(tmp_path / "before", seed=4, network=None)
    words = [str(ours), f"unet={old},{new}", str(unnamed)]
    printed = run(capsys, *words, "--output_dir", tmp_path / "out")
    _, titles, *lines = printed[printed.index("Settings") :].splitlines()
    assert titles.split() == ["setting", "seeds", "network", "results"]
    for line, network in zip(lines, ("HeteroMedSeg, SSD form noncausal", "unet_resnet34", "not named")):
        assert f"  {network}  " in line
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "HeteroMedSeg, SSD form noncausal</td>" in page
    assert "unet_resnet34</td>" in page
    found = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [one["ssd"] for one in found["settings"]] == ["noncausal", None, "causal"]


def test_folders_and_names(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="no such folder"):
        find_result(folder)
    write_result(folder / "test_legacy", protocol="legacy")
    assert find_result(folder) == folder / "test_legacy"
    write_result(folder / "val_standard")
    with pytest.raises(UserError, match=r"no test_standard/summary.json in it; found .*test_legacy, val_standard"):
        find_result(folder)
    assert find_result(folder, "val_standard") == folder / "val_standard"
    write_result(folder / "test_standard")
    assert find_result(folder) == folder / "test_standard"
    with pytest.raises(UserError, match="two settings are called run"):
        parse_settings([f"run={folder}", f"run={folder}"], None)
    with pytest.raises(UserError, match="expected FOLDER, NAME=FOLDER"):
        parse_settings([f"={folder}"], None)
    twins = [str(write_result(tmp_path / k / "run")) for k in "xy"]
    assert [s.name for s in parse_settings(twins, None)] == twins


def test_damaged_results(tmp_path):
    folder = write_result(tmp_path / "a")
    (folder / "cases.csv").write_text("case,class,outcome,dice\nx,liver,found,high\n")
    with pytest.raises(UserError, match="damaged"):
        read_result(folder)
    (folder / "cases.csv").write_text("case,class,outcome,dice\nx,liver,found,0.5\n")
    with pytest.raises(UserError, match=r"tells of 12 cases of liver, spleen, cases.csv of 1 of liver"):
        read_result(folder)
    (folder / "cases.csv").unlink()
    with pytest.raises(UserError, match=r"cases.csv: cannot be read"):
        read_result(folder)
    (write_result(tmp_path / "b") / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"not a result of test.py: the fields protocol"):
        read_result(tmp_path / "b")


def test_unknown_metric_and_nothing_given(tmp_path):
    folder = write_result(tmp_path / "a")
    with pytest.raises(UserError, match=r"--metrics labelled_px: .*expected some of dice, hd95_px, \|volume_error\|"):
        command.main([str(folder), "--metrics", "labelled_px"])
    with pytest.raises(SystemExit, match="2"):
        command.main([])
