"""The drawing of the network says what the code builds; words in drawings fit; every look has a rule."""

import importlib
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from docs.draw_network import ROOT, STYLE, draw, read_constants, stride_of
from models import build_model
from tools.explain.drawing import Drawing, number, text_width

NAMES = ("DIMS", "HEADS", "ENCODER_DEPTHS", "DECODER_DEPTHS", "TOPK", "SKIP_HEADS", "REGION", "HEAD_DIM", "POOL")


@pytest.fixture(scope="module")
def net():
    return read_constants()


def words(svg):
    """The texts of a drawing in the order in which they were drawn."""
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_committed_drawing_is_what_the_script_draws(net):
    assert (ROOT / "docs/network.svg").read_text(encoding="utf-8") == draw(net)


def test_constants_are_those_of_the_modules(net):
    modules = [importlib.import_module(f"models.{name}") for name in ("hetero_medseg", "bra", "scsa", "vssd")]
    for name in (*NAMES, "STATE_SIZE"):
        assert net[name] == next(getattr(m, name) for m in modules if hasattr(m, name)), name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DIMS", (64, 128, 256, 512), ["64 channels", "512 channels", "512 → 256", "64 → K classes"]),
        ("HEADS", (5, 7, 9), ["5 heads", "7 heads", "9 heads"]),
        ("ENCODER_DEPTHS", (3, 4, 5), ["VSSD block × 3", "VSSD block × 4", "VSSD block × 5"]),
        ("DECODER_DEPTHS", (9, 7, 6), ["BRA block × 6", "BRA block × 7", "BRA block × 9"]),  # drawn fine to coarse
        ("TOPK", (5, 6, 3), ["top-3 regions, 3 heads", "top-6 regions, 6 heads", "top-5 regions, 12 heads"]),
        ("SKIP_HEADS", (4, 10, 11), ["11 heads", "10 heads", "4 heads", "4, 10, 11 heads, coarse to fine"]),
        ("REGION", 64, ["28 × 28", "3 × 3", "stride 64", "regions of 64 × 64"]),
        ("HEAD_DIM", 48, ["top-2 regions, 2 heads"]),
        ("POOL", 5, ["AvgPool 5×5, GroupNorm"]),
        ("STATE_SIZE", 32, ["state 32"]),
    ],
)
def test_a_changed_constant_changes_the_drawing(net, name, value, expected):
    found = words(draw(net | {name: value}))
    assert [text for text in found if text in expected and text not in words(draw(net))] == [
        text for text in expected if text not in words(draw(net))
    ]
    assert not set(expected) - set(found)


def test_stated_sizes_are_those_of_the_network(net):
    """Strides, channels and what is written in words, against a network that runs."""
    model = build_model(num_classes=2, ssd="noncausal").eval()
    maps, sizes = [], []
    for stage in model.encoder:
        stage[-1].register_forward_hook(lambda _module, _inputs, out: maps.append(out.shape))
    for stage in model.downsample[-1:]:
        stage.register_forward_hook(lambda _module, _inputs, out: sizes.append(out.shape))
    with torch.inference_mode():
        model(torch.rand(1, 1, 64, 64))
    assert [(64 // shape[1], shape[3]) for shape in maps] == [(stride_of(net, i), net["DIMS"][i]) for i in range(3)]
    assert (64 // sizes[0][2], sizes[0][1]) == (stride_of(net, 3), net["DIMS"][3])

    vssd, bra, scsa = model.encoder[0][0], model.decoder[0].blocks[0], model.decoder[0].attention
    found = " ".join(words(draw(net)))
    for conv in (vssd.cpe1, vssd.cpe2, bra.pos_embed, bra.attn.lepe):
        assert "DWConv {}×{}".format(*conv.kernel_size) in found
    lines = (scsa.local_dwc, scsa.global_dwc_s, scsa.global_dwc_m, scsa.global_dwc_l)
    assert "DWConv1d " + ", ".join(str(conv.kernel_size[0]) for conv in lines) in found
    assert vssd.mlp.fc1.out_features == 3 * vssd.mlp.fc1.in_features
    assert bra.mlp.fc1.out_features == 3 * bra.mlp.fc1.in_features
    assert found.count("MLP, 3 C hidden") == 2
    assert f"{model.stem[0].out_channels} channels; GELU" in found
    assert (model.decoder[0].expand.scale, model.head.expand.scale) == (2, 4)
    assert (found.count("PatchExpand ↑ 2"), found.count("PatchExpand ↑ 4")) == (3, 1)


def test_every_look_has_a_rule_on_light_and_dark_pages(net):
    used = set(re.findall(r'class="([\w-]+)"', draw(net)))
    light, dark = STYLE.split("@media")
    assert used == {look for look in used if f".{look}" in light}
    fixed = {"organ-a", "organ-b", "organ-c"}  # saturated: visible on either page
    assert used - fixed == {look for look in used if f".{look}" in dark}


def test_figures_of_the_documentation_are_there_and_small():
    page = (ROOT / "docs/understanding.md").read_text(encoding="utf-8")
    figures = [ROOT / "docs" / name for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)]
    assert len(figures) == 5
    for figure in figures:
        assert ElementTree.parse(figure).getroot().tag.endswith("svg")
        assert figure.stat().st_size < 150_000


# --- tools/drawing.py ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "width"),  # em of DejaVu Sans, from its metrics
    [("illi", 1.12), ("Linear", 3.11), ("WM%", 2.8), ("VSSD block", 5.68), ("224 × 224", 5.32), ("", 0.0)],
)
def test_text_width_is_a_close_upper_bound(text, width):
    assert width <= text_width(text, 1) <= 1.12 * width
    assert text_width(text, 20) == pytest.approx(20 * text_width(text, 1))
    assert text_width(text, 1, bold=True) >= text_width(text, 1)


def test_words_that_do_not_fit_are_refused():
    picture = Drawing(200, 100, "t", "")
    picture.box(100, 50, 80, 30, "a", ["short"])
    with pytest.raises(ValueError, match="wide, has room for 72"):
        picture.box(100, 50, 80, 30, "a", ["much too long"])
    with pytest.raises(ValueError, match="high, have room for 30"):
        picture.box(100, 50, 80, 30, "a", ["two", "lines"])
    for x, anchor in ((10, "middle"), (170, "start"), (20, "end")):
        with pytest.raises(ValueError, match="outside of the drawing"):
            picture.text(x, 50, "a few words", anchor=anchor)


def test_a_drawing_is_well_formed_whatever_the_words():
    picture = Drawing(200, 100, "a < b & c", ".a{fill:red}")
    picture.text(100, 50, "<x> & 'y'", bold=True)
    picture.line([(0, 0), (10.126, 5)], arrow=True)
    picture.define_image("i", b"\x89PNG", 10, 10)
    picture.use("i", 1, 2)
    root = ElementTree.fromstring(picture.svg())
    assert words(picture.svg()) == ["<x> & 'y'"]
    assert root.get("viewBox") == "0 0 200 100"
    assert root[0].text == "a < b & c"
    assert 'points="0,0 10.13,5"' in picture.svg()
    assert "data:image/png;base64,iVBORw==" in picture.svg()


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1, "1"), (100, "100"), (2.5, "2.5"), (1 / 3, "0.33"), (-4.0, "-4")]
)
def test_number(value, text):
    assert number(value) == text
