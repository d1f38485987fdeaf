"""tools.explain from its command line: files written, numbers in them, mistakes named."""

import argparse
import dataclasses
import json
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import tools.explain.__main__
from datasets.files.image import read_image
from models import build_model
from models.build import load_network
from recipes import RECIPES
from tests.support.shallow import SMALL
from tests.support.toy_checkpoints import TOY, save_toy
from tools.explain.__main__ import field_inputs, main, rounded
from tools.explain.input import Input, chosen_pixel, move_pixel, read_input
from tools.explain.receptive_field import Field
from utils import checkpoint
from utils.config import Config, to_dict
from utils.errors import UserError
from utils.inference.segment import segment

CLASSES = ("one", "the second of the classes, with a name that is longer than any title can be, and more")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as train.py writes it, pictures in colour (40 x 60) and grey, a volume and a text file."""
    folder = tmp_path_factory.mktemp("explain")
    torch.manual_seed(0)
    cfg = Config(num_classes=3, img_size=(64, 32), **SMALL)
    state = {"format": "heteromedseg", "config": to_dict(cfg), "model": build_model(3, **SMALL).state_dict()}
    state |= {"class_names": list(CLASSES), "epoch": 1, "selection": "last", "split": "toy"}
    checkpoint.save(folder / "net.pth", state)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "picture.png"), rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    cv2.imwrite(str(folder / "grey.png"), rng.integers(40, 200, (50, 30), dtype=np.uint8))
    np.save(folder / "volume.npy", rng.random((5, 48, 48), dtype=np.float32))
    scan = sitk.GetImageFromArray(rng.random((48, 5, 48), dtype=np.float32))
    scan.SetDirection((0, 0, -1, 1, 0, 0, 0, -1, 0))
    sitk.WriteImage(scan, str(folder / "turned.nii.gz"))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def quick_fields(monkeypatch):
    """Receptive fields take most of the time: leave them to the tests that look at them."""
    field = Field("causal", 0, 4, (32, 16), 27, torch.ones(64, 32))
    monkeypatch.setattr(tools.explain.__main__, "receptive_fields", lambda *_: [field])


def words_of(path):
    return {node.text for node in ElementTree.parse(path).iter() if node.tag.endswith("text")}


def test_a_picture_and_a_pixel(folder, tmp_path):
    out = tmp_path / "new" / "folder"
    flags = ["--checkpoint", f"{folder}/net.pth", "--image", f"{folder}/picture.png", "--pixel", "39,58"]
    main([*flags, "--output_dir", str(out)])
    found = json.loads((out / "explain.json").read_text(encoding="utf-8"))
    assert (found["size"], found["img_size"], found["slice"]) == ([40, 60], [64, 32], None)
    assert (found["pixel"], found["input_pixel"]) == ([39, 58], [63, 31])
    assert found["predicted"] in ("background", *CLASSES)
    assert found["checkpoint"]["sha256"] == checkpoint.sha256(folder / "net.pth")
    assert [(r["stage"], r["block"], r["stride"]) for r in found["routes"]] == [
        (1, 1, 16),
        (2, 1, 8),
        (3, 1, 4),
    ]
    for route in found["routes"]:
        assert (route["regions"], route["region"]) == ([2, 1], [1, 0])
        assert sorted(route["chosen"]) == [[0, 0], [1, 0]]  # at most as many as there are
        assert route["affinity"] == sorted(route["affinity"], reverse=True)
    for gates, (stride, channels) in zip(found["gates"], ((16, 128), (8, 64), (4, 32)), strict=True):
        assert (gates["stride"], len(gates["rows"]), len(gates["columns"])) == (stride, 64 // stride, 32 // stride)
        for name in ("channels_from_coarser_stage", "channels_of_skip"):
            assert len(gates[name]) == channels
            assert all(0 < value < 1 for value in gates[name])
    fields = found["receptive_fields"]
    assert [(f["form"], f["stage"]) for f in fields] == [
        (form, stage) for form in ("causal", "noncausal", "bidirectional") for stage in (1, 2, 3)
    ]
    assert fields[0]["convolutions_reach"] == 15
    assert fields[3]["reached"] == 1
    assert {"stride 16: 2 of 2 regions", "stride 4: 2 of 2 regions", "block 1"} <= words_of(out / "routes.svg")
    assert {"skip at stride 16", "skip at stride 8", "skip at stride 4"} <= words_of(out / "gates.svg")
    assert {"causal", "bidirectional", "stage 3, stride 16"} <= words_of(out / "receptive_fields.svg")

    with pytest.raises(UserError, match=r"already holds routes\.svg, .*--force"):
        main([*flags, "--output_dir", str(out)])


def test_a_slice_of_a_volume_and_the_predicted_pixel(folder, tmp_path, quick_fields):
    """The middle slice is the default; another one has other gates; --force replaces."""
    flags = ["--checkpoint", f"{folder}/net.pth", "--image", f"{folder}/volume.npy", "--output_dir", str(tmp_path)]
    main(flags)
    middle = json.loads((tmp_path / "explain.json").read_text(encoding="utf-8"))
    main([*flags, "--slice", "2", "--force"])
    named = json.loads((tmp_path / "explain.json").read_text(encoding="utf-8"))
    main([*flags, "--slice", "4", "--force", "--img_size", "32x64"])
    last = json.loads((tmp_path / "explain.json").read_text(encoding="utf-8"))
    assert middle == named
    assert (middle["slice"], last["slice"], last["img_size"]) == (2, 4, [32, 64])
    assert middle["gates"] != last["gates"]
    assert last["routes"][0]["regions"] == [1, 2]
    assert move_pixel(tuple(middle["input_pixel"]), (64, 32), (48, 48)) == tuple(middle["pixel"])


def test_a_fresh_network_needs_no_image(tmp_path):
    main(["--img_size", "32", "--output_dir", str(tmp_path)])
    found = json.loads((tmp_path / "explain.json").read_text(encoding="utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {"receptive_fields.svg", "explain.json"}
    assert (found["checkpoint"], len(found["receptive_fields"])) == (None, 9)
    assert "routes" not in found


def test_convolutions_do_not_run_in_tf32(tmp_path, quick_fields, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    main(["--img_size", "32", "--output_dir", str(tmp_path)])
    assert not torch.backends.cudnn.allow_tf32


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


def test_another_network_is_refused(folder, tmp_path, monkeypatch):
    cfg = dataclasses.replace(RECIPES["cvc_clinicdb"], network=TOY)
    path = save_toy(tmp_path / "toy.pth", monkeypatch, cfg, ["polyp"])
    flags = ["--checkpoint", str(path), "--image", f"{folder}/picture.png", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"toy\.pth: of --network toy, .*; expected .* of --network heteromedseg"):
        main(flags)
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_is_refused(folder, tmp_path, monkeypatch):
    """It holds the network, but no parts to look into."""
    loaded = dataclasses.replace(load_network(folder / "net.pth", RECIPES), model=torch.nn.Identity())
    monkeypatch.setattr(tools.explain.__main__, "load_network", lambda *_: loaded)
    with pytest.raises(UserError, match=r"net\.pth: .*ONNX.*expected .*best_model\.pth"):
        main(["--checkpoint", f"{folder}/net.pth", "--image", f"{folder}/picture.png", "--output_dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("parts", "there"),
    [({"decoder": "conv"}, "gates"), ({"skips": "plain"}, "routes"), ({"decoder": "conv", "skips": "plain"}, "")],
)
def test_an_ablation_shows_what_it_has(folder, tmp_path, quick_fields, parts, there):
    cfg = Config(num_classes=3, img_size=(64, 32), **SMALL, **parts)
    state = {"format": "heteromedseg", "config": to_dict(cfg), "model": build_model(3, **SMALL, **parts).state_dict()}
    state |= {"class_names": list(CLASSES), "epoch": 1, "selection": "last", "split": "toy"}
    checkpoint.save(tmp_path / "net.pth", state)
    out = tmp_path / "out"
    main(["--checkpoint", f"{tmp_path}/net.pth", "--image", f"{folder}/picture.png", "--output_dir", str(out)])
    found = json.loads((out / "explain.json").read_text(encoding="utf-8"))
    assert [name for name in ("routes", "gates") if found[name]] == [there] * bool(there)
    figures = {f"{name}.svg" for name in (there, "receptive_fields") if name}
    assert {path.name for path in out.iterdir()} == {"explain.json", *figures}


def test_a_folder_that_cannot_be_made_is_a_mistake(folder, quick_fields):
    with pytest.raises(UserError, match=r"notes\.txt.*cannot be written"):
        main(["--img_size", "32", "--output_dir", str(folder / "notes.txt" / "out")])


@pytest.mark.parametrize(
    ("recipe", "name", "flags"),
    [
        ("phantom", "picture.png", {}),
        ("cvc_clinicdb", "picture.png", {}),
        ("cvc_clinicdb", "grey.png", {"intensity": "percentile"}),
        ("phantom", "volume.npy", {"slice": 3}),
        ("phantom", "volume.npy", {"slice": 3, "intensity": "percentile"}),
        ("phantom", "turned.nii.gz", {"slice": 3}),
    ],
)
def test_the_network_sees_what_it_sees_when_it_predicts(folder, recipe, name, flags):
    """The batch equals the one that predict.py makes of the same file."""
    given = argparse.Namespace(**{"image": str(folder / name), "slice": None, "intensity": "auto"} | flags)
    cfg = dataclasses.replace(RECIPES[recipe], img_size=(64, 32), intensity=given.intensity, batch_size=1)
    batches = []

    def forward(batch):
        batches.append(batch)
        return torch.zeros(1, cfg.num_classes, 64, 32)

    image = read_input(given, cfg)
    raw = read_image(folder / name)
    network = argparse.Namespace(cfg=cfg, forward=forward, device=torch.device("cpu"))
    segment(network, raw.array, raw.kind == "volume", name, raw.orientation)
    assert (len(batches), image.index) == ((5, 3) if raw.kind == "volume" else (1, None))
    torch.testing.assert_close(image.batch, batches[image.index or 0], rtol=1e-5, atol=1e-5)
    shown = torch.from_numpy(image.shown).float() / 255
    shown = shown[None] if shown.ndim == 2 else shown.movedim(2, 0)
    scale = (image.batch[0] - image.batch[0].mean()).flatten() @ (shown - shown.mean()).flatten()
    assert scale > 0.9 * (image.batch[0].std() * shown.std() * shown.numel())


@pytest.mark.parametrize(
    ("fit", "img_size", "corner", "far"),
    [
        ("squash", (64, 32), (0, 0), (63, 31)),
        ("pad", (64, 32), (21, 0), (41, 31)),
        ("slide", (64, 64), (12, 2), (51, 61)),
    ],
)
def test_pixels_are_found_within_the_margins(folder, fit, img_size, corner, far):
    """A pixel of the image (40 x 60) has its place in the network's input; what is predicted in a margin is none."""
    given = argparse.Namespace(image=str(folder / "picture.png"), slice=None, intensity="auto")
    cfg = RECIPES["cvc_clinicdb"]
    cfg = dataclasses.replace(cfg, img_size=img_size, preprocess=dataclasses.replace(cfg.preprocess, fit=fit))
    image = read_input(given, cfg)
    logits = torch.ones(1, *img_size)
    assert chosen_pixel("0,0", logits, image) == ((0, 0), corner)
    assert chosen_pixel("39,59", logits, image) == ((39, 59), far)
    logits[0, corner[0] : far[0], corner[1] : far[1] + 1] = -1
    assert chosen_pixel(None, logits, image)[0][0] == 39
    assert chosen_pixel(None, logits, image)[1][0] == far[0]


