"""Files that are replaced in one step: a reader sees the old file or the new one, never half of one."""

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new file, open for writing; it replaces `path` when it is complete and on the disk. Makes the folder.

    raises: UserError when the disk is full or the folder cannot be written; what was at `path` stays
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise UserError(
            f"{path}: could not be written ({first_line(error)}); is the disk full or read-only?"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Replace the file `path` by `content` in one step; text is written as UTF-8. raises: UserError as `replacing`"""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows` as the text of a CSV file with the columns of all of them; a value that a row lacks is an empty cell."""
    text = StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of its message, shortened."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:160]}"
