"""Checkpoints of small networks, and what tools.export makes of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from isic_polyp_rectal.task import CVC_CLINICDB
from models import build
from tests.support.places import ROOT
from tests.support.shallow import shallow_model
from tools import export
from utils import checkpoint
from utils.config import Config, to_dict
from utils.preprocess import SLICES

CT = Config(
    num_classes=3,
    preprocess=replace(SLICES, intensity="ct", orientation="SLP"),
    img_size=(32, 48),
    root_path="/private/me/data",
)
POLYPS = replace(CVC_CLINICDB, img_size=(32, 32), pretrained="/private/me/biformer.pth")
SCRIPT = ROOT / "docs" / "segment_onnx.py"
NAMES = {3: ["liver", "spleen"], 1: ["polyp"]}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    """Networks of few parts under the names that --network takes."""
    networks = {
        "heteromedseg": lambda cfg: shallow_model(cfg.num_classes, cfg.ssd),
        "conv": lambda cfg: nn.Conv2d(cfg.preprocess.channels, cfg.num_classes, 5, padding=2, bias=False),
    }
    monkeypatch.setattr(build, "NETWORKS", networks)


def save(path, cfg: Config, **changed):
    """A checkpoint as training writes it, with fresh weights."""
    torch.manual_seed(0)
    state = {"format": "heteromedseg", "config": to_dict(cfg), "class_names": NAMES[cfg.num_classes]}
    state |= {"epoch": 7, "selection": "validation", "split": "8 train + 2 test", "split_sha256": "ab" * 32}
    checkpoint.save(path, state | {"model": build.make_network(cfg).state_dict()} | changed)
    return path


def run(path, output, *words):
    export.main(["--checkpoint", str(path), "--output", str(output), *map(str, words)])
    return output


def onnx_of(path, output, *words):
    pytest.importorskip("onnxscript")
    return run(path, output, *words)


def words_of(path, source, output):
    words = ["--checkpoint", path, "--input", source, "--output_dir", output, "--device", "cpu", "--precision", "fp32"]
    return [str(word) for word in words]
