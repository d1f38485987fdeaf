"""Several ranks compute what one process computes: validation, losses, training, resuming, `--fold all`.

Every group is as strict as GPUs under NCCL (`tests/support/strict_group.py`).
"""

import functools
import re
import warnings
from unittest import mock

import pytest
import torch

import train as train_script
from tests.support.commands import SMALL_NETWORK
from tests.support.strict_group import DEVICE, on_ranks, under_torchrun
from tests.support.toy import losses, train_toy
from tests.support.trees import write_synapse_tree
from utils import checkpoint
from utils.distributed import all_reduce_sum, barrier, is_main, rank, smallest_of_ranks, world_size
from utils.log import LOGGER, log_once
from utils.training.folder import LAST
from utils.training.losses import BINARY, MULTI_CLASS
from utils.training.validation import ValidationSet

CPU = torch.device("cpu")


# --- the strict group itself ------------------------------------------------------------------------


def misuse():
    """What the group says to three mistakes; a fourth, a collective that rank 1 lacks, ends it."""

    def in_another_order():
        for call in (barrier, functools.partial(smallest_of_ranks, 3, DEVICE))[:: 1 if rank() else -1]:
            call()

    said = []
    for mistake in (
        lambda: all_reduce_sum(torch.zeros(2, device="cpu" if rank() else DEVICE)),
        lambda: all_reduce_sum(torch.zeros(2 + rank(), device=DEVICE)),
        in_another_order,
        lambda: torch.zeros(2, device=DEVICE) + torch.zeros(2),
    ):
        with pytest.raises(RuntimeError) as error:
            mistake()
        said.append(str(error.value))
    if is_main():
        with pytest.raises(RuntimeError, match=r"calls are .*barrier.*the end"):
            barrier()
        raise RuntimeError("\n".join(said))


def test_the_group_refuses_what_nccl_would():
    with pytest.raises(RuntimeError) as error:
        on_ranks(2, misuse)
    host, shape, order, devices = str(error.value).splitlines()
    assert re.search(r"calls are .*\(2,\) on the device.*\(2,\) on the host", host)
    assert re.search(r"calls are .*\(2,\) .*\(3,\) ", shape)
    assert re.search("calls are .*all_reduce.*barrier", order)
    assert "expected all tensors on one device" in devices


# --- what the ranks compute together ----------------------------------------------------------------


def reductions():
    found = smallest_of_ranks(5 - rank(), DEVICE), all_reduce_sum(torch.arange(3, device=DEVICE)).tolist()
    weight = torch.tensor([1.0, 2.0], device=DEVICE, requires_grad=True)
    all_reduce_sum(weight * (rank() + 1)).square().sum().backward()
    return *found, weight.grad.tolist()


def test_reductions_and_their_gradients():
    """s = 6w over three ranks; d(s²)/dw on rank r is 2s(r + 1), and each rank adds its own such loss."""
    expected = [(3, [0, 3, 6], [3 * 12.0 * (r + 1), 3 * 24.0 * (r + 1)]) for r in range(3)]
    assert on_ranks(3, reductions) == expected


