"""The page in a real Chromium: what a reader does with it by mouse and keyboard. Skipped where there is none."""

import base64
import json

import cv2
import numpy as np
import pytest

from tests.support.chromium import Browser, is_installed
from tests.support.pages import EVIL, gallery_run, volume_run
from utils.results.page.build import write_page

pytestmark = pytest.mark.skipif(not is_installed(), reason="no chromium and chromedriver")
LOSS = {"run": {"loss": [(1.0, 0.9), (2.0, 0.5)], "mean_dice": [(2.0, 0.4)]}}
DRAWN = "return document.getElementById('canvas').dataset.drawn"
PIXELS = "return document.getElementById('canvas').toDataURL().split(',')[1]"
NAME = "return document.getElementById('viewer-name').textContent"
SLICE = "return document.getElementById('slice-number').textContent"
DICES = "return [...document.querySelectorAll('#cases-table tbody tr')].map(row => Number(row.cells[1].dataset.value))"


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


def after(browser, act, *arguments):
    """Do something, and wait until the viewer has drawn again."""
    before = browser.run(DRAWN)
    act(*arguments)
    browser.wait(f"return document.getElementById('canvas').dataset.drawn !== {json.dumps(before)}")


# --- volumes --------------------------------------------------------------------------------------


def test_the_worst_slice_of_the_worst_case_is_shown_first(browser, volumes):
    assert browser.run(NAME) == EVIL
    assert browser.run("return window.hacked ?? null") is None
    prediction, truth = volumes.maps[EVIL]
    wrong = int((prediction[12] != truth[12]).sum())
    assert browser.run(SLICE) == f"13 of 20 · {wrong} wrong pixels"


def test_slider_and_keys_move_the_slice(browser, volumes):
    seen = pixels(browser)
    after(browser, browser.press, "#slice", "right")
    assert browser.run(SLICE).startswith("14 of 20")
    assert not np.array_equal(pixels(browser), seen)
    after(browser, browser.press, "#slice", "left")
    assert np.array_equal(pixels(browser), seen)
    after(browser, browser.press, "#slice", "home")
    assert browser.run(SLICE).startswith("5 of 20")
    after(browser, browser.press, "#canvas", "up")
    after(browser, browser.press, "#canvas", "right")
    assert browser.run(SLICE).startswith("7 of 20")
    assert browser.run("return document.getElementById('slice').value") == "2"
    for _ in range(3):
        after(browser, browser.press, "#canvas", "left")
    assert browser.run(SLICE).startswith("5 of 20")  # the first that is kept


def test_the_error_map_tells_the_kinds_of_error_apart(browser, volumes):
    after(browser, browser.click, "#layers [value=errors]")
    for layer in ("prediction", "truth"):
        after(browser, browser.click, f"#layers [value={layer}]")
    errors = pixels(browser)
    after(browser, browser.click, "#layers [value=errors]")
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
    after(browser, browser.click, "#layers [value=errors]")
    after(browser, browser.click, "#classes [value='2']")
    assert np.array_equal(pixels(browser)[12 * 12 + 6, 12 * 48 + 6], plain[12 * 12 + 6, 12 * 48 + 6])  # class 2 hidden
    after(browser, browser.click, "#all-classes")
    assert np.array_equal(pixels(browser), plain)


def test_contours_lie_at_the_edges_of_the_labels(browser, volumes):
    """White is the truth's contour: within a pixel of its edges and all along them, class 2 at rows 8 to 27."""
    with_truth = pixels(browser)
    after(browser, browser.click, "#layers [value=truth]")
    without = pixels(browser)
    rows, columns = np.nonzero((with_truth != without).any(2)[:, 36 * 12 :])
    assert (rows.min(), rows.max()) == (pytest.approx(8 * 12, abs=6), pytest.approx(28 * 12, abs=6))
    assert (columns.min(), columns.max()) == (pytest.approx(4 * 12, abs=6), pytest.approx(20 * 12, abs=6))
    assert not (with_truth != without)[10 * 12 : 26 * 12, 42 * 12 : 54 * 12].any()  # nothing inside
    assert (with_truth[8 * 12, 41 * 12 : 55 * 12] > 240).all()


@pytest.mark.parametrize("layer", ["prediction", "truth"])
def test_layers_are_shown_and_hidden(browser, volumes, layer):
    seen = pixels(browser)
    after(browser, browser.click, f"#layers [value={layer}]")
    changed = (pixels(browser) != seen).any(2)
    assert 0 < changed.mean() < 0.5
    after(browser, browser.press, f"#layers [value={layer}]", " ")
    assert np.array_equal(pixels(browser), seen)
    inside = np.s_[12 * 38 : 12 * 39, 12 * 20 : 12 * 21]  # within the prediction, away from every contour
    assert changed[inside].all() == (layer == "prediction")


