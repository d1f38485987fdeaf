"""What a checkpoint says of itself is not believed: checksum, kinds of tensors, every field, every setting."""

import contextlib
import dataclasses
import math

import pytest
import torch

import test as test_script
from models.build import load_network
from recipes import RECIPES
from tests.support.shallow import shallow_model
from tests.support.toy import ToyNetwork, saved_state, toy_config, toy_task, train_toy
from utils import checkpoint
from utils.checkpoint_content import CHECKSUM, FIELDS, checksum, compare
from utils.config import Config, from_dict, to_dict
from utils.errors import UserError
from utils.training.folder import LAST
from utils.training.resume import restore
from utils.training.run import start

# --- the checksum ---------------------------------------------------------------------------------


def flip(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_no_flipped_bit_in_the_weights_goes_unnoticed(tmp_path):
    path = tmp_path / "a.pth"
    weights = torch.arange(1.0, 501.0)
    checkpoint.save(path, {"model": {"w": weights}})
    content = path.read_bytes()
    first = content.index(weights.numpy().tobytes())
    for place in range(first, first + 2000, 10):
        path.write_bytes(content)
        flip(path, place, place % 8)
        with pytest.raises(UserError, match=r"a\.pth: its content is not what was saved"):
            checkpoint.read(path)


@pytest.mark.parametrize("changed", [{"epoch": 4}, {"model": {"w": torch.zeros(3, dtype=torch.float64)}}, {"more": 1}])
def test_any_other_content_is_noticed(tmp_path, changed):
    state = {"epoch": 3, "model": {"w": torch.zeros(3)}}
    torch.save(state | changed | {CHECKSUM: checksum(state)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="its content is not what was saved"):
        checkpoint.read(tmp_path / "a.pth")


def test_what_is_read_is_what_was_saved_and_older_files_need_no_checksum(tmp_path):
    state = {"w": torch.randn(3, 4).t(), "n": torch.tensor(3), "b": torch.ones(2, dtype=torch.bfloat16), "e": [1, None]}
    checkpoint.save(tmp_path / "new.pth", state)
    torch.save(state, tmp_path / "old.pth")
    for name in ("new.pth", "old.pth"):
        assert checkpoint.read(tmp_path / name).keys() == state.keys()
    assert CHECKSUM in torch.load(tmp_path / "new.pth", weights_only=True)


# --- tensors and containers -----------------------------------------------------------------------


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def endless():
    value = []
    for _ in range(40):
        value = [value] * 10  # 10^40 entries from 40 lists
    return value


@pytest.mark.filterwarnings("ignore:.*[Ss]parse.*:UserWarning")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.eye(3).to_sparse(), r"model\.w is a tensor of another kind \(sparse_coo\)"),
        (torch.zeros(3, device="meta"), r"model\.w is a tensor of another kind \(without values"),
        (torch.zeros(1).expand(10**12), r"model\.w claims 1,000,000,000,000 values, more than the file holds"),
        (nested(100), "nested too deep or without end at 'model.w"),
        (endless(), "nested too deep or without end at 'model.w"),
    ],
)
def test_what_no_checkpoint_holds_is_refused(tmp_path, value, message):
    torch.save({"model": {"w": value}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: " + message):
        checkpoint.read(tmp_path / "a.pth")


def test_a_name_that_is_no_text_can_be_summed_up(tmp_path):
    state = {"model": {"\ud800": torch.zeros(1), "a": "\ud800"}, "\udfff": 1}
    torch.save(state | {CHECKSUM: "0" * 64}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"a\.pth: its content is not what was saved \(checksum {CHECKSUM} differs"):
        checkpoint.read(tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_weights_are_floating_point_numbers(dtype):
    assert "1 of integers, truth values or complex numbers: w" in compare(
        {"w": torch.zeros(2, dtype=dtype)}, {"w": (2,)}
    )


def test_weights_are_finite_and_counters_may_be_whole():
    assert compare({"a.num_batches_tracked": torch.tensor(3)}, {"a.num_batches_tracked": ()}) == ""
    assert "1 not finite: w" in compare({"w": torch.tensor([1.0, math.inf])}, {"w": (2,)})


# --- fields of our own files ----------------------------------------------------------------------

MOMENTS = {0: {"exp_avg": torch.zeros(1), "exp_avg_sq": torch.zeros(1), "step": torch.tensor(1.0)}}


def resume_from(tmp_path, changed, removed=()):
    cfg = toy_config(tmp_path, num_classes=3)
    state = {k: v for k, v in (saved_state(cfg) | changed).items() if k not in removed}
    checkpoint.save(tmp_path / LAST, state)
    run = start(ToyNetwork(), cfg, torch.device("cpu"), "fp32")
    restore(run, checkpoint.read(tmp_path / LAST), cfg, toy_task(), str(tmp_path / LAST))


JUNK = (None, "text", -1, 2.5, [1, [2]], {"a": {"b": 1}}, torch.zeros(2), {0: torch.zeros(2)}, math.nan, True, [None])


@pytest.mark.parametrize("name", list(FIELDS))
def test_junk_in_any_field_is_refused_by_its_name(tmp_path, name):
    """The few kinds of junk that a field may hold are left out."""
    fitting = {"selection": "text", "split": "text", "ema": None, "position": None}
    for value in JUNK:
        if name in fitting and type(value) is type(fitting[name]):
            continue
        with pytest.raises(UserError, match=rf"epoch_last\.pth: (its )?{name} "):
            resume_from(tmp_path, {name: value})


@pytest.mark.parametrize("name", ["config", "model", "class_names", "selection", "epoch", "best", "scaler"])
def test_a_missing_field_is_named(tmp_path, name):
    with pytest.raises(UserError, match=rf"epoch_last\.pth: lacks {name}; expected a checkpoint"):
        resume_from(tmp_path, {}, removed=[name])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"best": math.nan}, "best is 'nan'; expected a Dice between 0 and 1"),
        ({"class_names": ["a", "a"]}, r"class_names is .*expected a list of different names"),
        ({"class_names": ["a", "b", "c"]}, "3 class_names; expected 2 for 3 classes"),
        ({"class_names": ["a\x1b[31m", "b"]}, "class_names is .*expected a list of different names"),
        ({"model": ToyNetwork(4).state_dict()}, r"(?s)model is not of this run's network.*out\.weight"),
        ({"position": {"batch": 1, "loss": torch.zeros(3)}}, "position is "),
        (
            {"optimizer": {"state": MOMENTS, "param_groups": [{"params": [0, 1]}, {"params": [2, 3, 4, 5]}]}},
            "optimizer",
        ),
    ],
)
def test_fields_that_do_not_go_together(tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        resume_from(tmp_path, changed)


def test_a_place_beyond_the_epoch_is_refused(tmp_path):
    train_toy(tmp_path, epochs=1)
    state = checkpoint.read(tmp_path / LAST)
    checkpoint.save(tmp_path / LAST, state | {"position": {"batch": 4, "loss": torch.zeros(())}})
    with pytest.raises(UserError, match=r"position is batch 4; expected at most the 3 of an epoch"):
        train_toy(tmp_path, epochs=2, resume=True)


# --- the settings in a file -----------------------------------------------------------------------


def network_file(folder, monkeypatch, cfg=None, **changed):
    """A checkpoint of a small network with `changed` settings in its config."""
    model = shallow_model(9)
    monkeypatch.setattr("models.build.make_network", lambda cfg: shallow_model(9))
    settings = to_dict(cfg or Config()) | changed
    names = [f"class {k}" for k in range(1, 9)]
    state = {"format": "heteromedseg", "model": model.state_dict(), "class_names": names, "selection": "last"}
    checkpoint.save(folder / "net.pth", state | {"config": settings})
    return folder / "net.pth"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("batch_size", -1, "at least 0"),
        ("batch_size", 0, "a whole number from 1"),
        ("batch_size", True, "a whole number"),
        ("batch_size", 10**30, "at least 0 and below"),
        ("batch_size", "8", "a whole number"),
        ("img_size", [224], "2 values"),
        ("img_size", [-224, 224], "at least 1"),
        ("img_size", "224", "a list"),
        ("lr", math.nan, "a finite number"),
        ("lr", math.inf, "a finite number"),
        ("ssd", "sideways", "one of causal"),
        ("network", None, "a text"),
        ("root_path", "a\0b", "a text without control characters"),
        ("recipe", "a\x1b[2J", "a text without control characters"),
        ("output_dir", "x" * 300, "names of at most 255 bytes"),
        ("class_names", ["a", 2], "a text"),
        ("preprocess", None, "a dict of channels"),
        (
            "preprocess",
            {"channels": 2, "resize": "area", "mean": [0.5, 0.5], "std": [1.0, 1.0]},
            "channels to be one of",
        ),
        ("preprocess", {"channels": 1, "resize": "area", "mean": [0.5], "std": [0.0]}, "a mean and an std above 0"),
        ("preprocess", {"channels": 1, "resize": "best", "mean": [0.5], "std": [1.0]}, "resize to be one of"),
    ],
)
def test_a_setting_in_a_file_is_checked_as_on_the_command_line(tmp_path, monkeypatch, name, value, expected):
    path = network_file(tmp_path, monkeypatch, **{name: value})
    with pytest.raises(UserError, match=rf"net\.pth: {name} .* in its config; expected {expected}"):
        load_network(path, RECIPES)


