"""`--init`: a training that starts from a checkpoint of ours or from released weights."""

import dataclasses

import pytest
import torch

from models import build_model
from models.build import build_network
from tests.support.manifests import quick_model
from tests.support.released import to_released
from tests.support.shallow import SMALL
from utils import checkpoint
from utils.config import Config, to_dict
from utils.errors import UserError
from utils.preprocess import PICTURES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """A checkpoint of nine classes, with a moving average, and that average."""
    torch.manual_seed(5)
    model, average = build_model(9, **SMALL), build_model(9, **SMALL)
    cfg = Config(num_classes=9, **SMALL)
    state = {"format": "heteromedseg", "config": to_dict(cfg), "selection": "last", "model": model.state_dict()}
    state |= {"class_names": [f"class {k}" for k in range(1, 9)]}
    state |= {"ema": {f"module.{k}": v for k, v in average.state_dict().items()} | {"n_averaged": torch.tensor(3)}}
    path = tmp_path_factory.mktemp("nine") / "best_model.pth"
    checkpoint.save(path, state)
    return path, average.state_dict()


def test_the_same_classes_take_every_weight(nine):
    path, weights = nine
    model, notes = build_network(Config(num_classes=9, init=str(path), **SMALL), CPU)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert notes[1] == f"initialised from {path} ({len(weights)} tensors)"


def test_another_number_of_classes_has_a_new_head_and_says_so(nine):
    path, weights = nine
    cfg = Config(num_classes=4, init=str(path), preprocess=PICTURES, **SMALL)
    torch.manual_seed(1)
    fresh = build_network(dataclasses.replace(cfg, init=None, pretrained="none"), CPU)[0].state_dict()
    torch.manual_seed(1)
    model, notes = build_network(cfg, CPU)
    for name, value in model.state_dict().items():
        assert torch.equal(value, (fresh if name == "head.classify.weight" else weights)[name]), name
    assert "head.classify.weight start anew: 9 classes there, 4 here" in notes[1]
    assert "warning: its images were prepared in another way" in notes[1]


def test_released_weights_are_a_start_too(tmp_path):
    torch.save(to_released(quick_model(9)), tmp_path / "synapse.pth")
    model, notes = build_network(Config(num_classes=2, init=str(tmp_path / "synapse.pth")), CPU)
    assert "9 classes there, 2 here" in notes[1]
    assert len(model.state_dict()["head.classify.weight"]) == 2


def test_weights_of_another_network_are_refused(tmp_path, nine):
    path, weights = nine
    state = checkpoint.read(path)
    del state["ema"]
    state["model"] = {name: value for name, value in weights.items() if not name.startswith("stem")}
    checkpoint.save(tmp_path / "other.pth", state)
    with pytest.raises(UserError, match=r"(?s)other\.pth: its tensors are not those.*stem"):
        build_network(Config(init=str(tmp_path / "other.pth"), **SMALL), CPU)
    with pytest.raises(UserError, match=r"checkpoint nowhere\.pth: no such file"):
        build_network(Config(init="nowhere.pth"), CPU)
