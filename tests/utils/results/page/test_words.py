"""The words of a page."""

import pytest

from utils.results.page.words import augmentation_in_words


@pytest.mark.parametrize(
    ("tta", "scales", "words"),
    [
        (False, [], "off"),
        (True, [], "on: flips"),
        (False, [0.75, 1.25], "on: sizes times 0.75, 1.25"),
        (True, [2.0], "on: flips and sizes times 2"),
        (False, None, "off"),
    ],
)
def test_what_test_time_augmentation_averaged_over(tta, scales, words):
    assert augmentation_in_words({"tta": tta, "tta_scales": scales}) == words
