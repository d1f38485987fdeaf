"""The page as a file: figures as in summary.json, nothing executable from names, nothing loaded, kept to its budget."""

import base64
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from synapse_train_test.task import SYNAPSE
from tests.support.pages import EVIL, META, gallery_run, label_maps, read_page, volume_run
from utils.config import Config
from utils.results.page.words import data_name, label_of, number, warnings
from utils.results.summary import describe_result, summarise


@pytest.fixture(scope="module")
def volumes():
    return volume_run()


@pytest.fixture(scope="module")
def gallery():
    return gallery_run()


@pytest.fixture(scope="module")
def volumes_page(tmp_path_factory, volumes):
    histories = {"run": {"loss": [(1.0, 0.9)], "lr": [(1.0, 0.1)]}}
    return read_page(tmp_path_factory.mktemp("volumes"), volumes, histories=histories)


def test_the_table_shows_the_summarys_means_and_intervals(volumes, volumes_page):
    head, *lines = volumes_page.tables["figures-table"]
    names = [" ".join(words) for _, words in head]
    assert names[:4] == ["Class", "n", "Missed", "False positives"]
    assert len(lines) == 4
    entries = [*volumes.summary["classes"].values(), volumes.summary["overall"]]
    for line, entry in zip(lines, entries):
        assert int(line[2][0]) == entry["missed"]
        for metric, figures in entry["metrics"].items():
            value, words = line[names.index(label_of(metric))]
            low, high = figures["ci95"]
            interval = [] if low is None else [f"{number(metric, low)}–{number(metric, high)}"]
            assert words == [number(metric, figures["mean"]), *interval]
            assert (value and float(value)) == figures["mean"]


@pytest.mark.usefixtures("no_charts")
def test_cases_come_worst_first_with_their_outcomes(tmp_path, gallery, volumes_page):
    assert [case["name"] for case in volumes_page.cases()] == [EVIL, "case0001", "case0002"]
    _, first, *_ = volumes_page.tables["cases-table"]
    assert [words for _, words in first][-2:] == [["missed"], ["false positive"]]
    dices = [float(line[1][0]) for line in volumes_page.tables["cases-table"][1:]]
    assert dices == sorted(dices)
    last = read_page(tmp_path, gallery).cases()[-1]
    assert (last["name"], last["dice"], last["figures"][0]) == ("image 29.jpg", None, ["Outcome", "absent"])


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("run", ["volumes", "gallery"])
def test_frames_hold_the_label_maps(tmp_path, run, request):
    run = request.getfixturevalue(run)
    for case in read_page(tmp_path, run).cases():
        maps = np.stack(run.maps[case["name"]])
        for frame in case["frames"]:
            own = maps if case["depth"] == 0 else maps[:, frame["index"]]
            assert np.array_equal(label_maps(frame), own)
            assert frame["wrong"] == (own[0] != own[1]).sum()


@pytest.mark.parametrize("run", ["volumes", "gallery"])
def test_nothing_that_comes_from_files_is_executed(tmp_path, run, request):
    if run == "gallery":  # the charts of the volumes do for both
        request.getfixturevalue("no_charts")
    run = request.getfixturevalue(run)
    histories = {EVIL: {"loss": [(1.0, 0.5), (2.0, 0.4)], f"dice {EVIL}": [(1.0, 0.5)], "dice <u>": [(1.0, 0.1)]}}
    meta = {"split": EVIL, "dataset": EVIL, "selection": EVIL, "network": EVIL, "note": EVIL}
    meta["checkpoints"] = [{"file": EVIL, "sha256": EVIL, "selection": EVIL}]
    found = read_page(tmp_path, run, run.summary | meta, histories)
    scripts = [attrs for tag, attrs in found.elements if tag == "script"]
    assert [attrs for attrs in scripts if attrs.get("type") != "application/json"] == [{}]
    assert len(scripts) == len(run.cases) + 2  # the cases, the colours and the page's own
    assert EVIL in found.words
    assert not {"b", "u"} & {tag for tag, _ in found.elements}
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]


