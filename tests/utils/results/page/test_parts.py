"""Parts of the page: runs, frames, thinning, words, plots, curves."""

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.pages import volume_run
from utils.results.overlay import class_color
from utils.results.page import plots
from utils.results.page.album import Album, fit, thin
from utils.results.page.curves import curves, read_histories, read_history
from utils.results.page.frames import CaseFrames, Frame, image_frames, volume_frames
from utils.results.page.plots import box_plots, nice_ticks
from utils.results.page.runs import decode_runs, encode_runs
from utils.results.page.tables import case_means, worst_first
from utils.results.page.words import is_main_figure, label_of, number
from utils.training.history import write_csv

# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0], b"\x00\x01"),
        ([5, 5, 0], b"\x05\x02\x00\x01"),
        ([127, 128], b"\x7f\x01\x80\x01\x01"),
        ([300], b"\xac\x02\x01"),  # 300 = 0b10_0101100
        ([1] * 128, b"\x01\x80\x01"),
        ([], b""),
    ],
)
def test_runs_byte_by_byte(labels, expected):
    assert encode_runs(np.array(labels, np.uint16)) == expected


@pytest.mark.parametrize("most", [1, 2, 9, 256, 65536])
@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (300, 200)])
def test_runs_round_trip(most, shape):
    rng = np.random.default_rng(most)
    labels = rng.integers(0, most, shape)
    labels[rng.random(shape) < 0.8] = most - 1
    runs = encode_runs(labels)
    assert np.array_equal(decode_runs(runs, shape), labels)


# --- frames ---------------------------------------------------------------------------------------


def blank(depth=30, height=40, width=60):
    return np.zeros((depth, height, width), np.uint8)


def test_slices_with_anything_and_two_around_are_kept():
    truth, prediction = blank(), blank()
    truth[10:13, 5, 5] = 1
    prediction[28, 5, 5] = 2
    case = volume_frames("a", np.random.default_rng(0).random(truth.shape), prediction, truth, 3)
    assert [f.index for f in case.frames] == [*range(8, 15), *range(26, 30)]
    assert [f.wrong for f in case.frames] == [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0]
    assert (case.depth, case.shape) == (30, (40, 60))


def test_an_empty_volume_shows_a_few_slices():
    case = volume_frames("a", np.zeros((30, 40, 60), np.float32), blank(), blank(), 3)
    assert [f.index for f in case.frames] == [0, 4, 8, 12, 17, 21, 25, 29]
    assert len(volume_frames("a", np.zeros((2, 40, 60), np.float32), blank(2), blank(2), 3).frames) == 2


def decode_picture(frame):
    return cv2.imdecode(np.frombuffer(base64.b64decode(frame.picture), np.uint8), cv2.IMREAD_UNCHANGED)


def test_pictures_and_labels_are_made_small_on_one_grid():
    image = np.zeros((300, 600, 3), np.uint8)
    image[:, :300] = (250, 20, 20)
    image[:, 300:] = (20, 20, 250)
    truth = np.zeros((300, 600), bool)
    truth[:, 300:] = True
    frame = image_frames("a", image, ~truth, truth, 2, side=200).frames[0]
    assert frame.size == (100, 200)
    picture = decode_picture(frame)[..., ::-1].astype(int)
    assert np.abs(picture[:, :96] - (250, 20, 20)).max() < 12
    assert np.abs(picture[:, 104:] - (20, 20, 250)).max() < 12
    joint = decode_runs(base64.b64decode(frame.labels), frame.size)
    assert (joint[:, :100] == 2).all()
    assert (joint[:, 100:] == 1).all()
    assert frame.wrong == 300 * 600
    assert image_frames("a", image[:50, :60], truth[:50, :60], truth[:50, :60], 2, side=200).frames[0].size == (50, 60)


