"""The page in a real Chromium: what a reader does with it by mouse and keyboard. Skipped where there is none."""

import base64
import json

import cv2
import numpy as np
import pytest

from tests.support.chromium import Browser, is_installed
from tests.support.pages import EVIL, gallery_run, volume_run
from utils.results.page.build import write_page
from utils.results.page.runs import decode_runs, encode_runs

pytestmark = pytest.mark.skipif(not is_installed(), reason="no chromium and chromedriver")
LOSS = {"run": {"loss": [(1.0, 0.9), (2.0, 0.5)], "mean_dice": [(2.0, 0.4)]}}
SLICE = "return Number(document.getElementById('canvas').dataset.slice)"
DRAWN = "return document.getElementById('canvas').dataset.drawn"
PIXELS = "return document.getElementById('canvas').toDataURL().split(',')[1]"
COLUMN = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map(
  row => row.cells[arguments[1]].dataset.value ?? null)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = {"volumes": volume_run(), "gallery": gallery_run(60)}
    for name, run in runs.items():
        write_page(folder / f"{name}.html", run.summary, run.rows, run.cases, LOSS)
    return folder, runs


@pytest.fixture
def volumes(browser, pages):
    folder, runs = pages
    browser.open(folder / "volumes.html")
    browser.wait(DRAWN)
    yield runs["volumes"]
    assert browser.messages() == []


@pytest.fixture
def gallery(browser, pages):
    folder, runs = pages
    browser.open(folder / "gallery.html")
    yield runs["gallery"]
    assert browser.messages() == []


