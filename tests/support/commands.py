"""The scripts as a user calls them, each run in this process, which has imported PyTorch already."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT
from utils.log import log_once

SMALL_NETWORK = ("--width", 32, "--encoder_depths", "1,1,1", "--decoder_depths", "1,1,1")  # shallow.SMALL as flags


def command(script: str, *flags: object, cwd: Path, expect: int = 0) -> str:
    """Run a script of the repository from the folder `cwd`, and check how it ends.

    expect: the exit code; 2 also means one message, "error: ...", and no traceback
    returns: what the script printed to stdout; under `expect=2`, its message
    """
    code, stdout, stderr = 0, io.StringIO(), io.StringIO()
    log_once.cache_clear()  # a script is a process of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [script, *map(str, flags)])
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as end:
                code = end.code or 0
    assert code == expect, f"{stdout.getvalue()[-2000:]}\n{stderr.getvalue()[-4000:]}"
    if expect == 2:
        assert stderr.getvalue().startswith("error: "), stderr.getvalue()
        return stderr.getvalue()
    return stdout.getvalue()
