"""The words in docs/network.svg agree with the network that the code builds; the figures of the documentation exist."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest

from models import bra, build_model
from models.hetero_medseg import REGION
from models.scsa import POOL
from models.vssd import STATE_SIZE

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIDE, NUM_CLASSES = 224, 9  # of the input and the network that the picture shows


@pytest.fixture(scope="module")
def network():
    return build_model(NUM_CLASSES)


@pytest.fixture(scope="module")
def words():
    """Each text of the picture and how often it stands there."""
    nodes = ElementTree.parse(DOCS / "network.svg").iter("{http://www.w3.org/2000/svg}text")
    return Counter(node.text for node in nodes)


def kernel(conv):
    return "×".join(map(str, conv.kernel_size))


def convolution(conv):
    return f"Conv {kernel(conv)} ↓ {conv.stride[0]}"


@pytest.mark.parametrize("level", range(3))
def test_a_row_shows_one_resolution(network, words, level):
    encoder, decoder, down = network.encoder[level], network.decoder[2 - level], network.downsample[level][0]
    attention = decoder.blocks[0].attn
    expected = {
        f"{SIDE // decoder.stride} × {SIDE // decoder.stride}",
        f"stride {decoder.stride}",
        f"{down.in_channels} channels",
        f"VSSD block × {len(encoder)}",
        f"{encoder[0].attn.num_heads} heads",
        convolution(down),
        f"{decoder.attention.num_heads} heads",
        f"{decoder.reduce.in_features} → {decoder.reduce.out_features}",
        f"BRA block × {len(decoder.blocks)}",
        f"top-{attention.topk} regions, {attention.qkv.in_features // bra.HEAD_DIM} heads",
        f"PatchExpand ↑ {decoder.expand.scale}",
    }
    assert expected <= set(words)


def test_the_ends_of_the_network(network, words):
    first, second, lowest = network.stem[0], network.stem[3], network.downsample[-1][0]
    count = sum(weight.numel() for weight in network.parameters())
    expected = {
        f"stem: {convolution(first)}, {first.out_channels} channels; GELU; {convolution(second)}",
        f"{SIDE // REGION} × {SIDE // REGION}",
        f"{lowest.out_channels} channels",
        f"LayerNorm, PatchExpand ↑ {network.head.expand.scale}",
        f"Conv {kernel(network.head.classify)}",
        f"{network.head.classify.in_channels} → K classes",
        f"{count / 1e6:.2f} M parameters",
        f"for {network.num_classes} classes",
    }
    assert expected <= set(words)


def test_the_blocks(network, words):
    vssd, block, scsa = network.encoder[0][0], network.decoder[0].blocks[0], network.decoder[0].attention
    sizes = ", ".join(str(conv.kernel_size[0]) for conv in (scsa.local_dwc, scsa.global_dwc_s, scsa.global_dwc_m))
    heads = ", ".join(str(stage.attention.num_heads) for stage in network.decoder)
    expected = {
        f"DWConv {kernel(vssd.cpe1)}",
        f"MLP, {vssd.mlp.fc1.out_features // vssd.mlp.fc1.in_features} C hidden",
        f"MLP, {block.mlp.fc1.out_features // block.mlp.fc1.in_features} C hidden",
        f"x, B, C: DWConv {kernel(vssd.attn.conv2d)}",
        f"state {STATE_SIZE}",
        f"regions of {REGION} × {REGION}",
        f"+ DWConv {kernel(block.attn.lepe)} of v",
        f"DWConv1d {sizes}, {scsa.global_dwc_l.kernel_size[0]} on a quarter",
        f"AvgPool {POOL}×{POOL}, GroupNorm",
        f"{heads} heads, coarse to fine",
    }
    assert expected <= set(words)


def test_figures_of_the_documentation_are_there_and_small():
    page = (DOCS / "understanding.md").read_text(encoding="utf-8")
    figures = [DOCS / name for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)]
    assert len(figures) == 5
    for path in figures:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert path.stat().st_size < 300_000
