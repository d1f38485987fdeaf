"""Peak memory of a process, from the system. Linux counts it exactly; elsewhere it is the largest so far."""

import contextlib
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes of memory this process holds now (its peak where the system does not say)."""
    return _status("VmRSS") if STATUS.exists() else _largest()


def peak() -> int:
    """Bytes this process held at most since `restart_peak`.

    Not `ru_maxrss`, which a child process inherits from a large parent.
    """
    return _status("VmHWM") if STATUS.exists() else _largest()


def restart_peak() -> None:
    """Forget the peak so far, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _largest() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
