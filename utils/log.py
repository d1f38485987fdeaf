"""The log: lines to the terminal and, during a run, to its log.txt; rank 0 only."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tqdm import tqdm

from utils.distributed import is_main

LOGGER = logging.getLogger("heteromedseg")


def log(message: str) -> None:
    """One line to the terminal and, during a run, to its log.txt; rank 0 only."""
    if is_main():
        LOGGER.info("%s", printable(message))


def log_lines(text: str) -> None:
    """`log` each line of a table."""
    for line in text.splitlines():
        log(line)


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal, or that has no form, as an escape sequence.

    A line break stays where the next line is indented, as in all messages: no name of a file can begin a line.
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
    return re.sub(r"\n(?!  )", r"\\n", shown)


@cache
def log_once(message: str) -> None:
    """`log`, but a message is said only once a process: which path was taken, which kernel ran.

    A warning is said by any rank: it may be of a file that no other rank sees.
    """
    if is_main() or message.startswith("warning"):
        LOGGER.info("%s", printable(message))


@contextlib.contextmanager
def logging_to(target: Path | logging.Handler) -> Iterator[None]:
    """Send `log` to a handler too, or on rank 0 append it to a file, while the context lasts."""
    if isinstance(target, Path) and not is_main():
        yield
        return
    handler = _File(target, encoding="utf-8") if isinstance(target, Path) else target
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        with contextlib.suppress(OSError):  # a line that could not be written was an error before
            handler.close()


class _File(logging.FileHandler):
    """A file whose disk may be full: then a line raises OSError, where logging would print a traceback and go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        raise OSError(error.errno, error.strerror, self.baseFilename) from None


class _Terminal(logging.Handler):
    """Lines on stdout, above a progress bar where one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()
