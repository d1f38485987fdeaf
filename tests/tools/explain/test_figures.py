"""The figures of tools.explain: what is drawn where, and what is written under it."""

import re

import cv2
import numpy as np
import pytest
import torch

from tools.explain.field_figure import covers, draw_fields, heat_png, percent
from tools.explain.figures import draw_gates, draw_routes
from tools.explain.internals import Gates, Routes
from tools.explain.receptive_field import Field


def test_routes_figure_marks_the_query_and_its_routes():
    chosen = torch.tensor([[0, 1], [5, 3], [0, 1], [0, 1], [0, 1], [0, 1]])
    routes = [Routes(stage, 0, 16 >> stage, (2, 3), chosen, chosen / 10) for stage in range(2)]
    svg = draw_routes(np.zeros((50, 96), np.uint8), routes, (31, 40), "title")  # 64 x 96 with its padding
    looks = re.findall(r'<rect class="([\w-]+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg)
    panel = looks[: len(looks) // 2]
    side = 200 * 32 / 96
    last = 200 * (50 - 32) / 96  # rows behind the image are not drawn
    place = {look: [tuple(map(float, numbers)) for name, *numbers in panel if name == look] for look, *_ in panel}
    assert place["query"] == [pytest.approx((16 + side, 96, side, side), abs=0.01)]
    assert place["route"][0] == pytest.approx((16 + 2 * side + 1, 96 + side + 1, side - 2, last - 2), abs=0.01)
    assert place["route"][1] == pytest.approx((16 + 1, 96 + side + 1, side - 2, last - 2), abs=0.01)
    assert (len(place["dim"]), len(place["net"]), len(place["route"])) == (4, 2, 2)
    assert svg.count("data:image/png") == 1
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert [t for t in texts if t in "12"] == ["1", "2", "1", "2"]
    assert {"stride 16: 2 of 6 regions", "stride 8: 2 of 6 regions", "block 1", "title"} <= set(texts)


def test_gates_figure_has_sorted_bars_and_means():
    channels = torch.tensor([0.1, 0.3, 0.9, 0.5])
    svg = draw_gates(np.zeros((32, 32, 3), np.uint8), [Gates(0, 16, torch.rand(2, 4), torch.rand(2, 4), channels)], "t")
    heights = [re.findall(r"V([\d.]+)h", bars) for bars in re.findall(r'<path class="\w+-area" d="([^"]+)"', svg)]
    assert [len(one) for one in heights] == [2, 2]
    assert all(float(one[0]) < float(one[1]) for one in heights)  # the tallest first; y grows downwards
    assert "coarser stage: 2 channels, mean 0.20" in svg
    assert "skip: 2 channels, mean 0.70" in svg


@pytest.mark.parametrize(
    ("value", "grey"), [(1.0, 255), (0.0, 0), (1e-6, 16), (1e-9, 16), (1e-3, 136), (0.1, 216), (1e-300, 16)]
)
def test_heat_is_logarithmic_and_tells_nothing_from_little(value, grey):
    values = torch.full((4, 4), 5.0, dtype=torch.float64)
    values[1, 2] = 5 * value
    found = cv2.imdecode(np.frombuffer(heat_png(values), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert found.shape == (4, 4)
    assert abs(int(found[1, 2]) - grey) <= 2
    assert found[0, 0] == 255


def test_large_fields_are_shown_smaller():
    found = cv2.imdecode(np.frombuffer(heat_png(torch.ones(300, 200)), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert found.shape == (100, 67)
    assert heat_png(torch.zeros(4, 4)) != heat_png(torch.ones(4, 4))


def test_fields_figure_of_a_field_without_any_gradient():
    fields = [Field(form, 0, 4, (8, 8), 3, torch.zeros(16, 16)) for form in ("causal", "noncausal")]
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", draw_fields(fields, "title"))
    assert {"causal", "noncausal", "stage 1", "stride 4", "1e-6", "0.1"} <= set(texts)
    assert not any("half" in words for words in texts)


def test_the_share_beyond_is_told_where_there_is_a_beyond():
    values = torch.ones(16, 16)
    small = draw_fields([Field("causal", 0, 4, (8, 8), 3, values)], "t")
    assert "half of it within 6 px" in small
    assert f"{percent(1 - 49 / 256)} beyond the square" in small
    large = Field("causal", 0, 4, (8, 8), 8, values)
    assert "beyond the square" not in draw_fields([large], "t")
    assert covers(large)
    assert not covers(Field("causal", 0, 4, (8, 8), 7, values))
    assert not covers(Field("causal", 0, 4, (2, 8), 8, values))


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.123, "12 %"), (0.0123, "1.2 %"), (0.000012345, "0.0012 %"), (1e-9, "< 0.0001 %")],
)
def test_percent(share, text):
    assert percent(share) == text
