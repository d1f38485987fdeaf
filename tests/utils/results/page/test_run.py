"""From a test run to its page: both kinds of data, both protocols, every case in it as it was scored."""

import base64
import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch

from datasets.images.make_split import split_dataset
from isic_polyp_rectal import evaluation as picture_evaluation
from isic_polyp_rectal import task as pictures
from synapse_train_test import evaluation as volume_evaluation
from synapse_train_test import task as volumes
from tests.support.pages import META, TestRun, label_maps, read_page
from tests.support.trees import write_picture_tree, write_synapse_tree
from utils.command_line import parse_flags
from utils.config import TEST, Config
from utils.results.page.frames import Album
from utils.results.summary import summarise


def logits_of(num_outputs):
    """A network that answers from the image alone."""

    def forward(batch):
        grey = batch.mean(1, keepdim=True)
        return torch.cat([torch.cos(3 * grey + k) for k in range(num_outputs)], 1)

    return forward


def check_page(folder, rows, album, cfg):
    """Every case is in the page, with the label maps that its figures are from; returns the page."""
    found = read_page(folder, TestRun(summarise(rows, META | {"protocol": cfg.protocol}), rows, album.cases, {}))
    assert sorted(case["name"] for case in found.cases()) == sorted({row["case"] for row in rows})
    for case in found.cases():
        prediction, truth = np.stack([label_maps(frame) for frame in case["frames"]], axis=1)
        for label, row in enumerate([row for row in rows if row["case"] == case["name"]], 1):
            predicted, labelled = prediction == label, truth == label
            if row["outcome"] == "found" and cfg.protocol == "standard":
                dice = 2 * (predicted & labelled).sum() / (predicted.sum() + labelled.sum())
                assert dice == pytest.approx(row["dice"])
            assert predicted.any() == (row["outcome"] in ("found", "false_positive"))
            assert labelled.any() == (row["outcome"] in ("found", "missed"))
    return found


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_volumes(tmp_path, protocol):
    tree = write_synapse_tree(tmp_path / "data")
    cfg = dataclasses.replace(
        volumes.SYNAPSE, root_path=str(tree), list_dir=str(tree / "lists"), img_size=(32, 32), protocol=protocol
    )
    album = Album()
    classes = volumes.class_names(cfg)
    rows, _ = volume_evaluation.evaluate(cfg, logits_of(9), torch.device("cpu"), classes, tmp_path, album)
    found = check_page(tmp_path, rows, album, cfg)
    assert found.cases()[0]["depth"] == 4
    assert all(row["group"] == row["case"] for row in rows)  # no frames of a patient
    without, _ = volume_evaluation.evaluate(cfg, logits_of(9), torch.device("cpu"), classes, tmp_path)
    assert json.dumps(rows) == json.dumps(without)


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_pictures(tmp_path, protocol):
    tree = write_picture_tree(tmp_path / "data")
    split_dataset(tree, 0.6)
    cfg = dataclasses.replace(pictures.RECIPES["isic2018"], root_path=str(tree), img_size=(32, 32), protocol=protocol)
    album = Album()
    rows, _ = picture_evaluation.evaluate(cfg, logits_of(1), torch.device("cpu"), ("lesion",), tmp_path, album)
    found = check_page(tmp_path, rows, album, cfg)
    assert len(found.cases()) == 4
    (frame,) = found.cases()[0]["frames"]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(frame["picture"]), np.uint8), 1)
    assert picture.shape == ((40, 48, 3) if protocol == "standard" else (32, 32, 3))


def test_the_flag():
    assert Config().report
    assert parse_flags(["--no-report"], TEST, "") == {"report": False}
