"""`pytest --device cuda`: the tests that compute run on that device; the CPU where none is named.

A device is named for the whole run. Data is made on the CPU and moved, so every device sees the same numbers.
`pytest --numprocesses 2` runs two files of tests at a time; each process then takes its share of the cores.
"""

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch

from utils.device import choose_device
from utils.errors import UserError

# By how much a tolerance in float32 may grow. CUDA adds in another order: a sum of the longest products here, 2,304
# numbers, then differs by about sqrt(2304) * 6e-8 = 3e-6, as much again as the CPU's own error. Apple's GPU has no
# float64, in which the state-space operator adds up its decays: three digits are lost (models/ssd.py).
LOOSER = {"cpu": 1, "cuda": 4, "mps": 200}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests compute: cpu, cuda, cuda:N or mps (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--device")
    try:
        device = choose_device(name)
        torch.ones(1, device=device).item()
    except (UserError, RuntimeError) as error:
        raise pytest.UsageError(f"--device {name}: tests cannot compute there: {str(error).splitlines()[0]}") from None
    if device.type not in LOOSER:
        raise pytest.UsageError(f"--device {name}: expected one of {', '.join(LOOSER)}")
    if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        threads = max(1, (os.cpu_count() or 1) // int(processes))
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # for the programs that tests start


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> Iterator[torch.device]:
    """The device of --device, in full float32: TF32 keeps 10 bits, and no tolerance would tell a defect from it."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield choose_device(pytestconfig.getoption("--device"))
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture
def device64(device: torch.device) -> torch.device:
    """The same, for tests in float64."""
    if device.type == "mps":
        pytest.skip("Apple's GPU has no float64")
    return device


@pytest.fixture
def on_device(device: torch.device) -> Iterator[torch.device]:
    """The same, for tests that make their tensors and modules without naming a device."""
    with device if device.type != "cpu" else contextlib.nullcontext():
        yield device


@pytest.fixture
def on_device64(device64: torch.device, on_device: torch.device) -> torch.device:
    """Both."""
    return on_device


@pytest.fixture
def looser(device: torch.device) -> float:
    """Factor on tolerances in float32."""
    return LOOSER[device.type]
