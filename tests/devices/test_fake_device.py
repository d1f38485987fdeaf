"""The GPU that is not there notices what would cost or fail on a real one."""

import pytest
import torch

from tests.support.fake_cuda import HostWaits, fake_device

DEVICES = [("cuda:0", False), ("cuda:0", True), ("mps:0", True)]
WAITS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu", torch.float64),
    "copied into a CPU tensor": lambda x: torch.zeros(4, 3).copy_(x),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: x.masked_select(x > 0),
    "mask assigned": lambda x: x.__setitem__(x > 0, x[0, 0]),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.int64, device=x.device), 0),
}
COPIES = {
    "to": lambda x: torch.zeros(3).to(x.device),
    "tensor": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "as_tensor": lambda x: torch.as_tensor([1.0, 2.0], device=x.device),
    "assigned": lambda x: x.__setitem__(slice(0, 2), torch.zeros(2, 3)),
    "index": lambda x: x[torch.tensor([0, 2])],
}
MISMATCHES = {
    "sum": lambda x: x + torch.zeros(4, 3),
    "product": lambda x: x @ torch.zeros(3, 2),
    "index_add": lambda x: x.index_add(0, torch.tensor([0]), torch.zeros(1, 3, device=x.device)),
    "index": lambda x: torch.zeros(4)[torch.zeros(2, dtype=torch.int64, device=x.device)],
}


def ones(device):
    return torch.ones(4, 3, device=device)


@pytest.mark.parametrize(("device", "disguised"), DEVICES)
@pytest.mark.parametrize("name", WAITS)
def test_a_value_that_comes_home_is_a_wait(name, device, disguised):
    with fake_device(device, disguised), pytest.raises(HostWaits):
        WAITS[name](ones(device))


@pytest.mark.parametrize(("device", "disguised"), DEVICES)
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_to_the_device_is_noted(name, device, disguised):
    with fake_device(device, disguised) as watch:
        COPIES[name](ones(device))
    assert len(watch.copies) == 1


def test_new_tensor_is_a_copy():
    """PyTorch makes it in place on the `meta` behind a disguise, where it cannot be seen."""
    with fake_device("cuda:0") as watch:
        ones("cuda:0").new_tensor(3.0)
    assert len(watch.copies) == 1


@pytest.mark.parametrize(("device", "disguised"), DEVICES)
@pytest.mark.parametrize("name", MISMATCHES)
def test_tensors_of_two_devices_do_not_meet(name, device, disguised):
    with fake_device(device, disguised), pytest.raises((RuntimeError, AssertionError), match=r"device|indexed"):
        MISMATCHES[name](ones(device))


@pytest.mark.parametrize(("device", "disguised"), DEVICES)
def test_plain_work_is_neither(device, disguised):
    with fake_device(device, disguised) as watch:
        x = ones(device)
        y = torch.where(x > 0, x * 2, x.mean()).softmax(1) + torch.arange(3, device=x.device)
        z = y.new_zeros(4, 3).index_add_(0, y.argmax(0), y[:3])
        z[1:3] = 7
        torch.randn(4, generator=torch.Generator(device).manual_seed(3), device=device)
        assert torch.tensor([1, 2]).sum().item() == 3, "the CPU is real"
        assert z.device == torch.device(device)
    assert (watch.copies, watch.waits, watch.doubles) == ([], [], [])


def test_values_may_come_home_where_it_is_allowed():
    with fake_device("cuda:0", may_wait=("tests::",)) as watch:
        assert ones("cuda:0").sum().item() == 0
        assert ones("cuda:0").cpu().numpy().shape == (4, 3)
    assert len(watch.waits) == 2


@pytest.mark.parametrize("make", [lambda d: ones(d).double(), lambda d: torch.zeros(2, device=d, dtype=torch.float64)])
def test_double_precision_is_noted(make):
    with fake_device("mps:0", disguised=True) as watch:
        make("mps:0")
    assert len(watch.doubles) == 1


def test_apple_adds_no_int64_at_indices():
    with fake_device("mps:0", disguised=True):
        counts = torch.zeros(4, 3, dtype=torch.int64, device="mps:0")
        counts.int().index_add_(0, counts[:, 0], counts.int())
        with pytest.raises(RuntimeError, match="non int64 dtype"):
            counts.index_add_(0, counts[:, 0], counts)


def test_gradients_behind_a_disguise_and_autocast_without():
    with fake_device("mps:0", disguised=True):
        x = ones("mps:0").requires_grad_()
        (x * 2).sum().backward()
        assert x.grad.device == torch.device("mps:0")
    with fake_device("cuda:0"), torch.autocast("cuda", torch.bfloat16):
        assert (ones("cuda:0") @ ones("cuda:0").T).dtype == torch.bfloat16
