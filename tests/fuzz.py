"""Damage valid files in many ways and read them: only the value, or a UserError, may come of it.

    python -m tests.fuzz READER --inputs N [--seed S]

READER is a name in tests/support/image_files.py, or `all`. Input number i of a seed is always the same, whatever the
number of inputs. Each reader works in a process of its own, whose memory is limited; what kills it is counted as a
crash. Exit code 1 for a traceback, a crash, a hang, a reader that grew by more than 256 MiB, or a silent wrong value:
one read from a file that was cut short, or one that the format's checksum contradicts.
"""

import argparse
import collections
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.image_files import CHECKED, READERS, TEXTS
from utils.errors import UserError
from utils.files import allow_bytes

LARGEST = 2**26  # bytes of an image that a reader may accept here
MEMORY = 2**31  # address space of a reader beyond what its libraries take
MOST_MIB = 256  # that the memory of a reader may grow by
SECONDS = 30  # after which an input counts as a hang
ODD = (b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"9" * 5000, b'"', b"\xfe\xff,[{")
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Unable to allocate", "Insufficient memory")
BAD = ("out of memory", "traceback", "silent wrong", "crash", "hang")


def mutate(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """A kind of damage and the damaged bytes; most of it near the start, where headers are."""
    kind = str(rng.choice(["cut", "flip", "flip", "odd", "copy", "drop"]))
    span = len(data) if rng.random() < 0.5 else min(len(data), 400)
    at, length = int(rng.integers(span)), int(rng.integers(1, 64))
    if kind == "cut":
        return kind, data[: int(rng.integers(len(data)))]
    if kind == "flip":
        changed = bytearray(data)
        for place in rng.integers(0, span, int(rng.integers(1, 9))):
            changed[place] ^= 1 << int(rng.integers(8))
        return kind, bytes(changed)
    if kind == "odd":
        token = ODD[int(rng.integers(len(ODD)))]
        return kind, data[:at] + token + data[at + len(token) * int(rng.integers(2)) :]
    if kind == "copy":
        start = int(rng.integers(len(data)))
        return kind, data[:at] + data[start : start + length] + data[at:]
    return kind, data[:at] + data[at + length :]


def repacked(name: str, data: bytes, change: Callable[[bytes], tuple[str, bytes]]) -> tuple[str, bytes]:
    """Damage inside a compressed file, whose checksum then is right."""
    if name.endswith(".gz"):
        return "inside", gzip.compress(change(gzip.decompress(data))[1], 1)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for index, member in enumerate(old.namelist()):
            content = old.read(member)
            new.writestr(member, content if index else change(content)[1])
    return "inside", target.getvalue()


def attack(reader: str, numbers: range, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Read damaged files; yields {number, outcome, reason} before and after each."""
    known = READERS[reader]
    path = folder / known.name
    known.write(path)
    target = path / known.target if known.target else path
    data, value = target.read_bytes(), known.read(path)
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        kind, damaged = mutate(data, rng)
        if known.name.endswith((".gz", ".npz")) and rng.random() < 0.5:
            kind, damaged = repacked(known.name, data, lambda content, rng=rng: mutate(content, rng))
        target.write_bytes(damaged)
        yield {"number": number}
        outcome, reason = "accepted", ""
        try:
            found = known.read(path)
            if not same(found, value) and reader not in TEXTS:
                outcome = "silent wrong" if kind == "cut" or (kind != "inside" and reader in CHECKED) else "other value"
                reason = kind
        except UserError as error:
            outcome = "refused"
            if any(
                word in str(error) for word in ("MemoryError", "bad_alloc", "Unable to allocate", "nsufficient mem")
            ):
                outcome, reason = "out of memory", str(error)[-200:]
        except Exception as error:
            outcome, reason = "traceback", f"{type(error).__name__}: {error}"[:200]
        yield {"number": number, "outcome": outcome, "reason": reason}


def same(found: Any, value: Any) -> bool:
    """Whether two values are alike, arrays within tuples included."""
    if isinstance(value, tuple):
        return isinstance(found, tuple) and len(found) == len(value) and all(map(same, found, value))
    if isinstance(value, np.ndarray):
        return isinstance(found, np.ndarray) and np.array_equal(found, value)
    return found == value


def work(reader: str, numbers: range, seed: int) -> None:
    """In a process of its own: limit the memory, read, and say in lines of JSON what became of each input."""
    import resource

    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allow_bytes(LARGEST)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
    os.dup2(1, 2)
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        for found in attack(reader, numbers, seed, Path(folder)):
            signal.alarm(SECONDS)
            print(json.dumps(found), file=out, flush=True)
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        print(json.dumps({"peak": peak}), file=out, flush=True)


def run(reader: str, inputs: int, seed: int, first: int = 0) -> dict[str, Any]:
    """Counts of outcomes and of reasons over `inputs` inputs; a process that dies is started again after its input."""
    counts, reasons = collections.Counter(), collections.Counter()
    at, end, peak = first, first + inputs, 0
    examples: dict[str, int] = {}
    while at < end:
        words = [sys.executable, "-m", "tests.fuzz", reader, "--inputs", str(end - at)]
        words += ["--seed", str(seed), "--first", str(at), "--worker"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                found = json.loads(line)
                peak = max(peak, found.get("peak", 0))
                if "outcome" in found:
                    at = found["number"] + 1
                    counts[found["outcome"]] += 1
                    if found["reason"]:
                        reason = f"{found['outcome']}: {found['reason']}"
                        reasons[reason] += 1
                        examples.setdefault(reason, found["number"])
            problem = process.stderr.read()
        if at < end:
            if not process.returncode or not process.returncode < 0:
                raise SystemExit(f"the worker ended with {process.returncode}: {problem[-2000:]}")
            outcome = "hang" if process.returncode == -signal.SIGALRM else "crash"
            counts[outcome] += 1
            reasons[f"{outcome}: signal {-process.returncode}, input {at}"] += 1
            at += 1
    return {
        "reader": reader,
        "inputs": inputs,
        "peak_mib": peak,
        "counts": dict(counts),
        "reasons": dict(reasons),
        "first": examples,
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("reader", choices=[*READERS, "all"])
    parser.add_argument("--inputs", type=int, default=200, help="damaged files a reader (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.worker:
        work(given.reader, range(given.first, given.first + given.inputs), given.seed)
        return 0
    bad = 0
    for reader in READERS if given.reader == "all" else [given.reader]:
        found = run(reader, given.inputs, given.seed, given.first)
        print(json.dumps(found), flush=True)
        bad += sum(found["counts"].get(name, 0) for name in BAD) + (found["peak_mib"] > MOST_MIB)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
