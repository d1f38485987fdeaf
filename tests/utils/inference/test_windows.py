"""Overlapping windows against a slow and obvious sum over all of them."""

import math

import pytest
import torch

from utils.inference.predict import gaussian, in_windows, starts

SIZE = (8, 12)


def slow(forward, image, size):
    """Each pixel: the mean of the logits of every window that covers it, weighted by a Gaussian around its middle."""
    height, width = image.shape[-2:]
    total = forward(image[None, :, : size[0], : size[1]])[0].new_zeros(2, height, width)
    weights = torch.zeros(height, width)
    for top in places(height, size[0]):
        for left in places(width, size[1]):
            logits = forward(image[None, :, top : top + size[0], left : left + size[1]])[0]
            for y in range(size[0]):
                for x in range(size[1]):
                    far = ((y - (size[0] - 1) / 2) / (0.125 * size[0])) ** 2
                    far += ((x - (size[1] - 1) / 2) / (0.125 * size[1])) ** 2
                    weight = max(math.exp(-far / 2), 1e-3)
                    total[:, top + y, left + x] += weight * logits[:, y, x]
                    weights[top + y, left + x] += weight
    return total / weights


def places(length, window):
    """Half a window on, and so on; where the next would leave the image, one at the border is the last."""
    found = [0]
    while found[-1] + window < length:
        found.append(min(found[-1] + window // 2, length - window))
    return found


def network(images):
    """Logits that depend on the place in the window, so that weights and places show."""
    rows = torch.arange(images.shape[-2])[:, None] * torch.ones(images.shape[-1])
    return torch.stack([images.sum(1) * (1 + rows), images[:, 0] - rows.T.flip(0).reshape(rows.shape)], 1)


@pytest.mark.parametrize("shape", [(8, 12), (8, 13), (9, 12), (16, 24), (17, 25), (31, 12), (12, 19)])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_windows_against_the_slow_sum(shape, batch_size):
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    found = in_windows(network, images, SIZE, batch_size)
    assert (found.shape, found.dtype) == ((2, 2, *shape), torch.float32)
    expected = torch.stack(
        [network(image[None])[0] if shape == SIZE else slow(network, image, SIZE) for image in images]
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_no_more_windows_at_a_time_than_asked_for():
    seen = []

    def forward(batch):
        seen.append(len(batch))
        return batch[:, :1]

    image = torch.rand(1, 1, 20, 30)
    torch.testing.assert_close(in_windows(forward, image, SIZE, 4), image)
    assert max(seen) == 4
    assert sum(seen) == len(starts(20, 8)) * len(starts(30, 12))


@pytest.mark.parametrize(
    ("length", "expected"), [(8, [0]), (9, [0, 1]), (12, [0, 4]), (16, [0, 4, 8]), (17, [0, 4, 8, 9])]
)
def test_where_windows_begin(length, expected):
    assert starts(length, 8) == expected
    assert starts(3, 1) == [0, 1, 2]


def test_weights_are_a_gaussian_that_never_vanishes():
    weights = gaussian((33, 17))
    assert weights.shape == (33, 17)
    assert weights[16, 8] == 1 == weights.max()
    assert weights.min() == pytest.approx(1e-3)
    assert weights[16 + 4, 8] == pytest.approx(math.exp(-0.5 * (4 / (33 / 8)) ** 2))