def test_labels_are_taken_from_the_middle_of_what_a_pixel_covers():
    truth = np.arange(12, dtype=np.uint8)[None].repeat(12, 0)
    frame = image_frames("a", np.zeros((12, 12), np.uint8), np.zeros_like(truth), truth, 12, side=4).frames[0]
    assert decode_runs(base64.b64decode(frame.labels), (4, 4)).tolist() == [[1, 4, 7, 10]] * 4


def test_a_dim_volume_is_stretched_for_the_eye():
    image = np.random.default_rng(0).random((8, 64, 64)).astype(np.float32) * 0.1 + 0.3
    picture = decode_picture(volume_frames("a", image, blank(8, 64, 64), blank(8, 64, 64), 2).frames[0])
    assert picture.min() < 25
    assert picture.max() > 230


# --- keeping to a size ----------------------------------------------------------------------------


def make_case(name, wrong, size=1000):
    return CaseFrames(name, 99, (9, 9), tuple(Frame(i, w, (9, 9), "x" * size, "") for i, w in enumerate(wrong)))


@pytest.mark.parametrize("most", range(12))
def test_thinning_keeps_the_worst_and_spreads_the_others(most):
    case = make_case("a", [1, 1, 9, 1, 1, 1, 1, 1, 1, 1])
    kept = [f.index for f in thin(case, most).frames]
    assert len(kept) == min(most, 10)
    assert kept == sorted(set(kept))
    assert most == 0 or 2 in kept
    if most >= 3:
        assert {0, 9} <= set(kept)


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
        album = Album(1)
        album.expect(expected)
        album.add_image("a", np.zeros((600, 800, 3), np.uint8), np.zeros((600, 800), bool), np.zeros((600, 800), bool))
        sides.append(max(album.cases[0].frames[0].size))
    assert sides == [384, 256, 192]


def test_a_volume_far_beyond_its_share_is_thinned_when_it_is_added():
    album = Album(2, budget=400_000)
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


def test_the_worst_case_is_first_and_undefined_ones_last():
    rows = [{"case": c, "class": k, "dice": d} for c, k, d in [("b", 1, 0.5), ("b", 2, 0.7), ("c", 1, float("nan"))]]
    rows += [{"case": "d", "class": 1, "dice": 0.2}, {"case": "a", "class": 1, "dice": 0.6}]
    assert case_means(rows, "dice")["b"] == pytest.approx(0.6)
    assert worst_first(rows) == ["d", "a", "b", "c"]


# --- plots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "within_one", "expected"),
    [
        (0.0, 1.0, True, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.83, 0.97, True, [0.8, 0.85, 0.9, 0.95, 1.0]),
        (0.0, 0.0, True, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1.0, 1.0, True, [0.9, 0.95, 1.0]),
        (2.0, 47.0, False, [0, 10, 20, 30, 40, 50]),
        (5.0, 5.0, False, [4.4, 4.6, 4.8, 5.0, 5.2, 5.4, 5.6]),
        (0.0, 0.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1e-3, 1e-3, False, [0.0009, 0.00095, 0.001, 0.00105, 0.0011]),
        (-0.4, 0.1, False, [-0.4, -0.3, -0.2, -0.1, 0, 0.1]),
    ],
)
def test_ticks_are_round_and_hold_every_figure(low, high, within_one, expected):
    ticks = nice_ticks(low, high, within_one)
    assert ticks == pytest.approx(expected)
    assert ticks[0] <= low <= high <= ticks[-1]


def percents(text, pattern):
    return [float(x) for x in re.findall(pattern, text)]


