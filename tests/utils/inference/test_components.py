"""Connected parts: known answers."""

import numpy as np
import pytest

from utils.inference.components import fill_holes, keep_largest, measure

MASK = np.array(
    [
        [1, 1, 0, 2, 0, 0],
        [1, 1, 0, 0, 3, 3],
        [0, 0, 1, 0, 3, 0],
        [2, 2, 0, 1, 0, 0],
    ],
    np.uint8,
)
RING = np.array([[1, 1, 1, 1], [1, 0, 2, 1], [1, 1, 1, 1], [0, 1, 0, 1]], np.uint8)


def test_the_largest_part_of_each_class_is_kept():
    expected = MASK.copy()
    expected[2, 2] = expected[3, 3] = expected[0, 3] = 0  # corners do not connect
    assert np.array_equal(keep_largest(MASK), expected)
    assert np.array_equal(keep_largest(MASK == 1), expected == 1)
    assert keep_largest(MASK == 1).dtype == bool
    assert not keep_largest(np.zeros((3, 4), bool)).any()
    volume = np.stack([MASK, np.zeros_like(MASK), MASK == 2])
    assert keep_largest(volume)[0, 0, 0] == 1
    assert keep_largest(np.stack([MASK == 3, MASK == 3]))[1, 2, 4]  # one part through both slices


def test_holes_are_filled_with_the_class_around_them_and_no_class_covers_another():
    expected = RING.copy()
    expected[1, 1] = 1
    assert np.array_equal(fill_holes(RING), expected)
    assert fill_holes(RING == 1)[1, 1:3].all()
    empty = np.zeros_like(RING)
    assert np.array_equal(fill_holes(np.stack([RING, empty])), np.stack([expected, empty]))  # slice by slice
    assert RING[1, 1] == 0


def test_sizes():
    rows = measure(MASK, (0.5, 2.0), ("a", "b", "c", "d"))
    assert [row["pixels"] for row in rows] == [6, 3, 3, 0]
    assert [row["area_mm2"] for row in rows] == ["6", "3", "3", "0"]
    assert [row["components"] for row in rows] == [3, 2, 1, 0]
    assert [row["largest_component"] for row in rows] == [4, 2, 3, 0]
    (row,) = measure(np.ones((2, 10, 10), bool), (5.0, 2.0, 1.0), ("liver",))
    assert (row["volume_ml"], row["area_mm2"], row["label"], row["class"]) == ("2", "", 1, "liver")
    (row,) = measure(MASK == 1, None, ("a",))
    assert (row["volume_ml"], row["area_mm2"]) == ("", "")
    assert sum(r["pixels"] for r in rows) == pytest.approx((MASK > 0).sum())