def test_the_share_of_foreground_leaves_margins_out(folder, tmp_path, quick_fields, monkeypatch):
    """The network calls the margins of --fit pad foreground, and nothing else."""
    given = ["--checkpoint", f"{folder}/net.pth", "--image", f"{folder}/picture.png", "--output_dir", str(tmp_path)]
    loaded = load_network(folder / "net.pth", RECIPES)
    cfg = dataclasses.replace(loaded.cfg, preprocess=dataclasses.replace(loaded.cfg.preprocess, fit="pad"))
    monkeypatch.setattr(tools.explain.__main__, "load_network", lambda *_: dataclasses.replace(loaded, cfg=cfg))
    logits = torch.stack([torch.full((64, 32), score) for score in (0.0, 1.0, -1.0)])
    logits[1, 21:42] = -1
    monkeypatch.setattr(tools.explain.__main__, "look_inside", lambda *_: (logits, [], []))
    main(given)
    found = json.loads((tmp_path / "explain.json").read_text(encoding="utf-8"))
    assert (found["foreground"], found["predicted"]) == (0, "background")


def test_receptive_fields_are_averaged_over_mirror_images_or_noise():
    batch = torch.arange(6.0).view(1, 1, 2, 3)
    image = Input("x", batch, np.zeros((2, 3), np.uint8), (2, 3), None, (range(2), range(3)))
    rows = [[0, 1, 2, 3, 4, 5], [2, 1, 0, 5, 4, 3], [3, 4, 5, 0, 1, 2], [5, 4, 3, 2, 1, 0]]
    assert field_inputs(image, (2, 3)).flatten(1).tolist() == rows
    noise = field_inputs(None, (32, 64))
    assert noise.shape == (4, 3, 32, 64)
    assert torch.equal(noise, field_inputs(None, (32, 64)))


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
