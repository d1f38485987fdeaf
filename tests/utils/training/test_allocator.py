"""Memory that is freed and allocated again; each test starts a process, because the setting cannot be undone."""

import os
import platform
import subprocess
import sys

import pytest

from tests.support.places import ROOT
from utils.training import allocator

GLIBC = platform.libc_ver()[0] == "glibc"
PROGRAM = """
import resource
from utils.training.allocator import keep_freed_memory
kept = {call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""


def page_faults(call, **environment):
    """(answer of `call`, page faults of taking 64 MiB for the second time)."""
    clean = {name: value for name, value in os.environ.items() if name not in allocator.OWN_SETTINGS}
    clean.pop("GLIBC_TUNABLES", None)
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    done = subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, encoding="utf-8", check=True)
    answer, faults = done.stdout.split()
    return answer == "True", int(faults)


@pytest.mark.skipif(not GLIBC, reason="a setting of glibc")
def test_a_freed_buffer_is_taken_again_without_page_faults():
    _, before = page_faults("None")
    kept, after = page_faults("keep_freed_memory()")
    assert kept
    assert after < 100
    assert before > 10 * max(after, 1)


@pytest.mark.skipif(not GLIBC, reason="a setting of glibc")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
    ],
)
def test_settings_in_the_environment_are_left_alone(name, value):
    kept, faults = page_faults("keep_freed_memory()", **{name: value})
    assert not kept
    assert faults > 1000 or "TUNABLES" in name


@pytest.mark.parametrize("library", [("", ""), ("musl", "1.2")])
def test_other_c_libraries_are_left_alone(monkeypatch, library):
    monkeypatch.setattr(platform, "libc_ver", lambda: library)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("called"))
    assert not allocator.keep_freed_memory()


def test_another_allocator_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("LD_PRELOAD", "libjemalloc.so")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("called"))
    assert not allocator.keep_freed_memory()