def test_nothing_is_loaded_and_the_policy_allows_only_the_pages_script(volumes_page):
    for tag, attrs in volumes_page.elements:
        assert "src" not in attrs
        assert attrs.get("href", "#").startswith(("#", "data:")), (tag, attrs)
    policy = next(attrs["content"] for tag, attrs in volumes_page.elements if "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(volumes_page.scripts["code"].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.usefixtures("no_charts")
def test_every_id_is_there_once_and_every_label_has_a_field(tmp_path, volumes_page, gallery):
    for elements in (volumes_page.elements, read_page(tmp_path, gallery).elements):
        ids = [attrs["id"] for _, attrs in elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        assert {attrs["for"] for tag, attrs in elements if tag == "label" and "for" in attrs} <= set(ids)


# --- budget ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_charts")
def test_the_budget_holds_and_the_page_says_what_was_left_out(tmp_path):
    run = volume_run(num_cases=6, depth=24)
    whole = len(read_page(tmp_path, run).text.encode())
    bare = len(read_page(tmp_path, run, budget=0).text.encode())
    for budget in (2 * whole, whole - 1, (whole + bare) // 2, bare + 20_000, bare + 5_000, bare):
        found = read_page(tmp_path, run, budget=budget)
        assert len(found.text.encode()) <= budget
        cases, words = found.cases(), " ".join(found.words)
        counts = [len(case["frames"]) for case in cases]
        assert counts == sorted(counts, reverse=True)
        assert (budget < whole) == (sum(counts) < 6 * 12) == ("more were left out" in words)
        assert ("without pictures" in words) == (0 in counts)
        if counts[0]:  # the worst slice of a case is the last to go
            assert 12 in [frame["index"] for frame in cases[0]["frames"]]
    assert counts == [0] * 6


@pytest.mark.usefixtures("no_charts")
def test_a_gallery_drops_the_best_images_first(tmp_path, gallery):
    bare = len(read_page(tmp_path, gallery, budget=0).text.encode())
    found = read_page(tmp_path, gallery, budget=bare + 60_000)
    counts = [len(case["frames"]) for case in found.cases()]
    assert 0 < sum(counts) < 30
    assert counts == sorted(counts, reverse=True)
    assert "are without pictures, the best ones" in " ".join(found.words)


@pytest.mark.usefixtures("no_charts")
def test_a_case_without_frames_is_refused_and_the_old_page_stays(tmp_path, volumes):
    before = read_page(tmp_path, volumes).text
    with pytest.raises(KeyError, match="case0002"):
        read_page(tmp_path, volumes._replace(cases=volumes.cases[:-1]))
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == [before]


# --- what a reader is told ------------------------------------------------------------------------


def test_the_head_says_what_was_evaluated(volumes_page):
    words = " ".join(volumes_page.words)
    for part in ("standard", "lists/test_vol.txt", "runs/best_model.pth", "abababababab", "96 × 128", "noncausal"):
        assert part in words
    for part in ("bf16", "best mean Dice on the validation part", "after epoch 7", "5000 resamples", "2 px"):
        assert part in words
    assert "Test-time augmentation on: flips" in words
    assert "HeteroMedSeg, SSD form noncausal, standard protocol, 3 cases" in words
    assert "Network HeteroMedSeg, SSD form noncausal" in words
    assert "Fit pad: images resized to fit into 96x128 (height x width)" in words
    assert "note" not in [attrs.get("role") for _, attrs in volumes_page.elements]


@pytest.mark.usefixtures("no_charts")
def test_another_network_is_called_by_its_name(tmp_path, volumes):
    """It has no form of SSD."""
    cfg = replace(SYNAPSE, network="swin_unetr", preprocess=replace(SYNAPSE.preprocess, fit="slide"))
    origin = {"file": "best_model.pth", "sha256": "ab" * 32, "selection": "last"}
    meta = describe_result(cfg, "fp32", [origin], "lists")
    assert (meta["network"], "ssd" in meta) == ("swin_unetr", False)
    words = " ".join(read_page(tmp_path, volumes, summarise(volumes.rows, meta)).words)
    assert "swin_unetr, standard protocol, 3 cases" in words
    assert "Network swin_unetr" in words
    assert "SSD form" not in words
    assert words.count("HeteroMedSeg") == words.count("Written by HeteroMedSeg.") == 1
    assert "Fit slide: images at their own resolution, through overlapping windows of 224x224" in words


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"selection": "test"}, "Selected on the test part"),
        ({"selection": "validation, test"}, "Selected on the test part"),
        ({"checkpoints": [{"file": "a", "sha256": "b", "selection": "test"}]}, "Selected on the test part"),
        ({"protocol": "legacy"}, "A missed class counts with distance 0"),
        ({"selection": "as published"}, "How their authors chose"),
        ({"note": "chosen by <i>these</i> images"}, "Note. chosen by <i>these</i> images"),
    ],
)
def test_warnings(volumes, meta, expected):
    (warning,) = warnings(summarise(volumes.rows, META | meta))
    assert expected in " ".join(warning)


@pytest.mark.usefixtures("no_charts")
def test_a_warning_stands_before_the_figures(tmp_path, volumes):
    words = read_page(tmp_path, volumes, volumes.summary | {"note": "chosen by these images"}).words
    assert words.index("chosen by these images") < words.index("Figures", 10)


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("dataset", ["/srv/someone/polyps", "../data/polyps/", "polyps"])
def test_a_data_set_is_known_by_its_last_folder(tmp_path, volumes, dataset):
    found = read_page(tmp_path, volumes, volumes.summary | {"dataset": dataset})
    assert found.words.count("polyps, standard test") == 2  # title and bar
    assert "data/polyps" not in found.text
    assert "someone" not in found.text


@pytest.mark.parametrize("root", ["data/ACDC", "data/ACDC/", "data/ACDC/test_vol_h5"])
def test_data_with_lists_of_its_own_is_not_called_by_the_recipe(root):
    cfg = replace(SYNAPSE, root_path=root, list_dir="data/ACDC", num_classes=4)
    assert data_name(describe_result(cfg, "fp32", [], "ACDC/test_vol.txt")) == "ACDC"
    assert data_name(describe_result(replace(cfg, list_dir=None), "fp32", [], "lists")) == "synapse"


def test_undefined_figures_are_no_numbers_in_the_page(volumes_page):
    (case,) = (case for case in volumes_page.cases() if case["name"] == EVIL)
    figures = {name: cells for name, *cells in case["figures"]}
    assert figures["HD95, px"][1:] == ["–", "–"]
    assert "NaN" not in json.dumps(volumes_page.cases())


def test_averages_of_several_networks_name_all_of_them():
    origins = [{"selection": "last", "network": name, "ssd": "causal"} for name in ("heteromedseg", "unet_resnet34")]
    found = describe_result(Config(), "fp32", [*origins, origins[0]], "lists")
    assert found["network"] == "heteromedseg, unet_resnet34"
    assert "ssd" not in found
    origins[1] = origins[0] | {"ssd": "noncausal"}
    assert describe_result(Config(), "fp32", origins, "lists")["ssd"] == "causal, noncausal"
