"""The page as a file: figures as in summary.json, nothing executable from names, nothing loaded, kept to its budget."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.support.pages import EVIL, META, gallery_run, volume_run
from utils.results.page.build import embed, page, write_page
from utils.results.page.runs import decode_runs
from utils.results.page.words import label_of, number, warnings
from utils.results.summary import summarise, write_results


class Page(HTMLParser):
    """Elements of a page: (tag, attributes), texts of scripts by id, and the words of every table."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.tables, self.words = [], {}, {}, []
        self.inside = self.rows = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if tag == "script":
            self.inside = attrs.get("id", "code")
        if tag == "table":
            self.rows = self.tables.setdefault(attrs["id"], [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append((attrs.get("data-value"), []))

    def handle_endtag(self, tag):
        if tag == "script":
            self.inside = None
        if tag == "table":
            self.rows = None

    def handle_data(self, text):
        if self.inside:
            self.scripts[self.inside] = self.scripts.get(self.inside, "") + text
        else:
            self.words.append(text.strip())
            if self.rows and self.rows[-1]:
                self.rows[-1][-1][1].append(text.strip())

    def json(self, name):
        return json.loads(self.scripts[name])


@pytest.fixture(scope="module")
def volumes():
    return volume_run()


@pytest.fixture(scope="module")
def gallery():
    return gallery_run()


def test_the_embedded_figures_are_those_of_summary_json(tmp_path, volumes):
    summary = write_results(tmp_path, volumes.rows, META)
    write_page(tmp_path / "report.html", summary, volumes.rows, volumes.cases)
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert found.json("summary") == json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert list(tmp_path.glob(".*")) == []


def test_the_table_shows_the_summarys_means_and_intervals(volumes):
    found = Page(page(volumes.summary, volumes.rows, volumes.cases, {}))
    head, *lines = found.tables["figures-table"]
    names = [" ".join(words) for _, words in head]
    assert names[:4] == ["Class", "n", "Missed", "False positives"]
    assert len(lines) == 4
    entries = [*volumes.summary["classes"].values(), volumes.summary["overall"]]
    for line, entry in zip(lines, entries):
        assert int(line[2][0]) == entry["missed"]
        for metric, figures in entry["metrics"].items():
            value, words = line[names.index(label_of(metric))]
            if figures["mean"] is None:
                assert (value, words) == (None, ["–"])
                continue
            assert float(value) == figures["mean"]
            low, high = figures["ci95"]
            interval = [] if low is None else [f"{number(metric, low)}–{number(metric, high)}"]
            assert [w for w in words if w] == [number(metric, figures["mean"]), *interval]


def test_cases_come_worst_first_with_their_outcomes(volumes, gallery):
    found = Page(page(volumes.summary, volumes.rows, volumes.cases, {}))
    assert [case["name"] for case in found.json("index")["cases"]] == [EVIL, "case0001", "case0002"]
    _, first, *_ = found.tables["cases-table"]
    assert [words for _, words in first][-3:] == [[first[-3][1][0]], ["missed"], ["false positive"]]
    dices = [float(line[1][0]) for line in found.tables["cases-table"][1:]]
    assert dices == sorted(dices)
    index = Page(page(gallery.summary, gallery.rows, gallery.cases, {})).json("index")
    assert index["cases"][-1] == {"name": "image 29.jpg", "dice": None}
    assert index["gallery"] is True


@pytest.mark.parametrize("run", ["volumes", "gallery"])
def test_frames_hold_the_label_maps(run, request):
    run = request.getfixturevalue(run)
    found = Page(page(run.summary, run.rows, run.cases, {}))
    index = found.json("index")
    for place, one in enumerate(index["cases"]):
        case = found.json(f"case-{place}")
        assert case["name"] == one["name"]
        prediction, truth = (np.atleast_3d(m.T).T for m in run.maps[case["name"]])
        for frame in case["frames"]:
            joint = decode_runs(base64.b64decode(frame["labels"]), tuple(frame["size"]))
            assert np.array_equal(joint // index["num_labels"], prediction[frame["index"]])
            assert np.array_equal(joint % index["num_labels"], truth[frame["index"]])
            assert frame["wrong"] == (prediction[frame["index"]] != truth[frame["index"]]).sum()
            assert base64.b64decode(frame["picture"]).startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("run", ["volumes", "gallery"])
def test_nothing_that_comes_from_files_is_executed(run, request):
    run = request.getfixturevalue(run)
    histories = {EVIL: {"loss": [(1.0, 0.5), (2.0, 0.4)], f"dice {EVIL}": [(1.0, 0.5)], "dice <i>": [(1.0, 0.1)]}}
    meta = {"split": EVIL, "dataset": EVIL, "selection": EVIL, "ssd": EVIL}
    meta["checkpoints"] = [{"file": EVIL, "sha256": EVIL, "selection": EVIL}]
    clean = Page(page(run.summary, run.rows, run.cases, {"x": histories[EVIL]}))
    found = Page(page(run.summary | meta, run.rows, run.cases, histories))
    scripts = [attrs for tag, attrs in found.elements if tag == "script"]
    assert len(scripts) == len([1 for tag, _ in clean.elements if tag == "script"]) == 3 + len(run.cases)
    assert [attrs for attrs in scripts if attrs.get("type") != "application/json"] == [{}]
    assert EVIL in " ".join(found.words)
    assert not any(tag in ("b", "i") and "pancreas" in str(attrs) for tag, attrs in found.elements)
    assert found.json("summary")["split"] == EVIL
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]


def test_nothing_is_loaded_and_the_policy_allows_only_the_pages_script(volumes):
    text = page(volumes.summary, volumes.rows, volumes.cases, {})
    found = Page(text)
    for tag, attrs in found.elements:
        assert "src" not in attrs
        assert attrs.get("href", "#").startswith(("#", "data:")), (tag, attrs)
    assert not re.findall(r"@import|url\(|https?:|//\w+\.\w", "".join(re.findall(r"<style>.*</style>", text, re.S)))
    assert not re.findall(r"https?:|fetch\(|XMLHttp|import\(", found.scripts["code"])
    policy = next(attrs["content"] for tag, attrs in found.elements if tag == "meta" and "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(found.scripts["code"].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_every_id_is_there_once_and_every_field_has_a_label(volumes, gallery):
    for run in (volumes, gallery):
        found = Page(page(run.summary, run.rows, run.cases, {}))
        ids = [attrs["id"] for _, attrs in found.elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        used = set(re.findall(r'\$\("([\w-]+)"\)', found.scripts["code"]))
        missing = used - set(ids)
        assert missing <= ({"case-list"} if run is gallery else {"gallery", "dialog", "order", "find", "found"})
        targets = {attrs["for"] for tag, attrs in found.elements if tag == "label" and "for" in attrs}
        assert targets <= set(ids)


# --- budget ---------------------------------------------------------------------------------------


def test_the_budget_holds_and_the_page_says_what_was_left_out():
    run = volume_run(num_cases=6, depth=24)
    whole = len(page(run.summary, run.rows, run.cases, {}).encode())
    bare = len(page(run.summary, run.rows, run.cases, {}, 0).encode())
    assert bare < whole / 2
    for budget in (2 * whole, whole - 1, (whole + bare) // 2, bare + 20_000, bare + 5_000, bare):
        text = page(run.summary, run.rows, run.cases, {}, budget)
        assert len(text.encode()) <= budget
        found = Page(text)
        cases = [found.json(f"case-{place}") for place in range(6)]
        counts = [len(case["frames"]) for case in cases]
        left_out = "left out to keep the page small" in text.split("<noscript>")[0]
        assert left_out == (budget < whole)
        assert ("without pictures" in text) == (0 in counts)
        assert counts == sorted(counts, reverse=True)
        assert (budget < whole) == (sum(counts) < 6 * 12)
        if counts[0]:  # the worst slice of a case is the last to go
            assert 12 in [frame["index"] for frame in cases[0]["frames"]]
    assert counts == [0] * 6


def test_a_gallery_drops_the_best_images_first(gallery):
    bare = len(page(gallery.summary, gallery.rows, gallery.cases, {}, 0).encode())
    found = Page(page(gallery.summary, gallery.rows, gallery.cases, {}, bare + 60_000))
    counts = [len(found.json(f"case-{place}")["frames"]) for place in range(30)]
    assert 0 < sum(counts) < 30
    assert counts == sorted(counts, reverse=True)
    assert "are without pictures, the best ones" in " ".join(found.words)


def test_a_case_without_frames_is_refused(volumes):
    with pytest.raises(ValueError, match="case0002"):
        page(volumes.summary, volumes.rows, volumes.cases[:-1], {})


# --- what a reader is told ------------------------------------------------------------------------


def head_of(run, **meta):
    text = page(summarise(run.rows, META | meta), run.rows, run.cases, {})
    return Page(text[: text.index('id="figures"')])


def test_the_head_says_what_was_evaluated(volumes):
    words = " ".join(head_of(volumes).words)
    for part in ("standard", "lists/test_vol.txt", "runs/best_model.pth", "abababababab", "96 × 128", "noncausal"):
        assert part in words
    for part in ("bf16", "best mean Dice on the validation part", "after epoch 7", "5000 resamples", "2 px"):
        assert part in words
    assert re.search(r"augmentation\s+on", words)
    assert not [1 for _, attrs in head_of(volumes).elements if attrs.get("class") == "warning"]


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"selection": "test"}, "Selected on the test part"),
        ({"selection": "validation, test"}, "Selected on the test part"),
        ({"checkpoints": [{"file": "a", "sha256": "b", "selection": "test"}]}, "Selected on the test part"),
        ({"protocol": "legacy"}, "A missed class counts with distance 0"),
        ({"selection": "as published"}, "how their authors chose"),
        ({"note": "chosen by <i>these</i> images"}, "Note. chosen by <i>these</i> images"),
    ],
)
def test_warnings(volumes, meta, expected):
    assert expected in " ".join(head_of(volumes, **meta).words)
    assert len(warnings(volumes.summary | meta)) == 1


@pytest.mark.parametrize("dataset", ["/srv/someone/polyps", "../data/polyps/", "polyps"])
def test_a_data_set_is_known_by_its_last_folder(volumes, dataset):
    text = page(volumes.summary | {"dataset": dataset}, volumes.rows, volumes.cases, {})
    assert "<title>polyps, standard test</title>" in text
    assert "<h1>polyps</h1>" in text
    assert Page(text).json("summary")["dataset"] == "polyps"
    assert "data/polyps" not in text


@pytest.mark.parametrize("value", ["</script>", "<!--<script>", "a&b", {"<": [float("nan"), 1, (2.5, None)]}])
def test_embedded_json_is_inert_and_whole(value):
    text = embed(value)
    assert not set(text) & set("<>&")
    expected = {"<": [None, 1, [2.5, None]]} if isinstance(value, dict) else value
    assert json.loads(text) == expected
