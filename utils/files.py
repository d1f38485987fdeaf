"""Reading and writing files: a failure becomes a UserError that names the file."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError

# What NumPy, h5py and SimpleITK raise for files that are missing, damaged or of another format.
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


@contextlib.contextmanager
def reading(path: Path, remedy: str = "copy or convert the file again", as_what: str = "") -> Iterator[None]:
    """Turn any failure to read `path` within the block into a UserError; `remedy` says what to do."""
    try:
        yield
    except UNREADABLE as error:
        reason = "it holds no plain array" if "pickle" in str(error) else _reason(error)
        raise UserError(f"{path}: cannot be read{as_what} ({reason}); {remedy}") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to. It takes the name `path` when the block succeeds and is removed when not.

    raises: UserError when the file cannot be written
    """
    part = path.with_name(f".part-{os.getpid()}-{path.name}")  # NumPy and SimpleITK choose the format by the suffix
    try:
        yield part
        part.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch and SimpleITK raise RuntimeError for a full disk
        raise UserError(f"{path}: cannot be written ({_reason(error)}); is the disk full or read-only?") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _reason(error: BaseException) -> str:
    """The system's words for an OSError; else the last line of the message, where SimpleITK puts the cause."""
    lines = [line.strip() for line in str(getattr(error, "strerror", None) or error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