@pytest.mark.parametrize("junk", JUNK)
def test_no_setting_takes_junk(junk):
    """Every kind of junk in every field: refused, or kept as what the command line would take."""
    for field in dataclasses.fields(Config):
        values = to_dict(Config()) | {field.name: junk}
        with contextlib.suppress(UserError):  # anything else fails the test
            value = getattr(from_dict(values, "file"), field.name)
            assert value is None or isinstance(value, str | bool) or value == 2.5, field.name


def test_a_file_decides_the_network_and_its_input_and_nothing_else(tmp_path, monkeypatch):
    evil = {"split": "val", "output_dir": "/elsewhere", "tta": True, "is_savenii": True, "debug": True, "force": True}
    evil |= {"checkpoint": ["/other.pth"], "input": ["/etc"], "device": "cuda", "precision": "fp16", "compile": True}
    evil |= {"resume": True, "protocol": "legacy", "workers": 1000, "graphs": True}
    loaded = load_network(network_file(tmp_path, monkeypatch, img_size=[64, 32], ssd="noncausal", **evil), RECIPES)
    assert (loaded.cfg.img_size, loaded.cfg.ssd) == ((64, 32), "noncausal")
    for name in evil:
        assert getattr(loaded.cfg, name) == getattr(Config(), name), name
    assert loaded.trained.debug is True


@pytest.mark.parametrize("split", ["/tmp/elsewhere", "../../up", "nowhere"])
def test_a_file_cannot_choose_where_a_test_writes(tmp_path, monkeypatch, split):
    with pytest.raises(UserError, match=r"split .* in its config; expected one of test, val, train"):
        load_network(network_file(tmp_path, monkeypatch, split=split), RECIPES)


def test_a_file_cannot_make_a_test_write_the_phantom(tmp_path, monkeypatch):
    path = network_file(tmp_path, monkeypatch, root_path=str(tmp_path / "written"), recipe="phantom")
    with pytest.raises(UserError, match=r"written: no such folder; this path is that of the training, from .*net.pth"):
        test_script.main(["--checkpoint", str(path), "--device", "cpu", "--output_dir", str(tmp_path / "out")])
    assert {p.name for p in tmp_path.iterdir()} == {"net.pth"}
