"""Surface distances: known answers, MedPy to the last digit, brute force."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from utils.scoring import surface as s

NAN = math.nan
SHAPE = (9, 12)


def block(*corners: tuple[int, int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in corners)] = True
    return mask


def random_pairs(number: int, seed: int = 0):
    """Pairs of smooth or noisy non-empty masks in 2-D and 3-D with a random anisotropic spacing."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < number:
        shape = tuple(int(n) for n in rng.integers(1, 22, rng.integers(2, 4)))
        sigma = rng.choice([0.0, 1.0, 2.0])
        field = gaussian_filter(rng.random(shape), sigma)
        other = field + rng.random() * gaussian_filter(rng.random(shape), sigma)
        level = rng.random() * 0.98
        pred, target = field >= np.quantile(field, level), other >= np.quantile(other, level)
        if pred.any() and target.any():
            made += 1
            yield pred, target, tuple(float(x) for x in rng.uniform(0.3, 5, len(shape)))


EMPTY, FULL = block((0, 0), (0, 0)), block((0, 9), (0, 12))
PIXEL, FAR_PIXEL, CORNER = block((1, 2), (2, 3)), block((4, 5), (6, 7)), block((0, 1), (0, 1))
COLUMN, RIGHT = block((0, 9), (0, 1)), block((0, 9), (11, 12))


@pytest.mark.parametrize(
    ("pred", "target", "spacing", "hd95", "pooled", "assd", "nsd", "boundary_f1"),
    [
        (PIXEL, PIXEL, None, 0, 0, 0, 1, 1),
        (PIXEL, FAR_PIXEL, None, 5, 5, 5, 0, 0),  # 3 rows and 4 columns apart
        (PIXEL, FAR_PIXEL, (1, 0.25), math.sqrt(10), math.sqrt(10), math.sqrt(10), 0, 0),
        (PIXEL, FAR_PIXEL, (0.5, 0.125), math.sqrt(2.5), math.sqrt(2.5), math.sqrt(2.5), 1, 1),
        (COLUMN, RIGHT, None, 11, 11, 11, 0, 0),
        (COLUMN, RIGHT, (7, 0.5), 5.5, 5.5, 5.5, 0, 0),
        # rows 0 and 1 of one column against row 0: distances 0, 1 and 0
        (block((0, 2), (0, 1)), CORNER, (4, 1), 3.8, 3.6, 4 / 3, 2 / 3, 2 / 3),
        (FULL, FULL, None, 0, 0, 0, 1, 1),
        (EMPTY, PIXEL, None, NAN, NAN, NAN, 0, 0),
        (FULL, EMPTY, (1, 1), NAN, NAN, NAN, 0, 0),
        (EMPTY, EMPTY, None, NAN, NAN, NAN, NAN, NAN),
    ],
)
def test_known_distances(pred, target, spacing, hd95, pooled, assd, nsd, boundary_f1):
    d = s.surface_distances(pred, target, spacing)
    found = (s.hd95(d), s.hd95_pooled(d), s.assd(d), s.nsd(d, 2.0), s.boundary_f1(d, 2.0))
    assert found == pytest.approx((hd95, pooled, assd, nsd, boundary_f1), nan_ok=True, abs=1e-12)


def test_scores_read_the_right_direction():
    near, far = np.zeros(9), np.array([0.0, 4.0, 4.0])
    d = s.SurfaceDistances(near, far)
    assert s.hd95(d) == 4.0 == s.hd95(s.SurfaceDistances(far, near))
    assert s.hd95_pooled(d) == np.percentile([0] * 10 + [4, 4], 95)
    assert s.assd(d) == 8 / 12  # not the mean of the directed means, 4 / 3
    assert s.nsd(d, 1.0) == 10 / 12
    assert s.boundary_f1(d, 1.0) == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))


def test_a_distance_equal_to_the_tolerance_is_within_it():
    d = s.surface_distances(PIXEL, FAR_PIXEL)
    assert (s.nsd(d, 5.0), s.boundary_f1(d, 5.0)) == (1.0, 1.0)
    assert (s.nsd(d, 4.999), s.boundary_f1(d, 4.999)) == (0.0, 0.0)


def test_surface_is_medpys_at_the_image_border_too():
    from scipy.ndimage import binary_erosion

    for pred, target, _ in random_pairs(60, seed=3):
        for mask in (pred, target):
            np.testing.assert_array_equal(s.surface(mask), mask ^ binary_erosion(mask))
    np.testing.assert_array_equal(s.surface(FULL), FULL ^ block((1, 8), (1, 11)))


@pytest.mark.parametrize("pixels_per_query", [0, 10**9])  # always the tree, always the transform
def test_medpy_to_the_last_digit(monkeypatch, pixels_per_query):
    from medpy.metric.binary import hd95

    monkeypatch.setattr(s, "PIXELS_PER_TREE_QUERY", pixels_per_query)
    for pred, target, spacing in random_pairs(220):
        assert s.hd95_pooled(s.surface_distances(pred, target)) == hd95(pred, target)
        found = s.hd95_pooled(s.surface_distances(pred, target, spacing))
        assert found == pytest.approx(hd95(pred, target, spacing), rel=1e-14)  # ties may round differently


@pytest.mark.parametrize("pixels_per_query", [0, 10**9])
def test_brute_force(monkeypatch, pixels_per_query):
    monkeypatch.setattr(s, "PIXELS_PER_TREE_QUERY", pixels_per_query)
    for pred, target, spacing in random_pairs(40, seed=1):
        places = [np.argwhere(s.surface(mask)) * np.array(spacing) for mask in (pred, target)]
        table = np.linalg.norm(places[0][:, None] - places[1][None], axis=-1)
        d = s.surface_distances(pred, target, spacing)
        np.testing.assert_allclose(d.pred_to_target, table.min(axis=1), atol=1e-12)
        np.testing.assert_allclose(d.target_to_pred, table.min(axis=0), atol=1e-12)


def test_cropping_changes_nothing():
    pred, target, spacing = next(random_pairs(1, seed=5))
    margin = [(3, 5)] * pred.ndim
    d, padded = (
        s.surface_distances(a, b, spacing) for a, b in ((pred, target), (np.pad(pred, margin), np.pad(target, margin)))
    )
    np.testing.assert_array_equal(d.pred_to_target, padded.pred_to_target)
    np.testing.assert_array_equal(d.target_to_pred, padded.target_to_pred)


def test_inputs_are_left_alone():
    pred, target = PIXEL.copy(), FULL.copy()
    s.surface_distances(pred, target)
    assert (pred == PIXEL).all()
    assert (target == FULL).all()