def scores(device):
    """Dice on 1, 4 and 11 images in batches of two, through a forward function whose logits are the image."""
    found = []
    for count in (1, 4, 11):
        generator = torch.Generator().manual_seed(0)
        images, targets = torch.randint(0, 3, (2, count, 8, 8), generator=generator, dtype=torch.uint8)
        held = ValidationSet(images[:, None], targets, torch.arange(count) // 2, ("one", "two"), 3, 2, (8, 8))
        validation = held(lambda batch: torch.cat([batch.to(device) == k for k in range(3)], 1).float(), device)
        found.append((validation.dice, validation.mean_dice, len(validation.previews)))
    return found


def test_validation_with_fewer_and_more_batches_than_ranks():
    """1, 2 and 6 batches on three ranks."""
    one = scores(CPU)
    first, *others = on_ranks(3, scores, DEVICE)
    assert first == one
    assert others == [[(dice, mean, 0) for dice, mean, _ in one]] * 2


def uneven_losses(device):
    """Each loss of the images 0, 1, 2 and its gradient in a weight; the last rank has one image, the first the rest."""
    found = {}
    for classes, table in ((3, MULTI_CLASS), (1, BINARY)):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(3, classes, 4, 4, generator=generator)
        target = torch.randint(0, max(classes, 2), (3, 4, 4), generator=generator)
        share = slice(None) if world_size() == 1 else slice(0, 2) if is_main() else slice(2, 3)
        logits, target = logits[share].to(device), target[share].to(device)
        for name, loss in table.items():
            if name == "lovasz":  # computed for each process on its own
                continue
            weight = torch.ones(classes, 1, 1, device=device, requires_grad=True)
            value = loss(logits * weight, target)
            value.backward()
            gradient = all_reduce_sum(weight.grad) / world_size()  # as DistributedDataParallel does
            found[name, classes] = [value.item(), *gradient.flatten().tolist()]
    return found


def test_losses_and_gradients_over_uneven_shares():
    one = uneven_losses(CPU)
    for found in on_ranks(2, uneven_losses, DEVICE):
        assert found.keys() == one.keys()
        for key, values in one.items():
            assert found[key] == pytest.approx(values, rel=1e-4, abs=1e-6), key


# --- training ---------------------------------------------------------------------------------------


def train(folder, device, fields):
    train_toy(folder, device=device, **fields)


def assert_same_run(one, several):
    assert losses(several) == pytest.approx(losses(one), rel=1e-5)
    for name in ("mean_dice", "lr", "iteration"):
        assert [r[name] for r in several["history"]] == pytest.approx([r[name] for r in one["history"]], abs=1e-3)
    for kind in ("model", "ema"):
        for name, value in (one[kind] or {}).items():
            torch.testing.assert_close(several[kind][name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("world", "fields"),
    [
        (3, {"ema": 0.9, "accumulate": 2, "clip_grad": 0.5}),  # batches of 4, 4 and 3 images: shares of 2 + 1 + 1
        (2, {"optimizer": "adam", "loss": "ce", "drop_last": True}),
    ],
)
def test_ranks_train_the_run_of_one_process(tmp_path, world, fields):
    one = train_toy(tmp_path / "one", **fields)
    on_ranks(world, train, tmp_path / "several", DEVICE, fields)
    assert_same_run(one, checkpoint.read(tmp_path / "several" / LAST))


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    """One process, then three, then two."""
    one = train_toy(tmp_path / "one", ema=0.9)
    train_toy(tmp_path / "several", ema=0.9, epochs=1)
    on_ranks(3, train, tmp_path / "several", DEVICE, {"ema": 0.9, "epochs": 2, "resume": True})
    on_ranks(2, train, tmp_path / "several", DEVICE, {"ema": 0.9, "epochs": 4, "resume": True})
    assert_same_run(one, checkpoint.read(tmp_path / "several" / LAST))


def train_compiled(folder):
    """`--compile` without generating code, which takes long: it is tracing that meets the collectives."""
    with mock.patch.object(torch, "compile", functools.partial(torch.compile, backend="aot_eager")):
        train_toy(folder, compile=True, epochs=2)


def test_compiled_ranks_train_the_run_of_one_process(tmp_path):
    one = train_toy(tmp_path / "one", epochs=2)
    on_ranks(2, train_compiled, tmp_path / "several", fake_device=False)
    assert_same_run(one, checkpoint.read(tmp_path / "several" / LAST))


def warnings_of_ranks():
    """The lines that each rank logs of one message and one warning that all give."""
    with mock.patch.object(LOGGER, "info") as info:
        log_once("chosen")
        log_once(f"warning: file {rank()}")
    return [call.args[1] for call in info.mock_calls]


def test_every_rank_warns_of_its_own_files():
    assert on_ranks(2, warnings_of_ranks) == [["chosen", "warning: file 0"], ["warning: file 1"]]


# --- the command ------------------------------------------------------------------------------------


def train_command(out, tree):
    """Train for an epoch; returns the most images that this process validated together."""
    warnings.simplefilter("error", FutureWarning)
    flags = ["--dataset", tree, "--list_dir", tree / "lists", "--output_dir", out, "--img_size", 32, "--epochs", 1]
    flags += ["--batch_size", 5, "--precision", "fp32", "--device", "cpu", "--val_cases", 1, "--schedule", "cosine"]
    with mock.patch.object(ValidationSet, "look", autospec=True, side_effect=ValidationSet.look) as look:
        train_script.main([*map(str, flags), *map(str, SMALL_NETWORK)])
    return max(len(chosen) for _, _, chosen in (call.args for call in look.mock_calls))


def test_ranks_of_torchrun_give_the_losses_of_one_process(tmp_path):
    """8 training slices in global batches of 5 and 3, cut 3 + 2 and 2 + 1 between the ranks; 4 to validate."""
    tree = write_synapse_tree(tmp_path / "tree", num_cases=3, slices=4, size=32)
    assert train_command(tmp_path / "one", tree) == 4
    assert under_torchrun(2, train_command, tmp_path / "two", tree) == [2, 2]
    (one,), (two,) = (checkpoint.read(tmp_path / name / LAST)["history"] for name in ("one", "two"))
    assert "x 2 processes" in (tmp_path / "two" / "log.txt").read_text(encoding="utf-8")
    assert two["loss"] == pytest.approx(one["loss"], rel=2e-5)
    assert two["mean_dice"] == pytest.approx(one["mean_dice"], abs=0.02, nan_ok=True)
