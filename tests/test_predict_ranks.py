"""predict.py under torchrun: ranks share the files; a late one, or a file that one cannot read, stops no other."""

import csv
import time
from dataclasses import replace
from unittest import mock

import cv2
import numpy as np

import predict
from models import build_model
from recipes import RECIPES
from tests.support.shallow import SMALL
from tests.support.strict_group import under_torchrun
from utils import checkpoint
from utils.config import to_dict
from utils.distributed import is_main
from utils.errors import UserError


def segment(folder):
    """Segment the pictures of `folder`; rank 1 comes late, when masks of rank 0 are there. Returns what is wrong."""
    original = predict.mask_paths

    def late(*args):
        time.sleep(0 if is_main() else 2)
        return original(*args)

    words = ["--checkpoint", folder / "net.pth", "--input", folder, "--output_dir", folder / "masks", "--device", "cpu"]
    with mock.patch.object(predict, "mask_paths", late):
        try:
            predict.main([*map(str, words)])
        except UserError as error:
            return str(error)
    return ""


def test_ranks_share_the_files_whatever_one_of_them_meets(tmp_path):
    """Rank 0 fails at once at a file, while rank 1 still works."""
    cfg = replace(RECIPES["cvc_clinicdb"], img_size=(32, 32), **SMALL)
    state = {"format": "heteromedseg", "model": build_model(1, **SMALL).state_dict(), "config": to_dict(cfg)}
    checkpoint.save(tmp_path / "net.pth", state | {"class_names": ["polyp"], "selection": "last"})
    (tmp_path / "0.png").write_bytes(b"no picture")
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((32, 40, 3), 90, np.uint8))
    first, second = under_torchrun(2, segment, tmp_path)
    assert first.startswith(f"1 of 4 inputs were not segmented:\n  {tmp_path / '0.png'}: ")
    assert second == ""
    masks = ["a_mask.png", "b_mask.png", "c_mask.png"]
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [*masks, "summary.csv"]
    with (tmp_path / "masks" / "summary.csv").open(encoding="utf-8") as file:
        assert [row["mask"] for row in csv.DictReader(file)] == masks
