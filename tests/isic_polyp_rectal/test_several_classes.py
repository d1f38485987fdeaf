"""Pictures of several classes from the folder to the scores, without a network."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from datasets.images.check import check_pairs
from datasets.images.classes import ClassTable
from datasets.images.pairs import pair_files
from isic_polyp_rectal.evaluation import evaluate
from isic_polyp_rectal.task import ISIC2018, build_task, settle
from utils.errors import UserError

VALUES = np.array((0, 90, 200, 255), np.uint8)
TABLE = ClassTable(("background", "one", "two", "three"), tuple(VALUES.tolist()))
CLASSES, SIZE = TABLE.names[1:], (24, 32)


def write_tree(root, num_images=6, labels=None):
    """Blocks of the classes on noise, whose red channel is the label; the last two images test."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    lines = ["image_id,category"]
    for index in range(num_images):
        blocks = rng.integers(0, 4, (3, 4)) if labels is None else labels
        label = np.kron(blocks, np.ones((8, 8), int)).astype(np.uint8)
        image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        image[..., 2] = label
        cv2.imwrite(str(root / "images" / f"{index}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{index}.png"), VALUES[label])
        lines.append(f"{index}.png,{'train' if index < num_images - 2 else 'test'}")
    (root / "test_train_data.csv").write_text("\n".join(lines) + "\n")
    (root / "classes.json").write_text(TABLE.to_json())
    return root


def config(root, **fields):
    return replace(ISIC2018, root_path=str(root), img_size=SIZE, batch_size=3, folds=2, **fields)


def read_red(wrong=False):
    """A network that reads the label off the red channel; `wrong` takes class one for class two."""

    def forward(images):
        red = torch.round((images[:, 0] * 0.229 + 0.485) * 255).long()
        red = torch.where((red == 1) & wrong, 2, red)
        return 20 * torch.nn.functional.one_hot(red, 4).movedim(-1, 1).float()

    return forward


def test_the_folder_says_how_many_classes_a_run_has_and_what_they_are_called(tmp_path):
    cfg = config(write_tree(tmp_path))
    settled = settle(cfg, {})
    assert (settled.num_classes, settled.class_names) == (4, CLASSES)
    assert settle(cfg, {"num_classes": 4, "class_names": CLASSES}) == settled
    with pytest.raises(UserError, match=r"--num_classes: .*classes\.json has the classes 0 background, 90 one"):
        settle(replace(cfg, num_classes=3), {"num_classes": 3})
    with pytest.raises(UserError, match="--class_names"):
        settle(replace(cfg, class_names=CLASSES[::-1]), {"class_names": CLASSES[::-1]})
    (tmp_path / "classes.json").unlink()
    assert settle(cfg, {}) == cfg
    assert settle(replace(cfg, root_path=None), {}) == replace(cfg, root_path=None)


@pytest.mark.parametrize("loss", ["ce_dice", "ce", "dice"])
def test_the_task_trains_and_validates_on_all_classes(tmp_path, loss):
    task = build_task(settle(config(write_tree(tmp_path), loss=loss), {}))
    image, target = task.train_set[0]
    assert (image.shape, image.dtype, target.dtype) == ((3, *SIZE), torch.uint8, torch.uint8)
    assert torch.equal(image[0], target)
    assert set(target.unique().tolist()) <= {0, 1, 2, 3}
    logits = 20 * torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 0).float()[None]
    assert task.loss(logits, target[None]) < 0.01 < 0.3 < task.loss(logits.flip(1), target[None])
    images = torch.stack([task.train_set[i][0] for i in range(2)])
    augmented, targets = task.augment(images / 255, torch.stack([task.train_set[i][1] for i in range(2)]),
                                      torch.Generator().manual_seed(0), 2, 0)  # fmt: skip
    assert (augmented.shape, targets.dtype) == (images.shape, torch.uint8)
    assert set(targets.unique().tolist()) <= {0, 1, 2, 3}
    network = lambda batch: read_red()((batch.float() / 255 - 0.485) / 0.229)  # noqa: E731
    found = task.validate(network, torch.device("cpu"))
    assert found.dice == dict.fromkeys(CLASSES, 1.0)
    assert "classes seen: 0 in" in task.found[0]


