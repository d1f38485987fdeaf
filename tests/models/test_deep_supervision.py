"""Heads on the decoder's coarser stages: in training only, in no loaded network, the weights of nnU-Net."""

import pytest
import torch
import torch.nn.functional as F

from datasets.images.make_split import split_dataset
from models.build import build_network, load_network
from tests.support.shallow import shallow_model
from tests.support.toy import assert_same_weights
from tests.support.trees import write_picture_tree
from train import main
from utils import checkpoint
from utils.config import Config
from utils.training.losses import loss_for, mean_over_stages

SMALL = ("--width", "32", "--encoder_depths", "1,1,1", "--decoder_depths", "1,1,1", "--pretrained", "none")


def deep_model(num_classes=3):
    model = shallow_model(num_classes)
    model.supervise_deeply()
    return model


def test_training_gives_logits_of_each_stage_and_evaluation_those_of_the_network():
    plain, deep = shallow_model(3), deep_model()
    image, keep = torch.randn(2, 1, 50, 70), torch.ones(6, 2, 2)
    stages = deep.train()(image, keep)
    assert [stage.shape for stage in stages] == [(2, 3, 50, 70)] * 3
    assert torch.equal(stages[0], plain.train()(image, keep))
    for stage, side in zip(stages[1:], (8, 16)):
        blocks = F.pad(stage, (0, -70 % side, 0, -50 % side), mode="replicate")
        blocks = blocks.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        assert torch.equal(blocks.amax((3, 5)), blocks.amin((3, 5))), "one value for each pixel of the stage's map"
        assert float(blocks.detach().std()) > 0
    assert torch.equal(deep.eval()(image), plain.eval()(image))


def test_every_head_learns():
    model = deep_model().train()
    target = torch.randint(0, 3, (2, 64, 64))
    mean_over_stages(loss_for("ce_dice", 3), model(torch.randn(2, 1, 64, 64)), target).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if name.startswith("deep_heads"):
            assert parameter.grad.any(), name


def test_stages_count_half_as_much_each():
    loss, target = loss_for("ce", 3), torch.randint(0, 3, (2, 8, 8))
    stages = [torch.randn(2, 3, 8, 8) for _ in range(3)]
    each = [loss(stage, target) for stage in stages]
    expected = (4 * each[0] + 2 * each[1] + each[2]) / 7
    torch.testing.assert_close(mean_over_stages(loss, stages, target), expected)
    assert torch.equal(mean_over_stages(loss, stages[0], target), each[0])


def test_the_network_starts_as_it_would_without(tmp_path):
    torch.manual_seed(1)
    plain, _ = build_network(Config(pretrained="none"), torch.device("cpu"))
    torch.manual_seed(1)
    deep, notes = build_network(Config(pretrained="none", deep_supervision=True), torch.device("cpu"))
    found = deep.state_dict()
    assert all(torch.equal(found[name], value) for name, value in plain.state_dict().items())
    assert "23,438,334 parameters" in notes[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two epochs at once, and of one epoch and another after --resume."""
    folder = tmp_path_factory.mktemp("deep")
    tree = write_picture_tree(folder / "data")
    split_dataset(tree, 0.8)
    flags = ("--dataset", str(tree), *SMALL, "--img_size", "32", "--batch", "4", "--folds", "2", "--workers", "0")
    flags += ("--device", "cpu", "--precision", "fp32", "--deep_supervision", "--ema", "0.9", "--schedule_epochs", "2")
    whole, parts = (str(folder / name) for name in ("whole", "parts"))
    main([*flags, "--epochs", "2", "--output_dir", whole])
    main([*flags, "--epochs", "1", "--output_dir", parts])
    main(["--resume", "--epochs", "2", "--output_dir", parts])
    return folder


def test_a_resumed_run_keeps_its_heads(runs):
    whole, parts = (checkpoint.read(runs / name / "epoch_last.pth") for name in ("whole", "parts"))
    assert sum(name.startswith("deep_heads.") for name in whole["model"]) == 8
    assert_same_weights(whole["model"], parts["model"])
    assert_same_weights(whole["ema"], parts["ema"])


@pytest.mark.parametrize("name", ["best_model.pth", "epoch_last.pth"])
def test_a_loaded_network_has_no_heads_and_can_start_a_run_with_or_without(runs, name):
    path = runs / "whole" / name
    loaded = load_network(path, {}).model
    state = checkpoint.read(path)
    kept = state.get("ema") or {f"module.{key}": value for key, value in state["model"].items()}
    assert_same_weights(loaded.state_dict(), {key: kept[f"module.{key}"] for key in loaded.state_dict()})
    assert not any(key.startswith("deep_heads.") for key in loaded.state_dict())
    cfg = load_network(path, {}).trained
    for deep in (False, True):
        start = Config(
            **{key: getattr(cfg, key) for key in ("num_classes", "width", "encoder_depths", "decoder_depths")},
            init=str(path),
            deep_supervision=deep,
        )
        model, _ = build_network(start, torch.device("cpu"))
        assert len(model.deep_heads) == 2 * deep
        assert torch.equal(model.head.norm.weight, loaded.head.norm.weight)
