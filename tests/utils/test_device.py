"""Choice of device and precision, on machines that these tests only pretend to be."""

import os

import pytest
import torch

from utils import device as module
from utils.device import choose_device, choose_precision
from utils.errors import UserError

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends: number of GPUs, an Apple GPU or none, and this process' place under torchrun."""
    chosen = []

    def set_device(device):
        if torch.device(device).index is None:  # as PyTorch does
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        chosen.append(torch.device(device))

    def pretend(gpus=0, apple=False, local_rank=None, local_ranks=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "set_device", set_device)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
        for name, value in (("LOCAL_RANK", local_rank), ("LOCAL_WORLD_SIZE", local_ranks)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, str(value))
        return chosen

    return pretend


@pytest.mark.parametrize(
    ("name", "there", "expected"),
    [
        ("auto", {}, "cpu"),
        ("auto", {"apple": True}, "mps"),
        ("auto", {"gpus": 1, "apple": True}, "cuda:0"),
        ("auto", {"gpus": 4, "local_rank": 3, "local_ranks": 4}, "cuda:3"),
        ("cpu", {"gpus": 1}, "cpu"),
        ("cpu", {"gpus": 2, "local_rank": 1, "local_ranks": 4}, "cpu"),
        ("mps", {"apple": True}, "mps"),
        ("cuda", {"gpus": 1}, "cuda:0"),
        ("cuda", {"gpus": 4}, "cuda:0"),
        ("cuda", {"gpus": 4, "local_rank": 2, "local_ranks": 4}, "cuda:2"),
        ("cuda", {"gpus": 1, "local_rank": 2, "local_ranks": 4}, "cuda:0"),  # a launcher that shows each rank its GPU
        ("cuda:1", {"gpus": 2}, "cuda:1"),
        ("cuda:1", {"gpus": 2, "local_rank": 0, "local_ranks": 1}, "cuda:1"),
    ],
)
def test_device_that_each_name_means(machine, name, there, expected):
    made_current = machine(**there)
    device = choose_device(name)
    assert str(device) == expected
    assert made_current == ([device] if device.type == "cuda" else [])


@pytest.mark.parametrize("name", ["xpu", "meta", "cpu:3", "mps:2", "xla", "cuda:", "cuda:-1", "cuda:x", "gpu", ""])
def test_names_that_are_not_offered_are_refused(machine, name):
    machine(gpus=4, apple=True)
    with pytest.raises(UserError, match=f"--device {name}: .*auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "there", "remedy"),
    [
        ("cuda", {}, "--device cpu or auto"),
        ("cuda:0", {}, "--device cpu or auto"),
        ("mps", {"gpus": 1}, "--device cpu or auto"),
        ("cuda:2", {"gpus": 2}, r"2 GPU\(s\), numbered from 0"),
        ("cuda:0", {"gpus": 2, "local_rank": 1, "local_ranks": 2}, "--device cuda"),
        ("cuda", {"gpus": 2, "local_rank": 2, "local_ranks": 3}, "--nproc_per_node 2"),
        ("auto", {"gpus": 2, "local_rank": 2, "local_ranks": 3}, "--nproc_per_node 2"),
    ],
)
def test_devices_that_are_not_there_are_refused_with_the_remedy(machine, name, there, remedy):
    machine(**there)
    with pytest.raises(UserError, match=f"--device {name}: .*{remedy}"):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "device", "native_bf16", "training", "evaluating"),
    [
        ("auto", CPU, True, "bf16", "fp32"),
        ("auto", CPU, False, "fp32", "fp32"),
        ("auto", CUDA, True, "bf16", "fp32"),
        ("auto", CUDA, False, "fp32", "fp32"),  # fp16 may overflow
        ("auto", MPS, True, "fp32", "fp32"),
        ("bf16", CUDA, False, "bf16", "bf16"),
        ("fp16", CUDA, True, "fp16", "fp16"),
        ("fp32", CUDA, True, "fp32", "fp32"),
    ],
)
def test_precision(monkeypatch, name, device, native_bf16, training, evaluating):
    monkeypatch.setattr(module, "cpu_prefers_bf16", lambda: native_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native_bf16)
    assert choose_precision(name, device) == training
    assert choose_precision(name, device, evaluating=True) == evaluating


@pytest.fixture
def tf32():
    """TF32 switched on; as it was again after the test."""
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = True
    yield lambda: [flag.allow_tf32 for flag in flags]
    for flag, value in zip(flags, before):
        flag.allow_tf32 = value


@pytest.mark.parametrize(("name", "evaluating"), [("fp32", False), ("fp32", True), ("auto", True)])
def test_float32_is_not_tf32(tf32, name, evaluating):
    assert tf32() == [True, True]
    choose_precision(name, CUDA, evaluating)
    assert tf32() == [False, False]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell")
def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7})
    assert module.num_cores() == 3
