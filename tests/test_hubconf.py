"""torch.hub from another folder: what a project of a user's own does."""

import subprocess
import sys
from dataclasses import replace

import torch

from models import build_model
from recipes import RECIPES
from tests.support.places import ROOT
from tests.support.shallow import SMALL
from utils import checkpoint
from utils.config import to_dict

SCRIPT = """
import sys, warnings
import numpy as np, torch
warnings.simplefilter("error")
root, weights = sys.argv[1:]
network = torch.hub.load(root, "heteromedseg", source="local", checkpoint=weights)
assert not network.training
with torch.inference_mode():
    print(tuple(network(torch.zeros(1, 3, 32, 64)).shape))
print(torch.hub.load(root, "heteromedseg", source="local", num_classes=3).num_classes)
predictor = torch.hub.load(root, "heteromedseg_predictor", weights, source="local", device="cpu")
print(predictor.predict(np.zeros((40, 30, 3), np.uint8)).shape)
"""


def test_torch_hub_loads_network_and_predictor(tmp_path):
    torch.manual_seed(0)
    cfg = replace(RECIPES["cvc_clinicdb"], img_size=(32, 32), **SMALL)
    state = {"format": "heteromedseg", "model": build_model(1, **SMALL).state_dict(), "config": to_dict(cfg)}
    checkpoint.save(tmp_path / "net.pth", state | {"class_names": ["polyp"], "selection": "last"})
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", str(ROOT), "net.pth"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(1, 1, 32, 64)", "3", "(40, 30)"]
