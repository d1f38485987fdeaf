"""A volume labelled and scored by an independent implementation of the published rules, reproduced exactly.

`golden/volume_labels.npz`: label, prediction and figures of the whole volume; `golden/volume_slice.npz`: the image
of its first slice. The whole image is too large for the repository; its test needs the reference folder.
"""

import numpy as np
import pytest

from models.weights.released import load_released
from tests.support.golden_weights import golden_tensor
from tests.support.manifests import quick_model, shapes_of
from tests.support.places import GOLDEN, SHARED
from utils.config import Config
from utils.inference.forward import forward_fn
from utils.inference.predict import predict_volume
from utils.scoring.protocols import score_volume

LEGACY = Config(batch_size=2, protocol="legacy")
REFERENCE = SHARED / "reference" / "golden_volume.npz"
# share of pixels that may change where two classes tie, or a route does: a GPU adds in another order
TIES = {"cpu": 0, "cuda": 1e-3, "mps": 1e-2}


@pytest.fixture(scope="module")
def labels():
    with np.load(GOLDEN / "volume_labels.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def forward(device):
    model = quick_model()
    state = {name: golden_tensor(name, shape) for name, shape in shapes_of("synapse").items()}
    load_released(model, state, "golden weights")
    return forward_fn([model], device)


def test_legacy_figures(labels):
    names = [str(k) for k in range(1, 9)]
    rows = score_volume("golden", labels["prediction"], labels["label"], names, "legacy")
    np.testing.assert_array_equal([[row["dice"], row["hd95_px"]] for row in rows], labels["metrics"])


def test_labels_of_the_first_slice(forward, labels, device):
    with np.load(GOLDEN / "volume_slice.npz") as arrays:
        image = arrays["image"][None]
    found = predict_volume(forward, image, LEGACY, device)
    assert (found[0] != labels["prediction"][0]).mean() <= TIES[device.type]


@pytest.mark.skipif(not REFERENCE.is_file(), reason="needs the reference folder")
def test_labels_of_the_whole_volume(forward, labels, device):
    with np.load(REFERENCE) as arrays:
        image, prediction = arrays["image"], arrays["prediction"]
    found = predict_volume(forward, image, LEGACY, device)
    np.testing.assert_array_equal(prediction, labels["prediction"])
    assert (found != prediction).mean() <= TIES[device.type]
