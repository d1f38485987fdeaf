"""Files replaced in one step: text and bytes, what a failure leaves, tables of unequal rows."""

import csv
import errno

import pytest

from utils.errors import UserError
from utils.files import csv_text, replacing, write_atomically


def test_text_and_bytes_replace_the_file_and_leave_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_atomically(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "expected"), [(OSError(errno.ENOSPC, "No space left"), UserError), (KeyError("x"), KeyError)]
)
def test_a_write_that_fails_keeps_the_old_file(tmp_path, error, expected):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with replacing(path) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(expected):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_has_the_columns_of_all_rows():
    text = csv_text([{"a": 1, "b": 0.1}, {"a": "x,y", "c": None}])
    assert list(csv.reader(text.splitlines())) == [["a", "b", "c"], ["1", "0.1", ""], ["x,y", "", ""]]