def pixels(browser):
    """(H, W, 3) of the viewer's canvas."""
    png = np.frombuffer(base64.b64decode(browser.run(PIXELS)), np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def after(browser, act):
    """Do something, and wait until the viewer has drawn again."""
    before = browser.run(DRAWN)
    act()
    browser.wait(f"return document.getElementById('canvas').dataset.drawn !== {json.dumps(before)}")


# --- volumes --------------------------------------------------------------------------------------


def test_the_worst_slice_of_the_worst_case_is_shown_first(browser, volumes):
    assert browser.run("return document.getElementById('viewer-name').textContent") == EVIL
    assert browser.run("return window.hacked ?? null") is None
    assert browser.run(SLICE) == 12
    label = "return document.getElementById('slice').getAttribute('aria-valuetext')"
    prediction, truth = volumes.maps[EVIL]
    wrong = int((prediction[12] != truth[12]).sum())
    assert browser.run(label) == f"slice 12 of 0 to 19, {wrong} wrong pixels"


def test_the_slider_moves_the_slice(browser, volumes):
    seen = pixels(browser)
    after(browser, lambda: browser.press("#slice", "right"))
    assert browser.run(SLICE) == 13
    assert not np.array_equal(pixels(browser), seen)
    after(browser, lambda: browser.press("#slice", "left"))
    assert np.array_equal(pixels(browser), seen)
    move = "const s = document.getElementById('slice'); s.value = 0; s.dispatchEvent(new Event('input'))"
    after(browser, lambda: browser.run(move))
    assert browser.run(SLICE) == 4
    after(browser, lambda: browser.press("#canvas", "up"))
    after(browser, lambda: browser.press("#canvas", "right"))
    assert (browser.run(SLICE), browser.run("return document.getElementById('slice').value")) == (6, "2")
    for _ in range(3):
        after(browser, lambda: browser.press("#canvas", "left"))
    assert browser.run(SLICE) == 4  # the first that is kept


def test_the_error_map_tells_the_kinds_of_error_apart(browser, volumes):
    after(browser, lambda: browser.click("#show-errors"))
    for layer in ("prediction", "truth"):
        after(browser, lambda layer=layer: browser.click(f"#show-{layer}"))
    errors = pixels(browser)
    after(browser, lambda: browser.click("#show-errors"))
    plain = pixels(browser)
    assert errors.shape == (576, 768, 3)  # 48 x 64, twelve times

    def change(y, x):
        """Mean change of colour in the middle of the pixel (y, x) of the slice."""
        block = np.s_[12 * y + 2 : 12 * y + 10, 12 * x + 2 : 12 * x + 10]
        return (errors[block] - plain[block]).mean((0, 1))

    assert np.allclose(change(2, 2), 0)  # in neither
    extra, missed, right = change(38, 20), change(12, 48), change(20, 20)
    assert extra[0] > extra[2] + 60  # orange: the made-up class 3
    assert missed[2] > missed[1] + 60  # violet: the missed class 2
    assert right[1] > right[0]  # green: class 1, where both agree
    after(browser, lambda: browser.click("#show-errors"))
    after(browser, lambda: browser.click("#class-list label:nth-child(2) input"))
    assert np.array_equal(pixels(browser)[12 * 12 + 6, 12 * 48 + 6], plain[12 * 12 + 6, 12 * 48 + 6])  # class 2 hidden
    after(browser, lambda: browser.click("#all-classes"))
    assert np.array_equal(pixels(browser), plain)


@pytest.mark.parametrize("layer", ["prediction", "truth"])
def test_toggles_toggle(browser, volumes, layer):
    seen = pixels(browser)
    after(browser, lambda: browser.click(f"#show-{layer}"))
    without = pixels(browser)
    changed = (without != seen).any(2)
    assert 0 < changed.mean() < 0.5
    after(browser, lambda: browser.press(f"#show-{layer}", " "))
    assert np.array_equal(pixels(browser), seen)
    inside = np.s_[12 * 38 : 12 * 39, 12 * 20 : 12 * 21]  # within the prediction, away from every contour
    assert changed[inside].all() == (layer == "prediction")


def test_cases_are_chosen_by_list_buttons_table_and_plot(browser, volumes):
    name = "return document.getElementById('viewer-name').textContent"
    after(browser, lambda: browser.press("#case-list li:nth-child(3) button", "enter"))
    assert browser.run(name) == "case0002"
    current = "return [...document.querySelectorAll('[aria-current] .name')].map(e => e.textContent)"
    assert browser.run(current) == ["case0002"]
    assert browser.run("return document.getElementById('next').disabled")
    after(browser, lambda: browser.click("#previous"))
    assert browser.run(name) == "case0001"
    after(browser, lambda: browser.click("#cases-table tbody tr:nth-child(1) button"))
    assert browser.run(name) == EVIL
    assert browser.run("return document.activeElement.id") == "canvas"
    after(browser, lambda: browser.click("circle[data-case='2']"))
    assert browser.run(name) == "case0002"


def test_tables_sort_by_mouse_and_keyboard(browser, volumes):
    dices = [float(v) for v in browser.run(COLUMN, "cases-table", 1)]
    assert dices == sorted(dices)
    head = "#cases-table thead th:nth-child(2)"
    browser.click(f"{head} button")
    assert [float(v) for v in browser.run(COLUMN, "cases-table", 1)] == dices[::-1]
    state = f"return document.querySelector('{head}').getAttribute('aria-sort')"
    assert browser.run(state) == "descending"
    browser.press("#cases-table thead th:nth-child(1) button", "enter")
    assert browser.run(COLUMN, "cases-table", 0) == [EVIL, "case0001", "case0002"]
    assert browser.run(state) is None
    hd95 = browser.run(
        "return [...document.querySelectorAll('#figures-table th')].findIndex(e => /HD95/.test(e.textContent))"
    )
    for start in ("ascending", "descending"):  # the class without a distance is last either way
        browser.click(f"#figures-table thead th:nth-child({hd95 + 1}) button")
        values = browser.run(COLUMN, "figures-table", hd95)
        assert values[-1] is None
        known = [float(v) for v in values[:-1]]
        assert known == sorted(known, reverse=start == "descending")


def test_more_figures_and_other_plots_on_demand(browser, volumes):
    hidden = "return getComputedStyle(document.querySelector('#figures-table .more')).display"
    assert browser.run(hidden) == "none"
    browser.click("#more")
    assert browser.run(hidden) == "table-cell"
    shown = "return [...document.querySelectorAll('figure.plot')].filter(e => !e.hidden).map(e => e.dataset.name)"
    assert browser.run(shown) == ["Dice, %"]
    browser.click(".tabs button:nth-child(3)")
    assert browser.run(shown) == ["HD95, px"]


def test_label_maps_and_contours_as_the_browser_reads_them(browser, volumes):
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.integers(0, 40_000, 300), rng.integers(1, 300, 300))
    read = "const m = decodeRuns(arguments[0], arguments[1], 200); return [[...m.prediction], [...m.truth]]"
    prediction, truth = browser.run(read, base64.b64encode(encode_runs(labels)).decode(), len(labels))
    assert np.array_equal(np.array(prediction) * 200 + truth, labels)
    assert np.array_equal(decode_runs(encode_runs(labels), labels.shape), labels)
    trace = """const lines = []; const kept = window.Path2D; let from;
    window.Path2D = class { moveTo(x, y) { from = [x, y]; } lineTo(x, y) { lines.push([...from, x, y]); } };
    try { contours(Uint8Array.from(arguments[0]), arguments[1], arguments[2]); } finally { window.Path2D = kept; }
    return lines;"""
    square = np.zeros((6, 8), int)
    square[1:4, 0:4] = 2  # 3 x 4, at the border of the image
    square[4, 4] = 2  # touches its corner
    lines = np.array(browser.run(trace, square.ravel().tolist(), 6, 8))
    ends, counts = np.unique(lines.reshape(-1, 2), axis=0, return_counts=True)
    assert set(counts) == {2}  # closed
    lengths = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    assert lengths.sum() == pytest.approx(2 * (2 + 3) + 8 * 0.5**0.5)
    assert (ends.min(0), ends.max(0)) == (pytest.approx([0, 1]), pytest.approx([5, 5]))


