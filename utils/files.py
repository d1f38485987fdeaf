"""Reading and writing files: a failure becomes a UserError that names the file."""

import contextlib
import csv
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

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


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Replace the file `path` by `content` in one step and make its folder; text is written as UTF-8.

    raises: UserError as `replacing`
    """
    with replacing(Path(path)) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows` as the text of a CSV file with the columns of all of them; a value that a row lacks is an empty cell."""
    text = StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _reason(error: BaseException) -> str:
    """The system's words for an OSError; else the last line of the message, where SimpleITK puts the cause."""
    lines = [line.strip() for line in str(getattr(error, "strerror", None) or error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
