"""python -m tools.model_card: facts from the files alone, results of these weights only, code that runs."""

import re
from dataclasses import replace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch

from isic_polyp_rectal.task import CVC_CLINICDB
from models.build import build_model, make_network
from tests.support.released import to_released
from tests.support.result_folders import write_result
from tests.support.shallow import SMALL
from tools import model_card
from utils import checkpoint
from utils.config import Config, to_dict
from utils.errors import UserError
from utils.preprocess import SLICES

CFG = replace(CVC_CLINICDB, dataset="/somewhere/my_polyps", img_size=(32, 48), epochs=9, seed=77, **SMALL)
CFG = replace(CFG, pretrained="/elsewhere/base.pth")
SPLIT = "8 train + 2 test images, split by image: patients or videos may be in both parts; fold 0 of 2"


def save(path, cfg: Config = CFG, **changed):
    """A checkpoint as training writes it, with fresh weights."""
    torch.manual_seed(0)
    state = {
        "format": "heteromedseg",
        "config": to_dict(cfg),
        "class_names": ["polyp"] if cfg.num_classes == 1 else [f"organ {k}" for k in range(1, cfg.num_classes)],
        "split": SPLIT,
        "epoch": 7,
        "iteration": 1234,
        "selection": "validation",
        "model": build_model(cfg.num_classes, cfg.ssd, **SMALL).state_dict(),
    }
    checkpoint.save(path, state | changed)
    return path


@pytest.fixture(scope="module", autouse=True)
def quickly():
    """No test here looks at fresh weights."""
    with mock.patch("torch.nn.init.trunc_normal_"):
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "best_model.pth")


def results_of(weights, folder, **meta):
    origin = {"file": "best_model.pth", "sha256": checkpoint.sha256(weights), "selection": "validation"}
    return write_result(folder, classes=("polyp",), **{"checkpoints": [origin], "dataset": "my_polyps"} | meta)


def write_card(path, *words):
    model_card.main([str(word) for word in words] + ["--output", str(path)])
    return path.read_text(encoding="utf-8")


def test_every_fact_is_the_checkpoints(weights, tmp_path):
    text = write_card(tmp_path / "card.md", "--checkpoint", weights)
    num_parameters = sum(p.numel() for p in build_model(1, **SMALL).parameters())
    for fact in (
        "# Model card: HeteroMedSeg, my_polyps",
        checkpoint.sha256(weights),
        f"{num_parameters:,} parameters, SSD form causal",
        "RGB images, resized to 32x48 (height x width)",
        "the best mean Dice on the validation part",
        "7 epochs when these weights were kept, 1,234 updates; the run was set to 9 epochs",
        SPLIT,
        "| `--lr` | 0.0006 |",
        "| `--seed` | 77 |",
        "| `--pretrained` | base.pth |",
        "Split by image: images of one patient or video may be in both parts",
        "Not a medical device",
        "None were given",
    ):
        assert fact in text
    for heading in ("Data", "Training", "Results", "Intended use", "Out of scope", "Limits", "How to use it"):
        assert f"\n## {heading}\n" in text
    assert "/somewhere" not in text
    assert "/elsewhere" not in text
    assert "chosen by their result on the test part" not in text


def test_another_network_is_called_by_its_name(tmp_path):
    """Nothing on the card is of HeteroMedSeg alone: neither its name, nor the form of SSD, nor its settings."""
    pytest.importorskip("dynamic_network_architectures")
    cfg = replace(CFG, network="nnunet_plain", pretrained="none")
    model = make_network(cfg)
    path = save(tmp_path / "unet.pth", cfg, model=model.state_dict())
    text = write_card(tmp_path / "card.md", "--checkpoint", path)
    assert "# Model card: nnunet_plain, my_polyps" in text
    assert f"| network | nnunet_plain, {sum(p.numel() for p in model.parameters()):,} parameters |" in text
    flags = [f"`--{name}" for name in ("skips", "decoder", "width", "variant", "drop_path", "recompute")]
    for words in ("HeteroMedSeg", "SSD", "vssd", *flags):
        assert words not in text
    for words in ("| `--network` | nnunet_plain |", "| `--pretrained` | none |", "| `--lr` | 0.0006 |"):
        assert words in text


