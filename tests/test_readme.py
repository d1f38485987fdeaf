"""The README's Python lines, run as they stand, and its commands, as far as their flags go."""

import doctest
import re
import shlex
from dataclasses import replace

import numpy as np
import torch

from datasets.phantom.organs import CLASS_NAMES
from datasets.prepare.command import build_parser
from models import build_model
from models.baselines import NAMES
from models.build import NETWORKS
from recipes import RECIPES
from tests.support.places import ROOT
from tests.support.shallow import SMALL
from utils import checkpoint
from utils.command_line import parse_flags
from utils.config import PREDICT, TEST, TRAIN, to_dict


def test_the_python_lines_give_what_the_readme_shows(tmp_path, monkeypatch):
    import SimpleITK as sitk

    torch.manual_seed(0)
    cfg = replace(RECIPES["synapse"], img_size=(32, 32), **SMALL)
    state = {"format": "heteromedseg", "model": build_model(9, **SMALL).state_dict(), "config": to_dict(cfg)}
    checkpoint.save(tmp_path / "best_model.pth", state | {"class_names": list(CLASS_NAMES), "selection": "last"})
    hu = np.random.default_rng(0).integers(-1000, 1000, (3, 20, 24), dtype=np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / "scan.nii.gz"))
    monkeypatch.chdir(tmp_path)
    section = re.search(r"## From Python\n(.*?)\n## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    lines = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    assert len(lines.examples) >= 8
    assert doctest.DocTestRunner().run(lines).failed == 0


def test_every_command_names_flags_that_there_are():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    more = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (?:python|torchrun \S+) (\w+)\.py (.*?)(?: {2,}#.*)?$", text + more, re.MULTILINE)
    verbs = {"train": TRAIN, "test": TEST, "predict": PREDICT}
    for script, words in commands:
        if script in verbs:
            parse_flags(shlex.split(words), verbs[script], "")
        elif script == "prepare_data":
            build_parser("").parse_args(shlex.split(words))
    assert {"train", "test", "predict", "prepare_data", "data_split_csv"} <= {script for script, _ in commands}
    named = re.search(r"\| `--network` \| (.*) \|", text)[1]
    assert set(re.findall("`([^`]+)`", named)) == {*NETWORKS, *NAMES}
