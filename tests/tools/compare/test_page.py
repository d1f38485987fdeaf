"""The charts and the page of a comparison: what they show, on a desk and on a phone."""

import xml.etree.ElementTree as ElementTree

import pytest

from tests.support.chromium import Browser, is_installed
from tests.support.result_folders import write_result
from tools.compare import __main__ as command
from tools.compare.comparison import compare
from tools.compare.page import chart, draw
from tools.compare.text import is_significant
from utils.results.reading import parse_settings

EVIL = "<i>$a_1$"  # neither HTML nor a formula
NAMES = (EVIL, "基线", "a name that is much longer than there is room for in a chart of this width")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Results of three settings, the third clearly better."""
    root = tmp_path_factory.mktemp("runs")
    return [str(write_result(root / name, shift=(0, 0.001, 0.05)[k], seed=k)) for k, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def comparison(folders):
    return compare(parse_settings(folders, None), ["dice", "hd95_px"])


def points(ax):
    """(value, whether filled) of every point of a panel, from top to bottom."""
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    return [(line.get_xdata()[0], line.get_markerfacecolor() == line.get_color()) for line in marks]


def test_the_chart_shows_every_rank_difference_and_interval(comparison):
    ranks, differences, *_ = chart(comparison, ["dice", "hd95_px"]).axes
    ranking = comparison["ranks"]["dice"]
    assert points(ranks) == [(rank, True) for rank in sorted(ranking["average"].values())]
    bars = [line.get_xdata() for line in ranks.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    assert all(high - low == pytest.approx(ranking["critical_difference"]) for low, high in bars[1:])
    rows = [row for row in comparison["pairs"] if row["metric"] == "dice"]
    assert points(differences) == [(100 * row["difference"], is_significant(row)) for row in rows]
    assert {filled for _, filled in points(differences)} == {True, False}
    bars = [line.get_xdata() for line in differences.lines[1:] if line.get_marker() == "None"]
    assert [list(ends) for ends in bars] == [[100 * end for end in row["ci95"]] for row in rows]


def test_with_many_pairs_the_chart_leaves_single_classes_to_the_tables(tmp_path):
    folders = [str(write_result(tmp_path / name, seed=k)) for k, name in enumerate("abcd")]
    comparison = compare(parse_settings(folders, None), ["dice"])
    assert len(points(chart(comparison, ["dice"]).axes[1])) == 6


def test_a_chart_without_a_common_figure(tmp_path):
    missed = [[(i, "polyp") for i in range(12) if i % 2 == k] for k in range(2)]  # no case with both distances
    folders = [str(write_result(tmp_path / n, classes=("polyp",), missed=m)) for n, m in zip("ab", missed)]
    comparison = compare(parse_settings(folders, None), ["hd95_px"])
    assert [points(ax) for ax in chart(comparison, ["hd95_px"]).axes] == [[], []]
    ElementTree.fromstring(draw(comparison, ["hd95_px"]))


def test_the_picture_names_every_setting_as_text_and_is_reproducible(comparison):
    picture = draw(comparison, ["dice"])
    words = [
        "".join(text.itertext()) for text in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {EVIL, "基线"} <= set(words)
    assert any(word.startswith("a name that is much") and word.endswith("of this width") for word in words)
    assert draw(comparison, ["dice"]) == picture


def test_one_setting_has_a_page_without_a_chart(folders, tmp_path):
    command.main([folders[0], "--output_dir", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "comparison.json"]


@pytest.mark.skipif(not is_installed(), reason="needs Chromium and chromedriver")
def test_the_page_on_a_desk_and_on_a_phone(folders, tmp_path):
    command.main([*folders, "--output_dir", str(tmp_path)])
    seen = """return [...document.querySelectorAll('td, .chart svg')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width > 0 && box.left >= 0 && box.right <= document.documentElement.clientWidth}).length"""
    settled = """return document.readyState === 'complete' && matchMedia(`(width: ${arguments[0]}px)`).matches
        && matchMedia('(prefers-color-scheme: dark)').matches === arguments[1]"""
    levels = """const level = (e, kind) => getComputedStyle(e)[kind].match(/\\d+/g).reduce((a, b) => a + +b, 0) / 3;
        const inks = [...document.querySelectorAll('.chart text')].map(e => level(e, 'fill'));
        return [level(document.body, 'backgroundColor'), Math.min(...inks), Math.max(...inks)]"""
    with Browser(tmp_path) as browser:
        for width in (1280, 390):
            for dark in (False, True):
                browser.open(tmp_path / "comparison.html", width, dark=dark)
                browser.wait(settled, width, dark)
                assert browser.run("return document.documentElement.scrollWidth") <= width
                everything = browser.run("return document.querySelectorAll('td, .chart svg').length")
                assert browser.run(seen) == everything > 100
                assert [level > 128 for level in browser.run(levels)] == [not dark, dark, dark]
        assert browser.run("return document.querySelectorAll('i').length") == 0
        assert EVIL in browser.run("return document.body.textContent")
        assert browser.messages() == []
