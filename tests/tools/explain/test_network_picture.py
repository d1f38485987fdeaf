"""docs/network.svg says what the code builds."""

import itertools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import models.bra
import models.hetero_medseg
from docs.draw_network import NUM_CLASSES, draw
from models import build_model

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def figure():
    return draw(build_model(NUM_CLASSES))


def words_of(figure):
    return {text.get_text() for text in figure.axes[0].texts} - {""}


def test_the_committed_picture_says_what_the_script_draws(figure):
    nodes = ElementTree.parse(DOCS / "network.svg").iter("{http://www.w3.org/2000/svg}text")
    assert {node.text for node in nodes} == words_of(figure)


def test_no_words_overlap_or_leave_the_picture(figure):
    FigureCanvasAgg(figure).draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.axes[0].texts if text.get_text()]
    for words, box in boxes:
        assert figure.bbox.x0 < box.x0, words
        assert box.x1 < figure.bbox.x1, words
    for (words, box), (others, other) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other), f"{words!r} and {others!r}"


@pytest.mark.parametrize(
    "row",
    [
        ("56 × 56", "96 channels", "192 → 96", "top-2 regions, 3 heads"),
        ("28 × 28", "192 channels", "384 → 192", "top-4 regions, 6 heads"),
        ("14 × 14", "384 channels", "768 → 384", "top-8 regions, 12 heads"),
    ],
)
def test_a_row_of_the_picture_is_one_resolution(figure, row):
    height = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert max(height[words] for words in row) - min(height[words] for words in row) < 46


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DIMS", (64, 128, 256, 512), {"64 channels", "512 channels", "512 → 256", "64 → K classes"}),
        ("HEADS", (5, 7, 9), {"5 heads", "7 heads", "9 heads"}),
        ("ENCODER_DEPTHS", (3, 4, 5), {"VSSD block × 3", "VSSD block × 4", "VSSD block × 5"}),
        ("DECODER_DEPTHS", (9, 7, 6), {"BRA block × 6", "BRA block × 7", "BRA block × 9"}),
        ("TOPK", (5, 6, 3), {"top-3 regions, 3 heads", "top-6 regions, 6 heads", "top-5 regions, 12 heads"}),
        ("SKIP_HEADS", (4, 10, 11), {"11 heads", "10 heads", "4 heads", "4, 10, 11 heads, coarse to fine"}),
        ("HEAD_DIM", 48, {"top-2 regions, 2 heads"}),
    ],
)
def test_a_changed_network_changes_the_picture(figure, monkeypatch, name, value, expected):
    monkeypatch.setattr(models.bra if name == "HEAD_DIM" else models.hetero_medseg, name, value)
    changed = words_of(draw(build_model(NUM_CLASSES)))
    assert expected <= changed
    assert changed != words_of(figure)


def test_parameters_are_counted(figure):
    count = sum(weight.numel() for weight in build_model(NUM_CLASSES).parameters())
    assert f"{count / 1e6:.2f} M parameters" in words_of(figure)


def test_figures_of_the_documentation_are_there_and_small():
    page = (DOCS / "understanding.md").read_text(encoding="utf-8")
    figures = [DOCS / name for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)]
    assert len(figures) == 5
    for path in figures:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert path.stat().st_size < 300_000
