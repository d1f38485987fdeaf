"""The rules of the two protocols: each combination of empty and non-empty, and units."""

import math

import numpy as np
import pytest

from utils.scoring.protocols import kind_of, score_image, score_volume

NAN = math.nan
NAMES = ("liver", "spleen", "stomach", "aorta")
LIVER, SPLEEN, STOMACH = 1, 2, 3


def labels(*blocks: tuple[int, tuple[slice, ...]], shape: tuple[int, ...] = (4, 8, 10)) -> np.ndarray:
    made = np.zeros(shape, np.uint8)
    for label, where in blocks:
        made[where] = label
    return made


def at(z: int, y: int, x: int, size: int = 1) -> tuple[slice, ...]:
    return slice(z, z + 1), slice(y, y + size), slice(x, x + size)


# liver in both, 2 pixels beside each other; spleen missed; stomach invented; aorta in neither
TARGET = labels((LIVER, at(1, 2, 2, 2)), (SPLEEN, at(0, 0, 0)))
PREDICTION = labels((LIVER, at(1, 2, 4, 2)), (STOMACH, at(3, 7, 9)))


def test_legacy_volume():
    rows = score_volume("a", PREDICTION, TARGET, NAMES, "legacy", spacing=(5, 1, 1))
    assert rows == [
        {"case": "a", "class": "liver", "outcome": "found", "dice": 0.0, "hd95_px": 2.0},
        {"case": "a", "class": "spleen", "outcome": "missed", "dice": 0.0, "hd95_px": 0.0},
        {"case": "a", "class": "stomach", "outcome": "false_positive", "dice": 1.0, "hd95_px": 0.0},
        {"case": "a", "class": "aorta", "outcome": "absent", "dice": 0.0, "hd95_px": 0.0},
    ]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        # distances of the 2 x 2 pixels, 0.5 mm wide: 2 pixels at 0.5 mm and 2 at 1 mm, both ways
        (0, ("found", 0, 0, 1.0, 0.5, 0.75, 0, 6.0, 6.0)),
        (1, ("missed", 0, 0, NAN, 0, NAN, -1, 0, 1.5)),
        (2, ("false_positive", 0, 0, NAN, 0, NAN, NAN, 1.5, 0)),
        (3, ("absent", NAN, NAN, NAN, NAN, NAN, NAN, 0, 0)),
    ],
)
def test_standard_volume_in_mm(index, expected):
    row = score_volume("a", PREDICTION, TARGET, NAMES, spacing=(3, 1, 0.5), tolerance=0.5)[index]
    names = ("dice", "iou", "hd95_mm", "nsd_0.5mm", "assd_mm", "volume_error", "predicted_mm3", "labelled_mm3")
    assert row.pop("outcome") == expected[0]
    assert (row.pop("case"), row.pop("class")) == ("a", NAMES[index])
    assert row == pytest.approx(dict(zip(names, expected[1:], strict=True)), nan_ok=True)


def test_standard_volume_in_pixels():
    row = score_volume("a", PREDICTION, TARGET, NAMES)[0]
    assert set(row) >= {"hd95_px", "nsd_2px", "assd_px", "predicted_px", "labelled_px"}
    assert (row["hd95_px"], row["nsd_2px"], row["assd_px"], row["predicted_px"]) == (2, 1, 1.5, 4)


def test_legacy_volume_is_medpy_on_the_whole_volume():
    from medpy.metric.binary import dc, hd95

    rng = np.random.default_rng(0)
    for _ in range(10):
        coarse = rng.integers(0, 5, (2, 3, 4, 5))
        target, pred = coarse.repeat(3, 1).repeat(4, 2).repeat(4, 3)
        pred = np.where(rng.random(pred.shape) < 0.7, target, pred)
        for k, row in enumerate(score_volume("a", pred, target, NAMES, "legacy"), 1):
            both = (pred == k).any() and (target == k).any()
            expected = (dc(pred == k, target == k), hd95(pred == k, target == k)) if both else None
            assert row["class"] == NAMES[k - 1]
            assert expected is None or (row["dice"], row["hd95_px"]) == expected


