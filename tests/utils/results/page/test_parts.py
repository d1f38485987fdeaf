"""Parts of the page: frames, keeping to a size, words, charts."""

import base64
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from tests.support.pages import EVIL, label_maps, volume_run
from utils.files import csv_text
from utils.results.page import charts
from utils.results.page.build import case_means, worst_first
from utils.results.page.charts import spread_charts
from utils.results.page.curves import read_histories, read_history, training_charts
from utils.results.page.frames import Album, CaseFrames, Frame, fit, image_frames, thin, volume_frames
from utils.results.page.words import augmentation_in_words, is_main_figure, label_of, number

# --- frames ---------------------------------------------------------------------------------------


def blank(depth=30, height=40, width=60):
    return np.zeros((depth, height, width), np.uint8)


def maps_of(frame):
    return label_maps(vars(frame))


def test_slices_with_anything_and_two_around_are_kept():
    truth, prediction = blank(), blank()
    truth[10:13, 5, 5] = 1
    prediction[28, 5, 5] = 2
    case = volume_frames("a", np.random.default_rng(0).random(truth.shape), prediction, truth)
    assert [f.index for f in case.frames] == [*range(8, 15), *range(26, 30)]
    assert [f.wrong for f in case.frames] == [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0]
    assert (case.depth, case.shape) == (30, (40, 60))


def test_an_empty_volume_shows_a_few_slices():
    case = volume_frames("a", np.zeros((30, 40, 60), np.float32), blank(), blank())
    assert [f.index for f in case.frames] == [0, 4, 8, 12, 17, 21, 25, 29]
    assert len(volume_frames("a", np.zeros((2, 40, 60), np.float32), blank(2), blank(2)).frames) == 2


def decode_picture(frame):
    return cv2.imdecode(np.frombuffer(base64.b64decode(frame.picture), np.uint8), cv2.IMREAD_UNCHANGED)


def test_pictures_and_labels_are_made_small_on_one_grid():
    image = np.zeros((300, 600, 3), np.uint8)
    image[:, :300] = (250, 20, 20)
    image[:, 300:] = (20, 20, 250)
    truth = np.zeros((300, 600), bool)
    truth[:, 300:] = True
    frame = image_frames("a", image, ~truth, truth, side=200).frames[0]
    assert frame.size == (100, 200)
    picture = decode_picture(frame)[..., ::-1].astype(int)
    assert np.abs(picture[:, :96] - (250, 20, 20)).max() < 12
    assert np.abs(picture[:, 104:] - (20, 20, 250)).max() < 12
    prediction, small = maps_of(frame)
    assert prediction[:, :100].all()
    assert small[:, 100:].all()
    assert (prediction + small == 1).all()
    assert frame.wrong == 300 * 600
    assert image_frames("a", image[:50, :60], truth[:50, :60], truth[:50, :60], side=200).frames[0].size == (50, 60)


def test_labels_are_taken_from_the_middle_of_what_a_pixel_covers():
    truth = np.arange(12, dtype=np.uint8)[None].repeat(12, 0)
    frame = image_frames("a", np.zeros((12, 12), np.uint8), np.zeros_like(truth), truth, side=4).frames[0]
    assert maps_of(frame)[1].tolist() == [[1, 4, 7, 10]] * 4


def test_a_dim_volume_is_stretched_for_the_eye():
    image = np.random.default_rng(0).random((8, 64, 64)).astype(np.float32) * 0.1 + 0.3
    picture = decode_picture(volume_frames("a", image, blank(8, 64, 64), blank(8, 64, 64)).frames[0])
    assert picture.min() < 25
    assert picture.max() > 230


@pytest.mark.parametrize(
    ("spacing", "size"), [((9, 4.0, 1.0), (240, 150)), ((9, 1.0, 8.0), (13, 256)), (None, (60, 150))]
)
def test_a_frame_has_its_aspect_in_mm_and_its_maps_lie_on_it(spacing, size):
    """A dark box, labelled exactly: it must be dark in the picture where the maps have it, whatever the size."""
    truth = blank(4, 60, 150)
    truth[:, 12:48, 30:75] = 1
    image = np.where(truth, 0.2, 0.8).astype(np.float32)
    frame = volume_frames("a", image, truth, truth, spacing).frames[1]
    assert frame.size == size
    dark, labelled = decode_picture(frame) < 128, maps_of(frame)[1] == 1
    assert (dark != labelled).mean() < 0.06
    assert labelled.mean() == pytest.approx(0.18, abs=0.02)
    assert frame.wrong == 0


# --- keeping to a size ----------------------------------------------------------------------------


def make_case(name, wrong, size=1000):
    return CaseFrames(name, 99, (9, 9), tuple(Frame(i, w, (9, 9), "x" * size, "") for i, w in enumerate(wrong)))


def test_thinning_keeps_the_worst_and_spreads_the_others():
    case = make_case("a", [1, 1, 9, 1, 1, 1, 1, 1, 1, 1])
    for most in range(12):
        kept = [f.index for f in thin(case, most).frames]
        assert len(kept) == min(most, 10)
        assert kept == sorted(set(kept))
        assert most == 0 or 2 in kept
        assert most < 3 or {0, 9} <= set(kept)