@pytest.mark.parametrize("loss", ["bce", "dice_bce"])
def test_losses_of_one_class_are_refused(tmp_path, loss):
    with pytest.raises(UserError, match=f"--loss {loss}: not defined for 4 classes; expected one of ce_dice, dice, ce"):
        build_task(settle(config(write_tree(tmp_path), loss=loss), {}))


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_every_class_of_a_picture_has_its_own_figures(tmp_path, protocol):
    root = write_tree(tmp_path, labels=np.array([[0, 0, 0, 0], [1, 1, 2, 2], [0, 0, 3, 3]]))
    cfg = settle(config(root, protocol=protocol, debug=True), {})
    rows, split = evaluate(cfg, read_red(wrong=True), torch.device("cpu"), CLASSES, tmp_path / "out")
    assert [(row["case"], row["class"]) for row in rows] == [(f"{i}.png", name) for i in (4, 5) for name in CLASSES]
    assert [row["outcome"] for row in rows[:3]] == ["missed", "found", "found"]
    plus = protocol == "legacy"  # 128 pixels a class; class two is found, and all of class one besides
    expected = [plus / (128 + plus), (2 * 128 + plus) / (128 + 256 + plus), 1]
    assert [row["dice"] for row in rows[:3]] == pytest.approx(expected)
    assert "test part" in split
    assert {p.name for p in (tmp_path / "out" / "overlays").iterdir()} == {"4.png", "5.png"}


def test_a_folder_of_other_classes_than_the_network_is_refused(tmp_path):
    cfg = settle(config(write_tree(tmp_path)), {})
    (tmp_path / "classes.json").write_text(replace(TABLE, names=("background", "two", "one", "three")).to_json())
    with pytest.raises(UserError, match=r"classes\.json: found the classes .*90 two.*4 classes \(background, one, two"):
        evaluate(cfg, read_red(), torch.device("cpu"), CLASSES, tmp_path)
    with pytest.raises(UserError, match="the network has one class"):
        evaluate(config(tmp_path), read_red(), torch.device("cpu"), ("lesion",), tmp_path)
    (tmp_path / "classes.json").unlink()
    with pytest.raises(UserError, match=r"its masks are binary without a classes\.json; the network has 4 classes"):
        evaluate(cfg, read_red(), torch.device("cpu"), CLASSES, tmp_path)


def test_masks_of_several_classes_without_a_table_are_refused_with_one_to_copy(tmp_path):
    cfg = config(write_tree(tmp_path))
    (tmp_path / "classes.json").unlink()
    with pytest.raises(UserError, match=r"found values .*90 in .* of 6 masks, expected one foreground") as error:
        build_task(cfg)
    text = str(error.value)
    (tmp_path / "classes.json").write_text(text[text.index("{") :])
    assert settle(cfg, {}).num_classes == 4


@pytest.mark.parametrize("training", [True, False])
def test_many_labels_are_not_taken_for_empty_masks(tmp_path, training):
    write_tree(tmp_path)
    (tmp_path / "classes.json").unlink()
    for path in (tmp_path / "masks").iterdir():
        cv2.imwrite(str(path), np.kron(np.arange(12).reshape(3, 4), np.ones((8, 8))).astype(np.uint8))
    with pytest.raises(UserError, match=r"found values 1 in 6, .*classes\.json, such as:\n"):
        check_pairs(pair_files(tmp_path), training=training)


def test_a_class_that_no_mask_shows_is_a_warning(tmp_path):
    root = write_tree(tmp_path, labels=np.array([[0, 0, 0, 0], [1, 1, 2, 2], [0, 0, 0, 0]]))
    assert "warning: no mask shows three" in build_task(settle(config(root), {})).found


def test_a_value_beside_the_table_stops_the_run_with_its_file(tmp_path):
    cfg = settle(config(write_tree(tmp_path)), {})
    cv2.imwrite(str(tmp_path / "masks" / "2.png"), np.full(SIZE, 91, np.uint8))
    with pytest.raises(UserError, match=r"(?s)1 problems? in 6 pairs.*2\.png: found values that .*91 \(768 pixels\)"):
        build_task(cfg)