def test_standard_volume_counts_outside_of_the_box_too():
    """Labels of one class in opposite corners; classes above the highest label in the image have rows as well."""
    rows = score_volume("a", labels((2, at(0, 0, 0))), labels((2, at(3, 7, 9))), NAMES)
    assert [row["outcome"] for row in rows] == ["absent", "found", "absent", "absent"]
    assert rows[1]["hd95_px"] == math.sqrt(9 + 49 + 81)


def test_label_images_of_two_dimensions():
    rows = score_volume("a", PREDICTION[1], TARGET[1], NAMES, spacing=(1, 0.5))
    assert (rows[0]["hd95_mm"], rows[0]["predicted_mm3"]) == (1.0, 2.0)


SQUARE, SHIFTED = (labels((1, at(0, 2, x, 4)), shape=(1, 8, 10))[0] > 0 for x in (2, 4))
EMPTY = np.zeros((8, 10), bool)


@pytest.mark.parametrize(
    ("pred", "target", "dice", "iou", "accuracy", "precision", "recall", "f1"),
    [
        (SQUARE, SQUARE, 1, 1, 1, 1, 1, 1),
        (SQUARE, SHIFTED, 17 / 33, 9 / 25, 64 / 80, 0.5, 0.5, 0.5),
        (EMPTY, EMPTY, 1, 1, 1, 0, 0, 0),
        (EMPTY, SQUARE, 1 / 17, 1 / 17, 64 / 80, 0, 0, 0),
        (SQUARE, EMPTY, 1 / 17, 1 / 17, 64 / 80, 0, 0, 0),
    ],
)
def test_legacy_image(pred, target, dice, iou, accuracy, precision, recall, f1):
    row = score_image("a", pred, target, "polyp", "legacy")
    expected = {"dice": dice, "iou": iou, "accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}
    assert {k: v for k, v in row.items() if k in expected} == pytest.approx(expected)
    assert set(row) == {"case", "class", "outcome", *expected}


@pytest.mark.parametrize(
    ("pred", "target", "outcome", "expected"),
    [
        # order: dice, iou, precision, recall, specificity, accuracy, boundary_f1, hd95, nsd, assd, predicted, labelled
        (SQUARE, SHIFTED, "found", (0.5, 1 / 3, 0.5, 0.5, 56 / 64, 0.8, 8 / 12, 2, 8 / 12, 1, 16, 16)),
        (EMPTY, SQUARE, "missed", (0, 0, NAN, 0, 1, 0.8, 0, NAN, 0, NAN, 0, 16)),
        (SQUARE, EMPTY, "false_positive", (0, 0, 0, NAN, 0.8, 0.8, 0, NAN, 0, NAN, 16, 0)),
        (EMPTY, EMPTY, "absent", (NAN, NAN, NAN, NAN, 1, 1, NAN, NAN, NAN, NAN, 0, 0)),
    ],
)
def test_standard_image(pred, target, outcome, expected):
    row = score_image("a", pred, target, "polyp", tolerance=1)
    assert (row.pop("case"), row.pop("class"), row.pop("outcome")) == ("a", "polyp", outcome)
    assert list(row) == [
        *("dice", "iou", "precision", "recall", "specificity", "accuracy", "boundary_f1"),
        *("hd95_px", "nsd_1px", "assd_px", "predicted_px", "labelled_px"),
    ]
    assert tuple(row.values()) == pytest.approx(expected, nan_ok=True)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"case7: the prediction is \(4, 8, 10\), its label \(8, 10\)"):
        score_volume("case7", TARGET, TARGET[0], NAMES)
    with pytest.raises(ValueError, match="must agree"):
        score_image("a", EMPTY, EMPTY[:1], "polyp")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("hd95_mm", "hd95"),
        ("nsd_2px", "nsd"),
        ("nsd_0.5mm", "nsd"),
        ("boundary_f1", "boundary_f1"),
        ("dice", "dice"),
        ("labelled_mm3", "labelled"),
        ("|volume_error|", "|volume_error|"),
    ],
)
def test_kind_of_a_column(column, kind):
    assert kind_of(column) == kind
