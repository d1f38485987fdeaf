"""Pictures of volumes that test.py makes: upright where the file says how it lies, and the same on page and sheet."""

import dataclasses

import h5py
import numpy as np
import pytest

from synapse_train_test import evaluation
from synapse_train_test.task import SYNAPSE
from tests.support.trees import write_synapse_tree
from utils.results.page.frames import Album


class Notes(Album):
    def add_volume(self, name, *parts):
        self.cases.append(parts)


@pytest.mark.parametrize("known", [True, False])
def test_sheet_and_page_show_volumes_upright_where_the_orientation_is_known(tmp_path, monkeypatch, known):
    tree = write_synapse_tree(tmp_path / "tree")
    with h5py.File(tree / "test_vol_h5/case0003.npy.h5", "r+") as file:
        image, label = file["image"][()], file["label"][()]
        if known:  # slices grow upwards, rows to the left, columns to the back
            affine = np.array([[0, 0.5, 0, 0], [0, 0, 0.7, 0], [3, 0, 0, 0], [0, 0, 0, 1]])
            file.attrs.update(spacing=(3, 0.5, 0.7), affine=affine, orientation="SLP")
    sheets, scored = [], []
    monkeypatch.setattr(evaluation, "predict_volume", lambda forward, image, *rest: (image * 5).astype(np.uint8))
    monkeypatch.setattr(
        evaluation, "contact_sheet", lambda *parts: sheets.append(parts) or np.zeros((9, 9, 3), np.uint8)
    )
    monkeypatch.setattr(evaluation, "score_volume", lambda name, *parts: scored.append(parts) or [])
    lists = {"root_path": str(tree), "list_dir": str(tree / "lists")}
    album, cfg = Notes(), dataclasses.replace(SYNAPSE, split="test", debug=True, **lists)
    evaluation.evaluate(cfg, None, None, ("a",) * 8, tmp_path / "out", album)
    seen = [array.swapaxes(1, 2) if known else array for array in (image, (image * 5).astype(np.uint8), label)]
    for found, expected in zip(sheets[0], seen):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(album.cases[0], seen):
        np.testing.assert_array_equal(found, expected)
    assert sheets[0][-1] == album.cases[0][-1] == ((3, 0.7, 0.5) if known else None)
    np.testing.assert_array_equal(scored[0][1], label)  # figures are measured as stored
