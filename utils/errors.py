"""A user's mistakes, and how a script ends: exit codes and the one message."""

import errno
import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist

from utils.log import _Terminal, logging_to, printable

EXIT_LOST_RANK = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # as a shell has it of SIGINT (2): 128 + 2
DISK = {  # what a system says of files that cannot be written
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
}
EXIT_BROKEN_PIPE = 141  # as a shell has it of a program that SIGPIPE (13) ended: 128 + 13


class UserError(Exception):
    """A mistake in what the user gave: shown as one message without a traceback, exit code 2.

    The message names the file or field, what was found, what was expected and the remedy.
    """


def join_listed(lines: Sequence[str], limit: int = 20, separator: str = "\n  ") -> str:
    """Join the first `limit` lines and say how many more there are."""
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return separator.join([*lines[:limit], *more])


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `3 classes`."""
    ending = "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"


def import_baseline(name: str, flag: str) -> Any:
    """A module of requirements-baselines.txt, which `flag` needs. raises: UserError where it is not installed"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what these packages use of PyTorch
            return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{flag}: needs the package {name.partition('.')[0]} ({error}); "
            "install it with: pip install -r requirements-baselines.txt"
        ) from error


def run_main(main: Callable[[list[str]], None]) -> None:
    """Call `main(sys.argv[1:])`, its log on the terminal; a UserError becomes one message on stderr, exit code 2.

    So does a disk that is full or read-only, wherever it is noticed.
    Where nobody reads stdout any more (`python train.py | head`) the program ends without a word, exit code 141.
    """
    try:
        try:
            with logging_to(_Terminal()):
                main(sys.argv[1:])
        except UserError as error:
            print(printable(f"error: {error}"), file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except OSError as error:
            if error.errno not in DISK:
                raise
            print(printable(f"error: {error}; check that there is room, and that it may be written"), file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        except RuntimeError as error:  # gloo has no kind of its own
            if not (dist.is_initialized() and re.search("Timed out|Connection (closed|reset)", str(error))):
                raise
            print(f"error: another process did not answer in time, or has ended: {error}", file=sys.stderr)
            sys.exit(EXIT_LOST_RANK)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # of another pipe, such as that to a worker
        # Python flushes stdout once more as it exits, and would complain: https://docs.python.org/3/library/signal.html
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _stdout_is_closed() -> bool:
    """Whether the reader of stdout has gone; writes an empty line if not."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False
