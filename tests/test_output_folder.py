"""test.py looks whether its results can be written before it computes them."""

import sys
from dataclasses import replace
from unittest import mock

import pytest

import test as test_script
from recipes import RECIPES
from tests.support.toy_checkpoints import TOY, save_toy
from tests.support.trees import write_picture_tree, write_synapse_tree
from utils.errors import UserError


@pytest.fixture(params=["volumes", "images"])
def words(request, tmp_path, monkeypatch):
    """Flags of a test of volumes or images whose --output_dir is still to be given."""
    tree = tmp_path / "data"
    if request.param == "volumes":
        write_synapse_tree(tree, num_cases=2, slices=2, size=32)
        cfg = replace(RECIPES["synapse"], root_path=str(tree), list_dir=str(tree / "lists"))
    else:
        write_picture_tree(tree, num_images=3)
        (tree / "split.csv").write_text("image_id,category\n" + "".join(f"{k:03d}.jpg,test\n" for k in range(3)))
        cfg = replace(RECIPES["isic2018"], root_path=str(tree), csvfile=str(tree / "split.csv"))
    cfg = replace(cfg, network=TOY, img_size=(32, 32))
    names = [f"class {k}" for k in range(1, max(cfg.num_classes, 2))]
    net = save_toy(tmp_path / "net.pth", monkeypatch, cfg, names)
    split = ["--split", "train"] if request.param == "volumes" else []
    return ["--checkpoint", str(net), "--device", "cpu", "--no-report", *split, "--output_dir"]


@pytest.mark.parametrize("place", ["file", "file/inner/folder", "link/folder"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_computation(words, tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    if place == "link/folder" and sys.platform != "linux":
        pytest.skip("needs a folder in which nobody, root included, can make a file")
    (tmp_path / "link").symlink_to("/proc/self")
    with (
        mock.patch.object(test_script, "forward_fn", side_effect=AssertionError("computes")),
        pytest.raises(UserError, match=rf"--output_dir \S*{place}.*: \S* (is no folder|cannot be written to)"),
    ):
        test_script.main([*words, str(tmp_path / place)])


def test_a_test_that_is_refused_leaves_no_folder(words, tmp_path):
    for path in [*tmp_path.glob("data/train_npz/*"), *tmp_path.glob("data/images/000.jpg")]:
        path.write_bytes(b"damaged")
    with pytest.raises(UserError):
        test_script.main([*words, str(tmp_path / "new" / "out")])
    assert not (tmp_path / "new").exists()


def test_a_new_folder_is_made_for_the_results(words, tmp_path):
    test_script.main([*words, str(tmp_path / "new" / "out")])
    assert len(list((tmp_path / "new" / "out").glob("*/summary.json"))) == 1
