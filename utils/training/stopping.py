"""SIGTERM and SIGINT during training: the first stops the run after its update, the second ends the process at once."""

import os
import signal
import sys
import threading
from types import FrameType

from utils.distributed import any_rank, is_main

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The run was asked to stop and has saved its state; the message says where. Not an error: exit code 0."""


class StopRequest:
    """A context in which the first signal only sets `asked`; the second does what it did before.

    Signals reach the main thread only; elsewhere, such as in a notebook's thread, nothing changes.
    """

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            self.__exit__()
            signal.raise_signal(number)
            return
        self.asked = True
        if is_main():  # not `print`, whose buffer the signal may have interrupted
            os.write(sys.__stderr__.fileno(), f"{signal.Signals(number).name}: stopping after this update\n".encode())

    def agreed(self) -> bool:
        """Whether any rank was asked to stop; all ranks must call this together, and all get the same answer."""
        return any_rank(self.asked)


def ignore_signals(_: int) -> None:
    """In a loader process: the process that started it decides when it ends, not a signal to their whole group."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
