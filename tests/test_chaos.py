"""A few kills at random moments; `python -m tests.chaos` does as many as one likes."""

import subprocess
import sys

import pytest

from tests.support.places import ROOT


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_killed_runs_end_as_the_one_that_was_left_alone():
    command = [sys.executable, "-m", "tests.chaos", "--kills", "3", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "runs that differ: 0" in done.stdout