def test_cases_are_chosen_by_list_buttons_table_and_chart(browser, volumes):
    after(browser, browser.press, "#list .case:nth-child(3)", "enter")
    assert browser.run(NAME) == "case0002"
    current = "return [...document.querySelectorAll('[aria-current=true]')].map(e => e.title)"
    assert browser.run(current) == ["case0002"]
    assert browser.run("return document.getElementById('next').disabled")
    after(browser, browser.click, "#previous")
    assert browser.run(NAME) == "case0001"
    after(browser, browser.click, "#cases-table tbody tr:nth-child(1) button")
    assert browser.run(NAME) == EVIL
    assert browser.run("return document.activeElement.id") == "canvas"
    after(browser, browser.click, "#spread [data-case='2'] use")
    assert browser.run(NAME) == "case0002"


def test_tables_sort_by_mouse_and_keyboard(browser, volumes):
    dices = browser.run(DICES)
    assert dices == sorted(dices)
    head = "#cases-table thead th:nth-child(2)"
    browser.click(f"{head} button")
    assert browser.run(DICES) == dices[::-1]
    state = f"return document.querySelector('{head}').ariaSort"
    assert browser.run(state) == "descending"
    browser.press("#cases-table thead th:nth-child(1) button", "enter")
    names = "return [...document.querySelectorAll('#cases-table tbody th')].map(e => e.textContent)"
    assert browser.run(names) == [EVIL, "case0001", "case0002"]
    assert browser.run(state) is None
    hd95 = browser.run(
        "return [...document.querySelectorAll('#figures-table th')].findIndex(e => /HD95/.test(e.textContent))"
    )
    classes = "return [...document.querySelectorAll('#figures-table tbody th')].map(e => e.textContent)"
    for expected in (["left kidney", "liver"], ["liver", "left kidney"]):
        browser.click(f"#figures-table thead th:nth-child({hd95 + 1}) button")
        assert browser.run(classes) == [*expected, "<b>pancreas</b>"]  # without a distance: last either way


def test_more_figures_on_demand(browser, volumes):
    hidden = "return getComputedStyle(document.querySelector('#figures-table .more')).display"
    assert browser.run(hidden) == "none"
    browser.click("#more")
    assert browser.run(hidden) == "table-cell"


def test_light_and_dark(browser, pages, volumes):
    paper = "return getComputedStyle(document.body).backgroundColor"
    ink = "return getComputedStyle(document.querySelector('#training text')).fill"
    light = browser.run(paper), browser.run(ink)
    browser.click("#theme")
    dark = browser.run(paper), browser.run(ink)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    browser.open(pages[0] / "volumes.html")
    assert browser.run(paper) == dark[0]  # remembered
    browser.click("#theme")
    assert browser.run(paper) == light[0]
    browser.run("localStorage.clear()")
    browser.open(pages[0] / "volumes.html", dark=True)
    assert browser.run(paper) == dark[0]


@pytest.mark.parametrize("name", ["volumes", "gallery"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen_and_nothing_is_loaded(browser, pages, name, width):
    browser.open(pages[0] / f"{name}.html", width, 780)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    if name == "gallery":
        browser.click(".case")
    browser.wait(DRAWN)
    assert browser.run("return document.getElementById('canvas').clientWidth") >= min(0.75 * width, 500)
    outside = """return [...document.querySelectorAll('#viewer *')].filter(e => !e.closest('.scroll')).filter(
      e => e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    assert browser.run(outside) == []
    cut = "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert width < 1280 or browser.run(cut) == 0  # every column of every table is seen
    loaded = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.run(loaded) == []
    assert browser.messages() == []


# --- gallery --------------------------------------------------------------------------------------

ORDER = "return [...document.querySelectorAll('#list .case')].filter(e => !e.hidden).map(e => e.title)"
CHOOSE = "const s = document.getElementById('order'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"


def test_tiles_are_drawn_when_they_come_into_sight(browser, gallery):
    drawn = "const c = document.querySelector('#list .case:{}-child canvas'); return c.dataset.drawn && c.width > 0"
    browser.run("document.getElementById('list').scrollIntoView()")
    browser.wait(drawn.format("first"))
    assert not browser.run(drawn.format("last"))
    browser.run("document.getElementById('list').scrollTo(0, 1e6)")
    browser.wait(drawn.format("last"))
    browser.wait("return document.querySelector('#list .case:first-child canvas').width === 0")


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
    shown = "return document.getElementById('viewer').open"
    order = browser.run(ORDER)
    assert not browser.run(shown)
    after(browser, browser.press, "#list .case:nth-child(2)", "enter")
    assert browser.run(shown)
    assert browser.run(NAME) == order[1]
    assert browser.run("return document.getElementById('slices').hidden")
    after(browser, browser.press, "#canvas", "right")
    assert browser.run(NAME) == order[2]
    after(browser, browser.press, "#canvas", "left")
    after(browser, browser.click, "#previous")
    assert browser.run(NAME) == order[0]
    assert browser.run("return document.getElementById('previous').disabled")
    outcome = "return [...document.querySelectorAll('#case-figures tr:first-child > *')].map(e => e.textContent)"
    assert browser.run(outcome) == ["Outcome", "missed"]
    browser.press("#canvas", "escape")
    assert not browser.run(shown)
    assert browser.run("return document.activeElement.className") == "case"
