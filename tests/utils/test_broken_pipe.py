"""`python train.py | head`: nobody reads on, and the program ends quietly; other broken pipes stay errors."""

import os
import subprocess
import sys

import pytest

from benchmarks.machine import ROOT
from utils.errors import run_main

START = "import sys; from utils.errors import UserError, run_main; from utils.log import log; run_main(lambda argv: {})"


def run_and_close(*command, lines=0):
    """(exit code, stderr) of a Python whose stdout is closed after `lines` lines were read."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    read = [process.stdout.readline() for _ in range(lines)]
    assert all(read)
    process.stdout.close()
    stderr = process.stderr.read().decode()
    process.stderr.close()
    return process.wait(), stderr


@pytest.mark.parametrize(
    ("flags", "main", "lines"),
    [
        ([], "[log(f'line {i}') for i in range(100_000)]", 2),
        ([], "print('kept in the buffer until the end')", 0),
        (["-u"], "[print('written at once') for _ in range(100_000)]", 2),
    ],
)
def test_a_closed_stdout_ends_the_program_quietly(flags, main, lines):
    assert run_and_close(*flags, "-c", START.format(main), lines=lines) == (141, "")


def test_the_help_of_a_script_may_be_cut_off():
    assert run_and_close("data_split_csv.py", "--help") == (141, "")


def test_a_users_mistake_is_still_told():
    code, stderr = run_and_close("data_split_csv.py", "--dataset", "no/such/folder", "--size", "0.9")
    assert code == 2  # nothing was written to stdout, so nothing was cut off
    assert stderr.startswith("error: no/such/folder")
    assert stderr.count("\n") == 1


def test_the_broken_pipe_of_a_worker_is_an_error(monkeypatch, capsys):
    def main(argv):
        raise BrokenPipeError("a worker died")

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(BrokenPipeError, match="a worker died"):
        run_main(main)
    assert capsys.readouterr().out == "\n"