def test_a_box_lies_at_the_quartiles_and_a_point_is_drawn_for_every_case(monkeypatch):
    values = [0.0, 0.2, 0.4, 0.8, 1.0]
    rows = [{"case": f"c{i}", "class": "polyp", "dice": v} for i, v in enumerate(values)]
    rows.append({"case": "c9", "class": "polyp", "dice": float("nan")})
    figures = {"mean": 0.48, "ci95": [0.1, 0.9]}
    summary = {"classes": {"polyp": {"metrics": {"dice": figures}}}}
    order = [f"c{i}" for i in range(10)]
    text = box_plots(rows, summary, order)
    place = lambda v: pytest.approx(1.5 + 97 * v, abs=0.01)  # noqa: E731
    assert sorted(percents(text, r'circle cx="([\d.]+)%')) == [place(v) for v in values]
    assert re.findall(r'data-case="(\d)"', text) == ["0", "1", "2", "3", "4"]
    assert percents(text, r'class="box" x="([\d.]+)%') == [place(0.2)]
    assert percents(text, r'class="box".*?width="([\d.]+)%') == [pytest.approx(97 * 0.6, abs=0.01)]
    assert percents(text, r'class="median" x1="([\d.]+)%') == [place(0.4)]
    assert percents(text, r'class="mean" x="([\d.]+)%') == [place(0.48)]
    assert percents(text, r'class="ci" x1="([\d.]+)%') == [place(0.1)]
    assert "polyp: median 40.00, from 20.00, to 80.00, 5 cases" in text
    assert f"rgb{class_color(1)}" in text
    monkeypatch.setattr(plots, "MOST_POINTS", 3)
    fewer = box_plots(rows, summary, order)
    assert sorted(percents(fewer, r'circle cx="([\d.]+)%')) == [place(v) for v in (0.0, 0.4, 1.0)]
    assert "3 evenly spread ones" in fewer


def test_every_main_figure_has_a_plot_with_a_row_a_class():
    run = volume_run()
    text = box_plots(run.rows, run.summary, worst_first(run.rows))
    assert re.findall(r'data-name="(.*?)"', text) == ["Dice, %", "IoU, %", "HD95, px", "NSD at 2 px, %"]
    assert text.count('<svg class="row"') == 4 * 3
    assert "&lt;b&gt;pancreas&lt;/b&gt;: no case" in text  # its only prediction has no label: no distance
    assert "<b>pancreas" not in text


# --- curves ---------------------------------------------------------------------------------------


def write_history(folder: Path, epochs: int) -> Path:
    folder.mkdir()
    rows = [
        {"epoch": e + 1, "iteration": e * 9, "loss": 1 / (e + 1), "lr": 1e-3, "images_per_s": 9.5}
        for e in range(epochs)
    ]
    for row in rows[1::2]:
        row |= {"mean_dice": 0.5 + row["epoch"] / 100, "dice liver": 0.9, "dice spleen": float("nan")}
    write_csv(folder / "history.csv", rows)
    return folder / "best_model.pth"


def test_curves_are_read_from_beside_the_checkpoint(tmp_path):
    one, other = write_history(tmp_path / "a", 4), write_history(tmp_path / "b", 6)
    found = read_histories([one, one, other, tmp_path / "released.pth"])
    assert list(found) == ["a", "b"]
    assert found["a"]["loss"] == [(1, 1), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert found["a"]["mean_dice"] == [(2, 0.52), (4, 0.54)]
    assert "dice spleen" not in found["a"]
    text = curves(found)
    assert text.count("<polyline") == 6
    assert "a</li>" in text
    assert "Training loss over epochs; a ends at 0.25, b ends at 0.1667" in text


def test_a_loss_curve_point_by_point(tmp_path):
    text = curves(read_histories([write_history(tmp_path / "a", 2)]))
    points = re.search(r'points="(.*?)"', text)[1]
    assert points == "0.00,0.00 100.00,100.00"  # from 1 to 0.5, which are the first and last tick
    assert "epoch 1" in text
    assert "no such column" not in text


@pytest.mark.parametrize("text", ["", "epoch,loss\n", "a,b\n1,2\n", "epoch,loss\n1,x\n", "epoch,loss\nx,1,2,3\n"])
def test_a_file_without_curves_draws_nothing(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    assert curves({"run": read_history(tmp_path / "history.csv")}) == ""
    assert curves({}) == ""


def test_one_epoch_is_a_dot(tmp_path):
    text = curves(read_histories([write_history(tmp_path / "a", 1)]))
    assert re.search(r'points="([\d.]+,[\d.]+) \1"', text)
