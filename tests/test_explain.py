"""tools.explain from its command line: files written, numbers in them, mistakes named; and its figures."""

import json
import re
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
import torch

import tools.explain
from models import build_model
from tools.explain import main, rounded
from tools.explain_figures import draw_gates, draw_routes
from tools.explain_input import move_pixel
from tools.field_figure import covers, draw_fields, heat_png, percent
from tools.internals import Gates, Routes
from tools.receptive_field import Field
from utils import checkpoint
from utils.config import Config, to_dict
from utils.runtime import UserError

CLASSES = ("one", "the second of the classes, with a name that is longer than any title can be, and more")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as train.py writes it, a colour picture (40 x 60), a volume (5, 48, 48) and a text file."""
    folder = tmp_path_factory.mktemp("explain")
    torch.manual_seed(0)
    cfg = Config(num_classes=3, img_size=(64, 32))
    state = {"format": "heteromedseg", "config": to_dict(cfg), "model": build_model(3).state_dict()}
    state |= {"class_names": list(CLASSES), "epoch": 1, "selection": "last", "split": "toy"}
    checkpoint.save(folder / "net.pth", state)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "picture.png"), rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    np.save(folder / "volume.npy", rng.random((5, 48, 48), dtype=np.float32))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def quick_fields(monkeypatch):
    """Receptive fields take most of the time: leave them to the tests that look at them."""
    field = Field("causal", 0, 4, (32, 16), 27, torch.ones(64, 32))
    monkeypatch.setattr(tools.explain, "receptive_fields", lambda *_: [field])


def svg_of(path):
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    return [node.get("class") for node in root.iter()], [node.text for node in root.iter() if node.tag.endswith("text")]


def test_a_picture_and_a_pixel(folder, tmp_path):
    out = tmp_path / "new" / "folder"
    flags = ["--checkpoint", f"{folder}/net.pth", "--image", f"{folder}/picture.png", "--pixel", "39,58"]
    main([*flags, "--output_dir", str(out)])
    found = json.loads((out / "explain.json").read_text())
    assert (found["size"], found["img_size"], found["slice"]) == ([40, 60], [64, 32], None)
    assert (found["pixel"], found["input_pixel"]) == ([39, 58], [63, 31])
    assert found["predicted"] in ("background", *CLASSES)
    assert found["checkpoint"]["sha256"] == checkpoint.sha256(folder / "net.pth")
    assert [(r["stage"], r["block"], r["stride"]) for r in found["routes"]] == [
        *((1, block, 16) for block in range(1, 9)),
        *((2, block, 8) for block in (1, 2)),
        *((3, block, 4) for block in (1, 2)),
    ]
    for route in found["routes"]:
        assert (route["regions"], route["region"]) == ([2, 1], [1, 0])
        assert sorted(route["chosen"]) == [[0, 0], [1, 0]]  # at most as many as there are
        assert route["affinity"] == sorted(route["affinity"], reverse=True)
    for gates, (stride, channels) in zip(found["gates"], ((16, 384), (8, 192), (4, 96)), strict=True):
        assert (gates["stride"], len(gates["rows"]), len(gates["columns"])) == (stride, 64 // stride, 32 // stride)
        for name in ("channels_from_coarser_stage", "channels_of_skip"):
            assert len(gates[name]) == channels
            assert all(0 < value < 1 for value in gates[name])
    fields = found["receptive_fields"]
    assert [(f["form"], f["stage"]) for f in fields] == [
        (form, stage) for form in ("causal", "noncausal", "bidirectional") for stage in (1, 2, 3)
    ]
    assert fields[0]["convolutions_reach"] == 27
    assert fields[3]["reached"] == 1
    for name in ("routes.svg", "gates.svg", "receptive_fields.svg"):
        assert len(svg_of(out / name)[1]) > 5

    with pytest.raises(UserError, match=r"already holds routes\.svg, .*--force"):
        main([*flags, "--output_dir", str(out)])


def test_a_slice_of_a_volume_and_the_predicted_pixel(folder, tmp_path, quick_fields):
    """The middle slice is the default; another one has other gates; --force replaces."""
    flags = ["--checkpoint", f"{folder}/net.pth", "--image", f"{folder}/volume.npy", "--output_dir", str(tmp_path)]
    main(flags)
    middle = json.loads((tmp_path / "explain.json").read_text())
    main([*flags, "--slice", "2", "--force"])
    named = json.loads((tmp_path / "explain.json").read_text())
    main([*flags, "--slice", "4", "--force", "--img_size", "32x64"])
    last = json.loads((tmp_path / "explain.json").read_text())
    assert middle == named
    assert (middle["slice"], last["slice"], last["img_size"]) == (2, 4, [32, 64])
    assert middle["gates"] != last["gates"]
    assert last["routes"][0]["regions"] == [1, 2]
    assert move_pixel(tuple(middle["input_pixel"]), (64, 32), (48, 48)) == tuple(middle["pixel"])


def test_a_fresh_network_needs_no_image(tmp_path):
    main(["--img_size", "32", "--output_dir", str(tmp_path)])
    found = json.loads((tmp_path / "explain.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"receptive_fields.svg", "explain.json"}
    assert (found["checkpoint"], len(found["receptive_fields"])) == (None, 9)
    assert "routes" not in found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--checkpoint {f}/net.pth", "no image to look at; name one with --image"),
        ("--pixel 1,1", "--pixel 1,1: nothing to use it on; give --checkpoint"),
        ("--slice 0", "--slice 0: nothing to use it on; give --image"),
        ("--recipe nonsense", "no such recipe; expected one of synapse, phantom"),
        ("--intensity loud", "--intensity loud: expected one of auto, ct"),
        ("--img_size 12x13x14", "--img_size 12x13x14: expected a size in pixels"),
        ("--checkpoint {f}/none.pth --image {f}/picture.png", "none.pth: no such file"),
        ("--checkpoint {f}/net.pth --image {f}/none.png", "none.png: no such file"),
        ("--checkpoint {f}/net.pth --image {f}/notes.txt", "of no known kind"),
        ("--checkpoint {f}/net.pth --image {f}/picture.png --pixel 40,0", "is 40 x 60; expected a row up to 39"),
        ("--checkpoint {f}/net.pth --image {f}/picture.png --pixel 0,60", "and a column up to 59"),
        ("--checkpoint {f}/net.pth --image {f}/picture.png --pixel=-1,5", "expected row and column, as in"),
        ("--checkpoint {f}/net.pth --image {f}/picture.png --pixel 1.5,5", "expected row and column, as in"),
        ("--checkpoint {f}/net.pth --image {f}/picture.png --slice 0", "is a single picture; leave the flag out"),
        ("--checkpoint {f}/net.pth --image {f}/volume.npy --slice 5", "has 5 slices; expected 0 to 4"),
        ("--checkpoint {f}/net.pth --image {f}/volume.npy --slice -1", "has 5 slices; expected 0 to 4"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(folder, tmp_path, flags, message):
    with pytest.raises(UserError) as error:
        main([*flags.format(f=folder).split(), "--output_dir", str(tmp_path / "out")])
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_a_mistake(folder, quick_fields):
    with pytest.raises(UserError, match=r"notes\.txt.*cannot be written"):
        main(["--img_size", "32", "--output_dir", str(folder / "notes.txt" / "out")])


# --- figures ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.123, "12 %"), (0.0123, "1.2 %"), (0.000012345, "0.0012 %"), (1e-9, "< 0.0001 %")],
)
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("pixel", "source", "target", "expected"),
    [
        ((0, 0), (40, 60), (64, 32), (0, 0)),
        ((39, 59), (40, 60), (64, 32), (63, 31)),
        ((10, 10), (20, 20), (20, 20), (10, 10)),
        ((3, 3), (4, 4), (8, 2), (7, 1)),
    ],
)
def test_move_pixel(pixel, source, target, expected):
    assert move_pixel(pixel, source, target) == expected


def test_rounded():
    assert rounded({"a": [1 / 3, 5, "x", None, {"b": 1e-9}]}) == {"a": [0.333333, 5, "x", None, {"b": 1e-9}]}
