"""The summary beside the masks; what predict.py does with whole files is in tests/test_predict.py."""

from utils.files import csv_text
from utils.inference.files import COLUMNS, SUMMARY, read_summary


def test_a_name_that_a_spreadsheet_would_run_comes_back_as_it_was(tmp_path):
    row = dict.fromkeys(COLUMNS, "1") | {"file": "=a.png"}
    (tmp_path / SUMMARY).write_text(csv_text([row]))
    assert read_summary(tmp_path / SUMMARY) == [row]
