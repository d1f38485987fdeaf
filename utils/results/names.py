"""What results, pages and model cards call a network and the way in which it sees images."""

from collections.abc import Mapping, Sequence
from typing import Any

OURS = "heteromedseg"
# Preprocess.fit -> what becomes of images, before and after the input size
FITTED = {
    "squash": ("resized to", ""),
    "pad": ("resized to fit into", ", their aspect kept, the rest filled up with 0"),
    "slide": ("at their own resolution, through overlapping windows of", ""),
}


def network_in_words(facts: Mapping[str, Any]) -> str:
    """`HeteroMedSeg, SSD form causal`, or the name of another network, which has no form of SSD.

    in: `network` and `ssd` as summary.json has them; results of older versions name no network
    """
    name = facts.get("network") or "not named"
    return f"HeteroMedSeg, SSD form {facts['ssd']}" if name == OURS else name


def fit_in_words(fit: str, size: Sequence[int]) -> str:
    """`resized to 160x224 (height x width)`, or what else a network of this input size does with images."""
    before, after = FITTED[fit]
    return f"{before} {'x'.join(map(str, size))} (height x width){after}"