def test_light_and_dark(browser, pages, volumes):
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = browser.run(paper)
    browser.click("#theme")
    dark = browser.run(paper)
    assert light != dark
    browser.open(pages[0] / "volumes.html")
    assert browser.run(paper) == dark  # remembered
    browser.click("#theme")
    assert browser.run(paper) == light
    browser.run("localStorage.clear()")
    browser.open(pages[0] / "volumes.html", dark=True)
    assert browser.run(paper) == dark


@pytest.mark.parametrize("name", ["volumes", "gallery"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen_and_nothing_is_loaded(browser, pages, name, width):
    browser.open(pages[0] / f"{name}.html", width, 780)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    if name == "gallery":
        browser.click(".tile")
    browser.wait(DRAWN)
    assert browser.run("return document.getElementById('canvas').clientWidth") >= min(0.75 * width, 500)
    outside = """return [...document.querySelectorAll('#viewer *')].filter(e => !e.closest('.scroll')).filter(
      e => e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    assert browser.run(outside) == []
    loaded = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.run(loaded) == []
    assert browser.messages() == []


# --- gallery --------------------------------------------------------------------------------------

ORDER = "return [...document.querySelectorAll('#gallery .name')].map(e => e.textContent)"
CHOOSE = "const s = document.getElementById('order'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"


def test_tiles_are_drawn_when_they_come_into_sight(browser, gallery):
    drawn = "return [...document.querySelectorAll('#gallery canvas')].map(e => e.dataset.drawn !== undefined)"
    browser.run("document.getElementById('gallery').scrollIntoView()")
    browser.wait("return document.querySelector('#gallery canvas[data-drawn]')")
    assert not browser.run(drawn)[-1]
    browser.run("document.getElementById('gallery').scrollTo(0, 1e6)")
    browser.wait("return document.querySelector('#gallery .tile:last-child canvas').dataset.drawn")
    browser.wait("return !document.querySelector('#gallery .tile:first-child canvas').dataset.drawn")
    assert browser.run(drawn)[-1]


def test_the_gallery_is_sorted_and_searched(browser, gallery):
    worst = browser.run(ORDER)
    assert worst[0] == EVIL
    assert worst[-1] == "image 59.jpg"  # has no Dice
    browser.run(CHOOSE, "best")
    assert browser.run(ORDER)[0] in ("image 58.jpg", "image 57.jpg")
    assert browser.run(ORDER)[-1] == "image 59.jpg"
    browser.run(CHOOSE, "name")
    assert browser.run(ORDER)[1:4] == ["image 1.jpg", "image 2.jpg", "image 3.jpg"]
    browser.press("#find", "E 4")
    assert browser.run(ORDER) == ["image 4.jpg", *(f"image {n}.jpg" for n in range(40, 50))]
    assert browser.run("return document.getElementById('found').textContent") == "11 of 60"


def test_an_image_opens_by_keyboard_and_the_arrows_go_on(browser, gallery):
    name = "return document.getElementById('viewer-name').textContent"
    shown = "return document.getElementById('dialog').open"
    order = browser.run(ORDER)
    assert not browser.run(shown)
    after(browser, lambda: browser.press("#gallery .tile:nth-child(2)", "enter"))
    assert browser.run(shown)
    assert browser.run(name) == order[1]
    assert browser.run("return document.querySelector('.slices').hidden")
    after(browser, lambda: browser.press("#canvas", "right"))
    assert browser.run(name) == order[2]
    after(browser, lambda: browser.press("#canvas", "left"))
    after(browser, lambda: browser.click("#previous"))
    assert browser.run(name) == order[0]
    assert browser.run("return document.getElementById('previous').disabled")
    outcome = "return document.querySelector('#case-figures tr').textContent"
    assert browser.run(outcome) == "Outcomemissed"
    browser.press("#canvas", "escape")
    assert not browser.run(shown)
    assert browser.run("return document.activeElement.className") == "tile"
