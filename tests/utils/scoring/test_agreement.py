"""Our metrics against MedPy's, and MONAI's where it is installed, on 60 random shapes and spacings."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from utils.scoring import metrics, surface

TOLERANCE = 2.0  # mm, of the NSD


def smooth_pairs(number=60, seed=0):
    """Pairs of boolean masks, neither empty, alternately 2-D and 3-D, touching the border or not; a spacing in mm."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < number:
        shape = tuple(int(n) for n in rng.integers(12, 48, 2 + made % 2))
        field = gaussian_filter(rng.random(shape), rng.uniform(1.5, 4))
        other = field + rng.uniform(0.1, 0.8) * gaussian_filter(rng.random(shape), 2)
        level = rng.uniform(0.4, 0.97)
        pred, target = field > np.quantile(field, level), other > np.quantile(other, level)
        if pred.any() and target.any():
            made += 1
            yield pred, target, tuple(float(x) for x in rng.uniform(0.3, 5, len(shape)))


def test_medpy():
    """Exact, but where equal distances round differently once multiplied with a spacing, or are summed in order."""
    from medpy.metric import binary

    for pred, target, spacing in smooth_pairs():
        n, d = metrics.overlap(pred, target), surface.surface_distances(pred, target, spacing)
        assert metrics.dice(n) == binary.dc(pred, target)
        assert metrics.iou(n) == binary.jc(pred, target)
        assert metrics.precision(n) == binary.precision(pred, target)
        assert metrics.recall(n) == binary.recall(pred, target)
        assert metrics.specificity(n) == binary.specificity(pred, target)
        pixels = surface.surface_distances(pred, target)
        assert surface.hd95_pooled(pixels) == binary.hd95(pred, target)
        assert surface.hd95_pooled(d) == pytest.approx(binary.hd95(pred, target, spacing), abs=1e-13)
        assert surface.assd(d) == pytest.approx(binary.assd(pred, target, spacing), abs=1e-13)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # theirs, of what they call
def test_monai():
    """MONAI keeps distances, in mm here up to about 100, and the rank of a percentile in float32."""
    theirs = pytest.importorskip("monai.metrics")
    for pred, target, spacing in smooth_pairs():
        n, d = metrics.overlap(pred, target), surface.surface_distances(pred, target, spacing)
        p, t = (torch.from_numpy(mask)[None, None].float() for mask in (pred, target))
        keep = {"include_background": True, "spacing": spacing}
        hd95 = theirs.compute_hausdorff_distance(p, t, percentile=95, **keep).item()
        assd = theirs.compute_average_surface_distance(p, t, symmetric=True, **keep).item()
        dice = theirs.compute_dice(p, t, include_background=True).item()
        assert surface.hd95(d) == pytest.approx(hd95, abs=1e-4)
        assert surface.assd(d) == pytest.approx(assd, abs=1e-4)
        assert surface.nsd(d, TOLERANCE) == pytest.approx(
            theirs.compute_surface_dice(p, t, [TOLERANCE], **keep).item(), abs=1e-6
        )
        assert metrics.dice(n) == pytest.approx(dice, abs=1e-6)