@pytest.mark.parametrize(
    ("fit", "seen", "limit"),
    [
        ("squash", "resized to 32x48 (height x width)", "Images are resized to 32x48: what is only a pixel or two"),
        (
            "pad",
            "resized to fit into 32x48 (height x width), their aspect kept, the rest filled up with 0",
            "Images are resized to fit into 32x48: what is only a pixel or two",
        ),
        (
            "slide",
            "at their own resolution, through overlapping windows of 32x48 (height x width)",
            "The network sees a window of 32x48 at a time",
        ),
    ],
)
def test_how_images_are_fitted(tmp_path, fit, seen, limit):
    cfg = replace(CFG, fit=fit, preprocess=replace(CFG.preprocess, fit=fit))
    text = write_card(tmp_path / "card.md", "--checkpoint", save(tmp_path / "polyps.pth", cfg))
    assert f"| input | RGB images, {seen} |" in text
    assert f"- {limit}" in text
    assert text.count("Images are resized") == (fit != "slide")


def test_a_card_names_no_folder_of_the_weights_that_training_began_with(tmp_path):
    cfg = replace(CFG, init="/elsewhere/first.pth", pretrained="none")
    text = write_card(tmp_path / "card.md", "--checkpoint", save(tmp_path / "polyps.pth", cfg))
    assert "| `--init` | first.pth |" in text
    assert "/elsewhere" not in text


def test_an_onnx_file_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"ONNX")
    with pytest.raises(UserError, match=r"net\.onnx: an ONNX file lacks .*; give the checkpoint that it was"):
        write_card(tmp_path / "card.md", "--checkpoint", tmp_path / "net.onnx")


def test_results_of_these_weights(weights, tmp_path):
    folders = [
        results_of(weights, tmp_path / "run" / "test_standard"),
        results_of(weights, tmp_path / "legacy", protocol="legacy", dataset="/data/other"),
    ]
    text = write_card(tmp_path / "card.md", "--checkpoint", weights, "--results", *folders)
    assert "### test part, protocol standard" in text
    assert re.search(r"polyp +12 +0 +0 +75\.\d\d \[7\d\.\d\d, 7\d\.\d\d\]", text)
    assert "bootstrap over cases, 95 %" in text
    assert text.count("surface tolerance") == text.count("surface tolerance 2 px; ") == 1
    assert "Measured on another data set (other) than it was trained on (my_polyps)." in text
    assert "a missed class has distance 0" in text
    alone = write_card(tmp_path / "alone.md", "--checkpoint", weights, "--results", tmp_path / "run")
    assert "another data set" not in alone
    assert "a missed class has distance 0" not in alone


@pytest.mark.parametrize(
    ("hashes", "words"),
    [
        (["ab" * 32], r"made with other.pth \(abababababab…\); expected .*best_model.pth \(.*…\) alone"),
        (["ours", "ab" * 32], r"made with other.pth \(.*…\) and other.pth \(abababababab…\); expected .* alone"),
    ],
)
def test_results_of_other_weights_are_refused(weights, tmp_path, hashes, words):
    ours = checkpoint.sha256(weights)
    origins = [{"file": "other.pth", "sha256": ours if h == "ours" else h} for h in hashes]
    folder = results_of(weights, tmp_path / "results", checkpoints=origins)
    with pytest.raises(UserError, match=words):
        write_card(tmp_path / "card.md", "--checkpoint", weights, "--results", folder)
    assert not (tmp_path / "card.md").exists()


def test_a_card_is_not_overwritten(weights, tmp_path):
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("edited by hand")
    with pytest.raises(UserError, match="is there already; give --force"):
        write_card(card, "--checkpoint", weights)
    with pytest.raises(UserError, match="is there already"):  # a folder stands for the card in it
        model_card.main(["--checkpoint", str(weights), "--output", str(tmp_path)])
    assert card.read_text(encoding="utf-8") == "edited by hand"
    assert write_card(card, "--checkpoint", weights, "--force").count("# Model card") == 1
    with pytest.raises(UserError, match="no folder"):
        write_card(tmp_path / "nowhere" / "card.md", "--checkpoint", weights)