def test_fitting_spends_the_budget_and_never_more():
    cases = [make_case("a", range(30)), make_case("b", range(4)), make_case("c", range(12))]
    one = cases[0].frames[0].num_bytes
    for budget in range(0, 50 * one, 700):
        fitted = fit(cases, budget)
        counts = [len(case.frames) for case in fitted]
        assert sum(case.num_bytes for case in fitted) <= budget
        if budget >= 46 * one:
            assert counts == [30, 4, 12]
        elif budget >= 3 * one:
            assert sum(counts) > budget // one - 3  # one slice more of each would be too much
        else:
            assert counts == [1] * (budget // one) + [0] * (3 - budget // one)


def test_many_images_get_smaller_pictures():
    sides = []
    for expected in (10, 500, 5000):
        album = Album()
        album.expect(expected)
        album.add_image("a", np.zeros((600, 800, 3), np.uint8), np.zeros((600, 800), bool), np.zeros((600, 800), bool))
        sides.append(max(album.cases[0].frames[0].size))
    assert sides == [384, 256, 192]


def test_a_volume_far_beyond_its_share_is_thinned_when_it_is_added():
    album = Album(budget=400_000)
    album.expect(10)
    truth = np.ones((60, 128, 128), np.uint8)
    album.add_volume("a", np.random.default_rng(0).random(truth.shape, np.float32), truth, truth)
    assert 0 < album.cases[0].num_bytes <= 4 * 40_000
    assert len(album.cases[0].frames) < 60


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "label", "value", "text", "main"),
    [
        ("dice", "Dice, %", 0.84, "84.00", True),
        ("hd95_mm", "HD95, mm", 13.756, "13.76", True),
        ("nsd_2mm", "NSD at 2 mm, %", 0.9, "90.00", True),
        ("nsd_0.5px", "NSD at 0.5 px, %", 1.0, "100.00", True),
        ("assd_px", "ASSD, px", float("nan"), "–", False),
        ("boundary_f1", "Boundary F1, %", None, "–", True),
        ("predicted_mm3", "Predicted, mm³", 1234567.8, "1,234,568", False),
        ("volume_error", "Volume error", -0.25, "-0.25", False),
    ],
)
def test_figures_in_words(metric, label, value, text, main):
    assert (label_of(metric), number(metric, value), is_main_figure(metric)) == (label, text, main)


@pytest.mark.parametrize(
    ("tta", "scales", "words"),
    [
        (False, [], "off"),
        (True, [], "on: flips"),
        (False, [0.75, 1.25], "on: sizes times 0.75, 1.25"),
        (True, [2.0], "on: flips and sizes times 2"),
        (False, None, "off"),
    ],
)
def test_what_test_time_augmentation_averaged_over(tta, scales, words):
    assert augmentation_in_words({"tta": tta, "tta_scales": scales}) == words


def test_the_worst_case_is_first_and_undefined_ones_last():
    rows = [{"case": c, "class": k, "dice": d} for c, k, d in [("b", 1, 0.5), ("b", 2, 0.7), ("c", 1, float("nan"))]]
    rows += [{"case": "d", "class": 1, "dice": 0.0}, {"case": "a", "class": 1, "dice": 0.6}]
    assert case_means(rows, "dice") == {"a": 0.6, "b": pytest.approx(0.6), "c": None, "d": 0}
    assert worst_first(rows) == ["d", "a", "b", "c"]


# --- charts ---------------------------------------------------------------------------------------


def words_of(drawing):
    return [text.text for text in drawing.iter("text")]


def points_of(drawing):
    """(case, tooltip, x) of every point of a chart."""
    return [
        (int(g.get("data-case")), g.find("title").text, float(next(g.iter("use")).get("x")))
        for g in drawing.iter("g")
        if "data-case" in g.attrib
    ]


def spread_of(values, order=None, mean=0.5, name="polyp"):
    rows = [{"case": f"c{i}", "class": name, "dice": v} for i, v in enumerate(values)]
    summary = {"classes": {name: {"metrics": {"dice": {"mean": mean, "ci95": [None, None]}}}}}
    ((title, svg),) = spread_charts(rows, summary, order or [f"c{i}" for i in range(len(values))])
    assert title == "Dice, %"
    return ElementTree.fromstring(svg.replace("\a", ""))  # which HTML allows and XML does not


def test_a_chart_has_a_point_for_every_case_at_its_figure(monkeypatch):
    values = [0.2, 0.0, 1.0, 0.4, float("nan"), 0.8]
    drawing = spread_of(values, order=["c5", "c4", "c3", "c2", "c1", "c0"])
    found = points_of(drawing)
    assert [(case, title) for case, title, _ in found] == [
        *((4, "c1: 0.00"), (5, "c0: 20.00"), (2, "c3: 40.00"), (0, "c5: 80.00"), (3, "c2: 100.00")),
    ]
    x = np.array([x for *_, x in found])
    assert (x - x[0]) / (x[-1] - x[0]) == pytest.approx([0, 0.2, 0.4, 0.8, 1], abs=1e-4)
    assert drawing.get("aria-label") == "Dice, %. polyp: 5 cases, quartiles 20.00, 40.00, 80.00"
    monkeypatch.setattr(charts, "MOST_POINTS", 3)
    assert [title for _, title, _ in points_of(spread_of(values))] == ["c1: 0.00", "c3: 40.00", "c2: 100.00"]


