"""The table of a study says what the files of its runs say."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.study.table import result_of, summarise
from benchmarks.study.text import as_markdown
from tests.support.study_runs import ARMS, MADE_UP, finish
from utils.errors import UserError
from utils.results.reading import read_result
from utils.scoring.statistics import bootstrap_means, interval


def dice_pair(found, arm="plain"):
    """The pair of an arm with the first, over all classes."""
    wanted = {"second": arm, "metric": "dice", "class_name": "all classes"}
    (pair,) = (pair for pair in found["comparison"]["pairs"] if wanted.items() <= pair.items())
    return pair


def test_the_table_is_of_the_runs_that_are_finished_and_names_the_others(tmp_path):
    assert summarise(MADE_UP, tmp_path, "test") is None
    finish(tmp_path / "plain" / "seed_2", 5)
    text = as_markdown(summarise(MADE_UP, tmp_path, "test"))
    assert "| plain | 1 |" in text
    assert "| scsa |" not in text
    assert "not in the table: scsa (1, 2), plain (1) (seeds)" in text
    for seed, shift in ((1, -0.3), (2, 0.05)):  # seed 1 is of no account, since plain lacks it
        finish(tmp_path / "scsa" / f"seed_{seed}", seed, shift=shift)
    found = summarise(MADE_UP, tmp_path, "test")
    assert found["missing"] == {"plain": [1]}
    pair = dice_pair(found)
    assert pair["difference"] == pytest.approx(-0.05, abs=0.01)
    assert pair["p_holm"] < 0.01
    low, high = (f"{100 * end:+.1f}" for end in pair["ci95"])
    (row,) = (row for row in as_markdown(found).splitlines() if row.startswith("| plain | 1 |"))
    assert f" | {100 * pair['difference']:+.1f} [{low}, {high}] | {pair['p_holm']:.3g} | " in row
    assert "different numbers of seeds: scsa 2, plain 1" in as_markdown(found)
    shutil.rmtree(tmp_path / "scsa")
    finish(tmp_path / "third" / "seed_1", 9)
    three = replace(MADE_UP, arms=ARMS | {"third": ()})
    assert "No tests: they are against scsa, which has no finished seed" in as_markdown(
        summarise(three, tmp_path, "test")
    )


def test_p_is_corrected_over_the_arms(tmp_path):
    three = replace(MADE_UP, arms=ARMS | {"third": ()})
    for number, arm in enumerate(three.arms):
        finish(tmp_path / arm / "seed_1", number, shift=0.002 * number)
    pairs = [dice_pair(summarise(three, tmp_path, "test"), arm) for arm in ("plain", "third")]
    low, high = sorted(pairs, key=lambda pair: pair["p"])
    assert low["p_holm"] == pytest.approx(min(1, 2 * low["p"]))
    assert high["p_holm"] == pytest.approx(max(low["p_holm"], high["p"]))


def test_the_table_tells_of_groups(tmp_path):
    for number, arm in enumerate(ARMS):
        videos = {"changed": lambda rows: [row.update(group=row["case"][:5]) for row in rows]}  # case0 and case1
        finish(tmp_path / arm / "seed_1", number, **videos)
    text = as_markdown(summarise(MADE_UP, tmp_path, "test"))
    assert "; 12 cases of 2 groups (videos, patients) of the test part;" in text
    assert "interval from resampled groups; Wilcoxon's signed-rank test over groups" in text
    assert "dice: with 2 groups (videos, patients) and 1 pair(s) the smallest possible p is 0.5" in text


def test_an_arm_that_was_chosen_after_a_seed_is_told_without_it(tmp_path):
    plan = replace(MADE_UP, chosen_after={"plain": 1})
    finish(tmp_path / "scsa" / "seed_1", 1)
    finish(tmp_path / "plain" / "seed_1", 3, shift=0.1)
    assert "chosen" not in as_markdown(summarise(plan, tmp_path, "test"))
    finish(tmp_path / "scsa" / "seed_2", 2)
    finish(tmp_path / "plain" / "seed_2", 4, shift=0.02)
    found = summarise(plan, tmp_path, "test")
    assert dice_pair(found)["difference"] == pytest.approx(0.06, abs=0.01)
    assert found["comparison"]["unseen"]["plain"]["difference"] == pytest.approx(0.02, abs=0.01)
    assert re.search(r"plain was chosen after seed 1 of .* Over the other seeds: \+[12]\.\d \[", as_markdown(found))


def test_the_seconds_are_those_of_the_run_that_was_disturbed_least(tmp_path):
    for seed, seconds in ((1, 80.0), (2, 6.0)):
        out = tmp_path / "scsa" / f"seed_{seed}"
        finish(out, seed)
        cost = json.loads((out / "cost.json").read_text(encoding="utf-8"))
        (out / "cost.json").write_text(json.dumps(cost | {"seconds": seconds}), encoding="utf-8")
    assert summarise(MADE_UP, tmp_path, "test")["costs"]["scsa"]["seconds_per_epoch"] == 3.0


def test_seeds_that_validated_on_different_folds_make_one_table(tmp_path):
    """Arms are compared seed by seed and case by case; seed 2 has harder cases, of which seed 1 has some."""

    def of_fold(fold):
        return lambda rows: [row.update(case=f"case{int(row['case'][4:]) + 8 * fold:02d}") for row in rows]

    def finish_val(arm, seed, fold, **result):
        number, shift = seed + 10 * (arm == "plain"), 0.05 * (arm == "plain") - 0.3 * (seed - 1)
        out = tmp_path / arm / f"seed_{seed}"
        finish(out, number, "val_standard_fold1", shift=shift, changed=of_fold(fold), **result)
        return read_result(out / "val_standard_fold1").table("dice").mean(1)

    scsa = finish_val("scsa", 1, 0), finish_val("scsa", 2, 1)
    plain = [finish_val("plain", 1, 0)]
    found = summarise(MADE_UP, tmp_path, "val")
    assert (found["comparison"]["parts"], found["comparison"]["cases"]) == (2, 20)
    assert dice_pair(found)["cases"] == 12
    assert dice_pair(found)["difference"] == pytest.approx((plain[0] - scsa[0]).mean())
    assert "only one of two settings has" not in as_markdown(found)

    plain.append(finish_val("plain", 2, 1))
    found = summarise(MADE_UP, tmp_path, "val")
    first, second = (b - a for a, b in zip(scsa, plain))
    each = np.concatenate([first[:8], (first[8:] + second[:4]) / 2, second[4:]])
    assert dice_pair(found)["cases"] == 20
    assert dice_pair(found)["difference"] == pytest.approx(each.mean())
    assert dice_pair(found)["ci95"] == pytest.approx(interval(bootstrap_means(each[:, None])[:, 0]))
    text = as_markdown(found)
    for setting, tables in zip(found["comparison"]["settings"], (scsa, plain)):
        means = setting["means"]["all classes"]["dice"]
        assert means["seeds"] == pytest.approx([table.mean() for table in tables])
        assert means["mean"] == pytest.approx(np.mean(means["seeds"]))
        assert means["ci95"] == [None, None]
        assert f"| {100 * means['mean']:.1f} ± {100 * means['sd']:.1f} | – |" in text
    assert "validated on other cases, 2 parts in all" in text
    finish_val("plain", 2, 0)
    with pytest.raises(UserError, match="different cases"):
        summarise(MADE_UP, tmp_path, "val")


def test_arms_may_differ_in_input_size_and_epochs_and_the_table_says_so(tmp_path):
    finish(tmp_path / "scsa" / "seed_1", 1, img_size=[64, 64])
    finish(tmp_path / "plain" / "seed_1", 2, img_size=[64, 64])
    assert "Arms differ" not in as_markdown(summarise(MADE_UP, tmp_path, "test"))
    finish(tmp_path / "plain" / "seed_1", 2, img_size=[96, 96], epochs=4)
    found = summarise(MADE_UP, tmp_path, "test")
    assert "Arms differ: scsa 64x64, 2 epochs; plain 96x96, 4 epochs." in as_markdown(found)
    finish(tmp_path / "plain" / "seed_1", 2, tolerance=3.0)
    with pytest.raises(UserError, match="different surface tolerance"):
        summarise(MADE_UP, tmp_path, "test")


def test_only_the_result_of_the_plain_test_counts(tmp_path):
    finish(tmp_path, 1, part="test_standard_tta")
    assert result_of(tmp_path, "test") is None
    finish(tmp_path, 1, part="val_standard_fold0")
    assert result_of(tmp_path, "val") is None
    finish(tmp_path, 1, part="val_standard_fold1")
    assert result_of(tmp_path, "val") == tmp_path / "val_standard_fold1"
