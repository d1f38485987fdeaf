"""Files replaced in one step: text and bytes, what a failure leaves, tables of unequal rows."""

import csv
import errno
import sys

import pytest

import predict
from utils import files
from utils.errors import UserError, run_main
from utils.files import csv_text, parse_csv, read_text, replacing, write_atomically
from utils.log import log, printable


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


TEXTS = ["=1+1", "+a", "-x", "@y", "\tz", "'=1", "''", "'", "'a", "a=b", "", 'ü, "q"']


def test_a_formula_becomes_a_text_and_comes_back(tmp_path):
    text = csv_text([{"case": name, "dice": -1.5, "@c": 1e-3} for name in TEXTS])
    lines = list(csv.reader(text.splitlines()))
    assert not [cell for line in lines for cell in line if cell[:1] in tuple("=+@\t")]
    assert lines[1] == ["'=1+1", "-1.5", "0.001"]  # numbers stay numbers
    assert [line[0] for line in parse_csv(text)[1:]] == TEXTS
    assert parse_csv(text)[0] == ["case", "dice", "@c"]


def test_text_files_have_a_largest_size_and_are_utf8(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 100)
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + b"a" * 97)
    assert read_text(tmp_path / "a.csv") == "a" * 97
    (tmp_path / "a.csv").write_bytes(b"a" * 101)
    with pytest.raises(UserError, match=r"a\.csv: found 101 bytes, expected a text of at most 100"):
        read_text(tmp_path / "a.csv")
    for name, words in (("b.csv", r"cannot be read \('utf-8"), ("none.csv", r"cannot be read \(No such file")):
        (tmp_path / "b.csv").write_bytes(b"\xff")
        with pytest.raises(UserError, match=rf"{name[:1]}.*\.csv: {words}"):
            read_text(tmp_path / name)


def test_nothing_that_steers_a_terminal_is_shown():
    assert printable("a\x1b[2Jb\rc\x9bd\u202ee\udce4f\x07") == "a\\x1b[2Jb\\rc\\x9bd\\u202ee\\udce4f\\x07"
    assert printable("über 1\t→ 95 %\n  2") == "über 1\t→ 95 %\n  2"


def test_a_line_break_in_a_name_does_not_begin_a_line(tmp_path, monkeypatch, capsys):
    image = tmp_path / "a\nerror: all masks are wrong\n.png"
    image.write_bytes(b"no image")
    monkeypatch.setattr(sys, "argv", ["predict.py", "--checkpoint", "x.pth", "--input", f"{image}x"])
    with pytest.raises(SystemExit):
        run_main(predict.main)
    shown = capsys.readouterr()
    assert "a\\nerror: all masks are wrong\\n.pngx" in shown.err
    assert [line.partition(":")[0] for line in (shown.out + shown.err).splitlines() if line] == ["error"]


def test_log_and_errors_are_escaped(tmp_path, monkeypatch, capsys):
    def main(_):
        log("class \x1b]0;x\x07")
        raise UserError("file \x1b[31m.png: damaged")

    with pytest.raises(SystemExit):
        run_main(main)
    shown = capsys.readouterr()
    assert shown.out == "class \\x1b]0;x\\x07\n"
    assert shown.err == "error: file \\x1b[31m.png: damaged\n"
