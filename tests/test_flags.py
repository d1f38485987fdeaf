"""Flags of train.py and test.py that go together with others, with the data or with the machine."""

import pytest

import train as train_script
from utils.config import AUTO_BATCH
from utils.errors import UserError


def test_each_process_needs_an_image(monkeypatch, tmp_path):
    monkeypatch.setattr(train_script, "world_size", lambda: 2)
    monkeypatch.setattr(train_script, "init_distributed", lambda device: None)
    with pytest.raises(UserError, match="--batch_size 1: each of the 2 processes needs at least one image"):
        train_script.main(["--dataset", "phantom", "--batch_size", "1", "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_schedule_of_ones_own_is_as_long_as_the_training():
    recipe = ["--dataset", "cvc_clinicdb", "--epochs", "15"]
    assert train_script.configure(recipe).schedule_epochs == 200  # the published schedule
    assert train_script.configure([*recipe, "--schedule", "cosine"]).schedule_epochs == 0
    assert train_script.configure([*recipe, "--schedule", "cosine", "--schedule_epochs", "30"]).schedule_epochs == 30


def test_a_warm_up_goes_with_the_schedule_that_has_one():
    assert train_script.configure(["--dataset", "phantom"]).warmup_epochs == 1
    assert train_script.configure(["--dataset", "phantom", "--schedule", "cosine"]).warmup_epochs == 1
    assert train_script.configure(["--dataset", "phantom", "--schedule", "warm_restarts"]).warmup_epochs == 0
    with pytest.raises(UserError, match=r"--warmup_epochs: --schedule warm_restarts has no warm-up"):
        train_script.configure(["--dataset", "synapse", "--warmup_epochs", "5"])


@pytest.mark.parametrize(("flag", "value"), [("--fold", "3"), ("--fold", "all"), ("--folds", "5")])
def test_folds_are_refused_where_the_data_has_none(flag, value):
    with pytest.raises(UserError, match=f"{flag}.*: recipe synapse has no folds; use --val_cases"):
        train_script.main(["--dataset", "synapse", flag, value])


def test_a_resumed_run_takes_the_words_that_it_was_begun_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "biformer_base_best.pth").touch()
    given = {"batch_size": AUTO_BATCH, "pretrained": "biformer", "pretrained_vssd": "none", "epochs": 3}
    recorded = {"pretrained": "biformer_base_best.pth", "pretrained_vssd": "none", "epochs": 3}
    assert train_script.as_recorded(given) == recorded
    assert train_script.as_recorded({"batch_size": 4}) == {"batch_size": 4}


@pytest.mark.parametrize(
    "flag",
    [
        "--ssd noncausal",
        "--drop_path 0.3",
        "--width 64",
        "--variant gated_z",
        "--recompute yes",
        "--pretrained_vssd a.pth",
    ],
)
def test_other_networks_refuse_the_flags_of_ours(flag):
    words = ["--dataset", "cvc_clinicdb", "--network", "unet_resnet34"]
    with pytest.raises(UserError, match=f"{flag}: only for --network heteromedseg; leave it out"):
        train_script.configure([*words, *flag.split()])
    for allowed in ("--recompute no", "--pretrained_vssd none", "--deep_supervision False", "--decoder bra"):
        train_script.configure([*words, *allowed.split()])


def test_imagenet_weights_are_those_of_other_networks():
    with pytest.raises(UserError, match="--pretrained imagenet: only for networks of segmentation_models_pytorch"):
        train_script.configure(["--dataset", "cvc_clinicdb", "--pretrained", "imagenet"])
