"""predict.py under torchrun: ranks share the files; a late one, or a file that one cannot read, stops no other."""

import csv
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np

from models import build_model
from recipes import RECIPES
from tests.support.places import ROOT
from tests.support.shallow import SMALL
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


def test_ranks_share_the_files_whatever_one_of_them_meets(tmp_path):
    """Rank 1 comes late, when masks of rank 0 are there; rank 0 fails at once at a file, while rank 1 still works."""
    cfg = replace(RECIPES["cvc_clinicdb"], img_size=(32, 32), **SMALL)
    state = {"format": "heteromedseg", "model": build_model(1, **SMALL).state_dict(), "config": to_dict(cfg)}
    checkpoint.save(tmp_path / "net.pth", state | {"class_names": ["polyp"], "selection": "last"})
    (tmp_path / "0.png").write_bytes(b"no picture")
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((32, 40, 3), 90, np.uint8))
    (tmp_path / "script.py").write_text(SCRIPT.format(root=str(ROOT)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "script.py"]
    command += ["--checkpoint", "net.pth", "--input", ".", "--output_dir", "masks", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("1 of 4 inputs were not segmented:\n  0.png: ") == 1
    masks = ["a_mask.png", "b_mask.png", "c_mask.png"]
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [*masks, "summary.csv"]
    with (tmp_path / "masks" / "summary.csv").open(encoding="utf-8") as file:
        assert sorted(row["mask"] for row in csv.DictReader(file)) == masks
