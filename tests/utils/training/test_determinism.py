"""`--deterministic`: the weights depend neither on workers nor on what is kept in memory; what cannot be is named."""

import pytest
import torch

import train
from models.build import NETWORKS
from tests.support.toy import ToyNetwork, assert_same_weights
from tests.support.trees import write_picture_tree, write_synapse_tree
from utils import checkpoint
from utils.device import deterministic_algorithms
from utils.errors import UserError
from utils.training.folder import LAST

WAYS = (["--workers", "0"], ["--workers", "2", "--cache", "no"], ["--cache", "no", "--workers", "0"])
WAYS = (*WAYS, ["--cache", "disk"], ["--cache", "yes", "--recompute", "yes"], ["--cache", "yes", "--log_every", "1"])


class Colours(ToyNetwork):
    """The toy network on the mean of the colours."""

    def forward(self, x, keep=None):
        return super().forward(x.mean(1, keepdim=True), keep)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    pictures = write_picture_tree(folder / "pictures")
    rows = [f"{index:03d},{'test' if index > 7 else 'train'}" for index in range(10)]
    (pictures / "test_train_data.csv").write_text("\n".join(["image_id,category", *rows]) + "\n")
    return write_synapse_tree(folder / "volumes"), pictures


@pytest.mark.parametrize("kind", ["volumes", "pictures"])
def test_the_weights_are_the_same_however_the_images_are_kept(tmp_path, monkeypatch, trees, kind):
    monkeypatch.setitem(NETWORKS, "toy", lambda cfg: (Colours if cfg.num_classes == 1 else ToyNetwork)(cfg.num_classes))
    tree = trees[kind == "pictures"]
    data = ["--list_dir", str(tree / "lists")] if kind == "volumes" else ["--folds", "2"]
    found = []
    for number, way in enumerate(WAYS):
        flags = ["--dataset", str(tree), *data, "--network", "toy", "--img_size", "32", "--epochs", "2", "--batch", "3"]
        flags += ["--output_dir", str(tmp_path / str(number)), "--deterministic", "--precision", "fp32", *way]
        train.main([*flags, "--device", "cpu", "--schedule", "cosine"])
        found.append(checkpoint.read(tmp_path / str(number) / LAST)["model"])
    for other in found[1:]:
        assert_same_weights(found[0], other)


def test_an_operation_without_a_deterministic_form_is_named():
    with pytest.raises(UserError, match=r"--deterministic: put_ has no deterministic form here"), only():
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    assert not torch.are_deterministic_algorithms_enabled()


def only():
    return deterministic_algorithms(True)


def test_nothing_changes_where_it_is_not_asked_for():
    with deterministic_algorithms(False):
        assert not torch.are_deterministic_algorithms_enabled()
