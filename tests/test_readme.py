"""The README's Python lines, run as they stand."""

import doctest
import re
from dataclasses import replace

import numpy as np
import torch

from datasets.phantom.organs import CLASS_NAMES
from models import build_model
from recipes import RECIPES
from tests.support.places import ROOT
from utils import checkpoint
from utils.config import to_dict


def test_the_python_lines_give_what_the_readme_shows(tmp_path, monkeypatch):
    import SimpleITK as sitk

    torch.manual_seed(0)
    cfg = replace(RECIPES["synapse"], img_size=(32, 32))
    state = {"format": "heteromedseg", "model": build_model(9).state_dict(), "config": to_dict(cfg)}
    checkpoint.save(tmp_path / "best_model.pth", state | {"class_names": list(CLASS_NAMES), "selection": "last"})
    hu = np.random.default_rng(0).integers(-1000, 1000, (3, 20, 24), dtype=np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / "scan.nii.gz"))
    monkeypatch.chdir(tmp_path)
    section = re.search(r"### From Python\n(.*?)\n### ", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    lines = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    assert len(lines.examples) >= 8
    assert doctest.DocTestRunner().run(lines).failed == 0