@pytest.mark.parametrize("values", [[0.0], [1.0], [0.0, 1.0], [0.83, 0.97], [0.5] * 400])
def test_the_numbers_of_an_axis_differ_and_stay_within_0_and_100(values):
    numbers = [word for word in words_of(spread_of(values)) if word != "polyp"]
    assert len(numbers) == len(set(numbers)) >= 2
    assert all(0 <= float(n) <= 100 for n in numbers)


@pytest.mark.parametrize("name", ["<b>$x^$</b>", "肝臓", "a\ab", "n" * 99, EVIL])
def test_any_name_can_be_drawn(name):
    assert any(word[:3] in name.replace("\a", "") for word in words_of(spread_of([0.1, 0.3], name=name)))


def test_every_main_figure_has_a_chart_with_a_row_a_class():
    run = volume_run()
    found = spread_charts(run.rows, run.summary, worst_first(run.rows))
    assert [title for title, _ in found] == ["Dice, %", "IoU, %", "HD95, px", "NSD at 2 px, %"]
    for _, svg in found:
        assert {"liver", "left kidney", "<b>pancreas</b>"} <= set(words_of(ElementTree.fromstring(svg)))
    assert "<b>pancreas</b>: 0 cases" in ElementTree.fromstring(found[2][1]).get("aria-label")


def write_history(folder: Path, epochs: int, lr: float = 1e-3) -> Path:
    folder.mkdir()
    rows = [
        {"epoch": e + 1, "iteration": e * 9, "loss": 1 / (e + 1), "lr": lr + 1e-5 * e, "images_per_s": 9.5}
        for e in range(epochs)
    ]
    for row in rows[1::2]:
        row |= {"mean_dice": 0.5 + row["epoch"] / 100, "dice liver": 0.9, "dice spleen": float("nan")}
    (folder / "history.csv").write_text(csv_text(rows))
    return folder / "best_model.pth"


def test_curves_are_read_from_beside_the_checkpoint(tmp_path):
    one, other = write_history(tmp_path / "a", 4), write_history(tmp_path / "b", 6)
    found = read_histories([one, one, other, tmp_path / "released.pth"])
    assert list(found) == ["a", "b"]
    assert found["a"]["loss"] == [(1, 1), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert found["a"]["mean_dice"] == [(2, 0.52), (4, 0.54)]
    assert "dice spleen" not in found["a"]
    drawn = {title: ElementTree.fromstring(svg) for title, svg in training_charts(found)}
    assert list(drawn) == ["Training loss", "Validation Dice, %", "Learning rate"]
    loss = drawn["Training loss"]
    assert loss.get("aria-label") == "Training loss over the epochs; a ends at 0.25, b ends at 0.1667"
    assert {"a", "b", "epoch"} <= set(words_of(loss))


def test_the_classes_of_a_single_run_have_lines():
    run = {"mean_dice": [(1, 0.5), (2, 0.6)], "dice liver": [(1, 0.4), (2, 0.7)], "dice <i>": [(1, 0.6), (2, 0.5)]}
    ((_, svg),) = training_charts({"run": run})
    assert {"mean", "liver", "<i>"} <= set(words_of(ElementTree.fromstring(svg)))


def test_the_numbers_of_a_small_learning_rate_differ(tmp_path):
    (drawn,) = (
        ElementTree.fromstring(svg)
        for title, svg in training_charts(read_histories([write_history(tmp_path / "a", 5, lr=6e-4)]))
        if title == "Learning rate"
    )
    numbers = [word for word in words_of(drawn) if word.startswith("0.0006")]
    assert len(numbers) == len(set(numbers)) > 2


@pytest.mark.parametrize("text", ["", "epoch,loss\n", "a,b\n1,2\n", "epoch,loss\n1,x\n", "epoch,loss\nx,1,2,3\n"])
def test_a_file_without_curves_draws_nothing(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    assert training_charts({"run": read_history(tmp_path / "history.csv")}) == []


def test_one_epoch_is_drawn_as_a_dot(tmp_path):
    drawn = training_charts(read_histories([write_history(tmp_path / "a", 1)]))
    assert [title for title, _ in drawn] == ["Training loss", "Learning rate"]
    loss = ElementTree.fromstring(drawn[0][1])
    words = words_of(loss)
    assert words[: words.index("epoch")] == ["1"]  # the numbers of the axis of epochs
    marks = list(loss.iter("use"))  # one at every number of the axes, and the dot
    assert len(marks) == len([word for word in words_of(loss) if word != "epoch"]) + 1
