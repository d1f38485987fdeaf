"""The figures of tools.explain: what is highlighted, and what is written in them."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from tools.explain.figures import (
    SHOWN_SIDE,
    caption,
    draw_fields,
    draw_gates,
    draw_routes,
    heat_of,
    shrink,
    spread,
)
from tools.explain.internals import Gates, Routes
from tools.explain.receptive_field import Field
from tools.output import svg_of

CHOSEN = torch.tensor([[0, 1], [5, 3], [0, 1], [0, 1], [0, 1], [0, 1]])


def words_of(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_routes_figure_has_a_panel_for_each_block_and_numbers_the_routes():
    routes = [Routes(stage, 0, 16 >> stage, (2, 3), CHOSEN, CHOSEN / 10).describe((31, 40)) for stage in range(3)]
    figure = draw_routes(np.zeros((50, 96), np.uint8), routes, (31, 40), "title")
    assert [ax.get_visible() for ax in figure.axes] == [True, True, True, False]
    assert figure.axes[0].collections[0].get_array().tolist() == [[False, False, False], [True, False, True]]
    assert figure.axes[0].get_ylim() == (49.5, -0.5)  # the padding of 50 to 64 rows is not shown
    assert figure.axes[0].collections[0].get_coordinates()[-1, -1].tolist() == [95.5, 49.5]
    words = words_of(figure)
    assert sorted(word for word in words if word in "12") == ["1", "1", "1", "2", "2", "2"]
    assert {"stride 16: 2 of 6 regions", "stride 4: 2 of 6 regions", "block 1", "title"} <= set(words)


def test_gates_figure_shows_the_channels_of_both_halves_sorted():
    channels = torch.tensor([0.1, 0.3, 0.9, 0.5])
    figure = draw_gates(np.zeros((32, 32, 3), np.uint8), [Gates(0, 16, torch.rand(2, 4), torch.rand(2, 4), channels)])
    _, coarser, skip = figure.axes[:3]
    assert coarser.patches[0].get_data().values.tolist() == pytest.approx([0.3, 0.1])
    assert skip.patches[0].get_data().values.tolist() == pytest.approx([0.9, 0.5])
    expected = {"coarser stage: 2 channels, mean 0.20", "skip: 2 channels, mean 0.70", "skip at stride 16"}
    assert expected <= set(words_of(figure))


def test_spread_of_a_gate():
    places, low, high, mean = spread(torch.stack([torch.arange(11.0), torch.full((11,), 3.0)]))
    assert places.tolist() == [0.25, 0.75]
    assert torch.stack([low, high, mean]).T.tolist() == [pytest.approx([1, 9, 5]), [3, 3, 3]]


@pytest.mark.parametrize(("value", "shown"), [(1.0, 1.0), (1e-3, 1e-3), (1e-6, 1e-6), (1e-9, 1e-6), (0.0, None)])
def test_heat_is_a_part_of_the_largest_and_tells_nothing_from_little(value, shown):
    values = torch.full((4, 4), 5.0, dtype=torch.float64)
    values[1, 2] = 5 * value
    found = heat_of(values)
    assert found[1, 2] is np.ma.masked if shown is None else found[1, 2] == pytest.approx(shown)
    assert found[0, 0] == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((320, 150), (160, 75)), ((30, 15), (30, 15)), ((64, 640, 3), (16, 160, 3)), ((1, 4000), (1, 160))],
)
def test_large_images_are_embedded_smaller(shape, expected):
    assert shrink(np.ones(shape, np.uint8), SHOWN_SIDE).shape == expected


def test_a_field_of_nothing_is_masked():
    assert heat_of(torch.zeros(4, 4)).mask.all()


@pytest.mark.parametrize(
    ("middle", "reach", "expected"),
    [
        ((8, 8), 3, f"half of it within 6 px\n{100 * (1 - 49 / 256):.2g} % beyond the square"),
        ((8, 8), 7, "half of it within 6 px\n12 % beyond the square"),
        ((8, 8), 8, "half of it within 6 px\nthe convolutions reach all of it"),
        ((2, 8), 8, "half of it within 7 px\n31 % beyond the square"),
    ],
)
def test_caption_of_an_even_field(middle, reach, expected):
    assert caption(Field("causal", 0, 4, middle, reach, torch.ones(16, 16))) == expected


def test_fields_figure_names_forms_and_stages():
    places = [(form, stage) for form in ("causal", "noncausal") for stage in (0, 1)]
    fields = [Field(form, stage, 4 << stage, (8, 8), 3, torch.zeros(16, 16)) for form, stage in places]
    words = words_of(draw_fields(fields, "not trained"))
    assert {"stage 1, stride 4", "stage 2, stride 8"} <= set(words)
    assert (words.count("causal"), words.count("noncausal"), words.count("no gradient")) == (1, 1, 4)
    assert any("not trained" in word for word in words)


def test_the_same_figure_gives_the_same_svg():
    first, second = (svg_of(draw_fields([Field("causal", 0, 4, (2, 2), 1, torch.ones(5, 5))], "t")) for _ in range(2))
    assert first == second