def test_the_card_lies_beside_the_checkpoint(weights):
    card = weights.parent / "MODEL_CARD.md"
    model_card.main(["--checkpoint", str(weights)])
    assert card.read_text(encoding="utf-8").count("# Model card") == 1
    card.unlink()


def test_groups_in_both_parts_are_a_limit(tmp_path):
    for words, limited in (("split by image: 25 groups in both parts", True), ("split by group: 4 + 1 groups", False)):
        path = save(tmp_path / "polyps.pth", CFG, split=f"8 train + 2 test images, {words}")
        text = write_card(tmp_path / "card.md", "--checkpoint", path, "--force")
        assert ("Split by image: images of one patient or video may be in both parts" in text) == limited


def test_its_python_code_segments_an_image(weights, tmp_path, monkeypatch):
    text = write_card(tmp_path / "card.md", "--checkpoint", weights)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    cv2.imwrite(str(tmp_path / "IMAGE.png"), np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))
    monkeypatch.chdir(weights.parent)
    names: dict = {}
    exec(code.replace('"IMAGE"', repr(str(tmp_path / "IMAGE.png"))), names)
    assert names["mask"].shape == (40, 56)
    assert names["mask"].dtype == bool


def test_selection_on_the_test_part_and_labels_of_volumes(tmp_path):
    cfg = replace(CFG, recipe="synapse", preprocess=SLICES, num_classes=3, pretrained="auto", ssd="noncausal")
    path = save(tmp_path / "organs.pth", cfg, selection="test; best of 2 folds", split="lists of lists_Synapse")
    text = write_card(tmp_path / "card.md", "--checkpoint", path)
    assert "**The weights were chosen by their result on the test part" in text
    assert "selection on the test set, results are optimistic; best of 2 folds |" in text
    assert "single-channel slices of volumes" in text
    assert "1 organ 1, 2 organ 2" in text
    assert "each slice is segmented on its own" in text
    assert "SSD form noncausal" in text
    assert "whether it was is unknown to the checkpoint" in text
    assert "in both parts" not in text


def test_names_are_shown_literally(tmp_path):
    """Nothing in a name becomes HTML, emphasis or a column of a table, and code stays code."""
    cfg = replace(CFG, recipe="synapse", num_classes=3, dataset="/data/<my|data>")
    path = save(tmp_path / 'a "b" <c>.pth', cfg, class_names=["liv|er <b>", "_a_ *b* c_d [e](f)"])
    text = write_card(tmp_path / "card.md", "--checkpoint", path)
    assert r"| classes | 1 liv\|er \<b>, 2 \_a\_ \*b\* c_d \[e\](f) |" in text
    assert r"- data set: \<my\|data>" in text
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)<", prose)
    assert eval(re.search(r"Predictor\.load\((.*?)\)", text)[1]) == path.name


def test_released_weights_say_little(tmp_path):
    path = tmp_path / "synapse_84.00.pth"
    torch.save(to_released(build_model(9)), path)
    with pytest.raises(UserError, match="name their recipe"):
        write_card(tmp_path / "card.md", "--checkpoint", path)
    text = write_card(tmp_path / "card.md", "--checkpoint", path, "--recipe", "Synapse")
    assert "| trained for | unknown (the file does not say) |" in text
    assert "- data set: unknown (the file does not say)" in text
    assert "whether it is how these weights were made is unknown" in text
    assert "--recipe synapse" in text
    assert "seed" not in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert 'recipes=RECIPES, recipe="synapse")' in code
    with pytest.raises(UserError, match="--recipe nonsense: no such recipe"):
        write_card(tmp_path / "other.md", "--checkpoint", path, "--recipe", "nonsense")


def test_a_name_cannot_end_the_block_of_figures():
    assert model_card.in_fence("a ``` b\n````<b>").count("```") == 0
    assert model_card.in_fence("class  n\nliver  `3`") == "class  n\nliver  `3`"
