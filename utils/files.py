"""Reading and writing files: what is damaged, too large or not writable becomes a UserError that names the file."""

import contextlib
import csv
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from utils.errors import UserError

MAX_IMAGE_BYTES = 2 * 2**30  # of one decoded array, unless --max_image_bytes says otherwise
LIMIT = "HETEROMEDSEG_MAX_IMAGE_BYTES"  # in the environment, so that a new process has it however it is started
MAX_TEXT_BYTES = 64 * 2**20  # of a list, a CSV or a JSON file
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins so
HOST = re.sub(r"[^A-Za-z0-9.]", "", platform.node())[:64]
PART = f".part-{HOST}-"  # start of the name of a folder in which a process of this machine writes


def allow_bytes(count: int) -> None:
    """Set the size of the largest decoded image, in bytes, that this process and those it starts will read."""
    os.environ[LIMIT] = str(count)


def check_bytes(path: Path, count: int) -> None:
    """Refuse an image that would take more memory than allowed. raises: UserError"""
    allowed = int(os.environ.get(LIMIT, MAX_IMAGE_BYTES))
    if count > allowed:
        raise UserError(
            f"{path}: claims an image of {count:,} bytes, expected at most {allowed:,}; if it is as large as that, "
            f"give train.py, test.py, predict.py or prepare_data.py --max_image_bytes {count}"
        )


def check_writable(folder: Path) -> None:
    """Refuse the folder of --output_dir where no file can be made, before the work; nothing is left behind.

    raises: UserError
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    found = "is no folder"
    if there.is_dir():
        try:
            tempfile.TemporaryFile(dir=there).close()
            return
        except OSError as error:
            found = f"cannot be written to ({_reason(error)})"
    raise UserError(f"--output_dir {folder}: {there} {found}; give a folder that may be made and written to")


@contextlib.contextmanager
def reading(path: Path, remedy: str = "copy or convert the file again", as_what: str = "") -> Iterator[None]:
    """Turn any failure to read `path` within the block into a UserError; `remedy` says what to do.

    raises: UserError, before the block, for a named pipe, a device or a socket
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{path}: is a pipe, a device or a socket; expected a file")
        yield
    except UserError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        reason = "it holds no plain array" if "pickle" in str(error) else _reason(error)
        raise UserError(f"{path}: cannot be read{as_what} ({reason}); {remedy}") from None


def read_text(path: Path, remedy: str = "give a text file in UTF-8", as_what: str = "") -> str:
    """The text of a UTF-8 file, without its byte-order mark. raises: UserError as `reading`, and for its size"""
    with reading(path, remedy, as_what):
        if (size := path.stat().st_size) > MAX_TEXT_BYTES:
            raise UserError(f"{path}: found {size:,} bytes, expected a text of at most {MAX_TEXT_BYTES:,}; {remedy}")
        return path.read_bytes().decode("utf-8-sig")


def read_json(path: Path, remedy: str, as_what: str = "") -> Any:
    """The content of a JSON file. raises: UserError as `read_text`"""
    text = read_text(path, remedy, as_what)
    with reading(path, remedy, as_what):
        return json.loads(text)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write a file or a folder to. When the block succeeds it takes the name `path`, else it is removed.

    It has the name of `path`, in a new folder beside it that no other user can enter. A file is on the disk before it
    is renamed. Folders on the way are made; what killed processes left beside `path` is removed.
    raises: UserError when it cannot be written
    """
    own = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        own = Path(tempfile.mkdtemp(prefix=f"{PART}{os.getpid()}-", dir=path.parent))
        part = own / path.name
        yield part
        if part.is_file():
            with part.open("r+b") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # PyTorch and SimpleITK raise RuntimeError for a full disk
        raise UserError(f"{path}: cannot be written ({_reason(error)}); is the disk full or read-only?") from error
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine that no longer live left of `replacing` in `folder`."""
    if os.name != "posix":  # elsewhere nothing tells whether a process lives without a risk to it
        return
    for left in folder.glob(f"{PART}*-*"):
        number = left.name.removeprefix(PART).partition("-")[0]
        with contextlib.suppress(ValueError, PermissionError, OverflowError):
            try:
                os.kill(max(int(number), 1), 0)
            except ProcessLookupError:
                shutil.rmtree(left, ignore_errors=True)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Replace the file `path` by `content` in one step and make its folder; text is written as UTF-8.

    What no UTF-8 can hold, such as parts of a file name in another encoding, becomes an escape sequence.
    raises: UserError as `replacing`
    """
    with replacing(Path(path)) as part:
        part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows` as the text of a CSV file with the columns of all of them; a value that a row lacks is an empty cell.

    A text that a spreadsheet would run as a formula gets an apostrophe before it, which `parse_csv` takes away.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_quoted, columns))
    writer.writerows([_quoted(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def parse_csv(text: str, delimiter: str = ",") -> list[list[str]]:
    """The lines of a CSV file that are not empty, header first; texts as they were given to `csv_text`."""
    lines = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    return [
        [cell[1:] if cell.startswith("'") and cell[1:2] in ("'", *FORMULA) else cell for cell in line]
        for line in lines
        if line
    ]


def _quoted(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("'", *FORMULA)) else value


def _reason(error: BaseException) -> str:
    """The system's words for an OSError; else the last line of the message, where SimpleITK puts the cause."""
    lines = [line.strip() for line in str(getattr(error, "strerror", None) or error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
