"""predict.py under torchrun: a rank that comes late must not take the masks of an early one for old ones."""

import subprocess
import sys

import cv2
import numpy as np

from models import build_model
from recipes import RECIPES
from tests.support.places import ROOT
from utils import checkpoint
from utils.config import to_dict

SCRIPT = """
import os, sys, time
sys.path.insert(0, {root!r})
import predict
from utils.errors import run_main

check = predict.mask_paths

def late(*args):
    if os.environ["RANK"] == "1":
        time.sleep(4)
    return check(*args)

predict.mask_paths = late
run_main(predict.main)
"""


def test_a_late_rank_does_not_refuse_the_masks_of_an_early_one(tmp_path):
    cfg = RECIPES["cvc_clinicdb"]
    state = {"format": "heteromedseg", "model": build_model(1).state_dict(), "config": to_dict(cfg)}
    checkpoint.save(tmp_path / "net.pth", state | {"class_names": ["polyp"], "selection": "last"})
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((32, 40, 3), 90, np.uint8))
    (tmp_path / "script.py").write_text(SCRIPT.format(root=str(ROOT)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "script.py"]
    command += ["--checkpoint", "net.pth", "--input", "a.png", "b.png", "--output_dir", "masks", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a_mask.png", "b_mask.png"]
