"""Free memory of pretended machines and containers."""

import math

import pytest
import torch

from utils import device as module
from utils.device import free_memory, host_memory


def tree(root, **files):
    """Write `files` below `root`; a name's double underscores are slashes."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal: 64000 kB\nMemFree: 100 kB\nMemAvailable: 1000 kB\n"
V1 = "sys__fs__cgroup__memory__"
KIB = 1024


def test_without_proc_the_free_memory_is_unknown(tmp_path):
    assert host_memory(tmp_path) == math.inf


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (None, {}, 1000 * KIB),
        ("0::/\n", {}, 1000 * KIB),  # no memory controller
        ("0::/\n", {"sys__fs__cgroup__memory.max": "max\n"}, 1000 * KIB),
        (
            "0::/\n",
            {
                "sys__fs__cgroup__memory.max": f"{500 * KIB}\n",
                "sys__fs__cgroup__memory.current": f"{400 * KIB}\n",
                "sys__fs__cgroup__memory.stat": f"anon 1\ninactive_file {30 * KIB}\nactive_file {20 * KIB}\n",
            },
            150 * KIB,
        ),
        (  # the limit of the job lies above the cgroup of its step
            "0::/job/step\n",
            {
                "sys__fs__cgroup__job__memory.max": f"{300 * KIB}",
                "sys__fs__cgroup__job__memory.current": f"{100 * KIB}",
                "sys__fs__cgroup__job__memory.stat": "",
                "sys__fs__cgroup__job__step__memory.max": "max",
                "sys__fs__cgroup__job__step__memory.current": "0",
            },
            200 * KIB,
        ),
        (  # more than the machine has
            "0::/\n",
            {
                "sys__fs__cgroup__memory.max": f"{5000 * KIB}",
                "sys__fs__cgroup__memory.current": "0",
                "sys__fs__cgroup__memory.stat": "",
            },
            1000 * KIB,
        ),
        (  # version 1; the path is the host's, the files the container's
            "8:pids:/\n4:memory:/docker/5a92\n0::/\n",
            {
                f"{V1}memory.limit_in_bytes": f"{600 * KIB}",
                f"{V1}memory.usage_in_bytes": f"{500 * KIB}",
                f"{V1}memory.stat": f"inactive_file 7\ntotal_inactive_file {50 * KIB}\ntotal_active_file 0\n",
            },
            150 * KIB,
        ),
        (
            "4:memory:/\n",
            {f"{V1}memory.limit_in_bytes": "9223372036854771712", f"{V1}memory.usage_in_bytes": "1"},
            1000 * KIB,
        ),
        (  # used up
            "0::/\n",
            {"sys__fs__cgroup__memory.max": "10", "sys__fs__cgroup__memory.current": "20"},
            0,
        ),
    ],
)
def test_free_memory_is_that_of_the_container(tmp_path, cgroup, files, expected):
    tree(tmp_path, proc__meminfo=MEMINFO, **files)
    if cgroup is not None:
        tree(tmp_path, proc__self__cgroup=cgroup)
    assert host_memory(tmp_path) == expected


def test_processes_share_the_memory_of_the_machine_but_each_gpu_has_its_own(monkeypatch):
    monkeypatch.setattr(module, "host_memory", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 200)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_memory(torch.device("cpu")) == 1000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(torch.device("cpu")) == 250
    assert free_memory(torch.device("cuda", 0)) == 700 + 150
