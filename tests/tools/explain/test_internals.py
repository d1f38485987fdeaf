"""Routes and gates read from a forward pass against slow recomputations of what the network computes."""

import math

import pytest
import torch
import torch.nn.functional as F

import models.bra
from models import build_model
from tools.explain.input import predicted_pixel
from tools.explain.internals import Routes, look_inside

SIZES = [(64, 96), (70, 33)]  # regions 2 x 3; padded to 96 x 64: 3 x 2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = build_model(3).double().eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("qkv.weight", "qkv.bias")):  # routes that are far from ties
            parameter.data.mul_(5)
        elif "attention" in name:  # gates that are far from 1/2
            parameter.data.add_(torch.randn_like(parameter))
    return network


def image_of(size):
    return torch.randn(1, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(size[0]))


@pytest.fixture(scope="module", params=SIZES, ids=str)
def seen(request, model):
    """(what look_inside found, inputs and outputs of every BRA and SCSA of a plain forward pass, its logits)"""
    kept, image = {}, image_of(request.param)
    parts = [part for stage in model.decoder for part in (stage.attention, *(block.attn for block in stage.blocks))]
    handles = [p.register_forward_hook(lambda m, inputs, out: kept.__setitem__(m, (inputs, out))) for p in parts]
    with torch.inference_mode():
        logits = model(image)
    for handle in handles:
        handle.remove()
    return look_inside(model, image), kept, logits


def test_looking_changes_nothing(model, seen):
    (found, _, _), _, logits = seen
    assert torch.equal(found, logits[0])
    assert not any(module._forward_hooks for module in model.modules())


def slow_routes(attention, x, regions):
    """Affinities (G, G) of all regions of x (H, W, C), pixel by pixel."""
    height, width = x.shape[0] // regions[0], x.shape[1] // regions[1]
    dim = x.shape[2]
    means = []
    for r in range(regions[0]):
        for c in range(regions[1]):
            pixels = [x[r * height + i, c * width + j] for i in range(height) for j in range(width)]
            means.append(attention.qkv.weight @ (sum(pixels) / len(pixels)) + attention.qkv.bias)
    return torch.tensor([[float(a[:dim] @ b[dim : 2 * dim]) / math.sqrt(dim) for b in means] for a in means])


@torch.no_grad()
def test_routes_equal_a_slow_recomputation(model, seen):
    (_, routes, _), kept, _ = seen
    assert [(one.stage, one.block, one.stride) for one in routes] == [
        *((0, block, 16) for block in range(8)),
        *((1, block, 8) for block in range(2)),
        *((2, block, 4) for block in range(2)),
    ]
    for one, topk in zip(routes, [8] * 8 + [4] * 2 + [2] * 2):
        attention = model.decoder[one.stage].blocks[one.block].attn
        x, regions = kept[attention][0]
        assert one.regions == regions
        affinity = slow_routes(attention, x[0], regions)
        expected = affinity.sort(1, descending=True)
        count = min(topk, len(affinity))
        assert torch.equal(one.chosen, expected.indices[:, :count])
        torch.testing.assert_close(one.affinity.float(), expected.values[:, :count], rtol=1e-4, atol=1e-5)


def test_routes_are_those_that_the_forward_pass_took(model, monkeypatch):
    taken, choose = [], models.bra.choose_routes

    def choose_and_keep(*arguments):
        taken.append(choose(*arguments))
        return taken[-1]

    image = image_of(SIZES[0])
    _, routes, _ = look_inside(model, image)
    monkeypatch.setattr(models.bra, "choose_routes", choose_and_keep)
    with torch.inference_mode():
        model(image)
    for one, chosen in zip(routes, taken, strict=True):
        assert torch.equal(one.chosen.sort(1).values, chosen[0].sort(1).values)


@pytest.mark.parametrize(
    ("pixel", "region"), [((0, 0), 0), ((31, 31), 0), ((0, 32), 1), ((32, 0), 3), ((63, 95), 5), ((40, 70), 5)]
)
def test_region_of_a_pixel(pixel, region):
    chosen = torch.arange(12).view(6, 2) % 6
    routes = Routes(0, 0, 16, (2, 3), chosen, torch.arange(12).view(6, 2) / 10)
    found = routes.describe(pixel)
    assert (found["stage"], found["block"], found["regions"]) == (1, 1, [2, 3])
    assert found["region"] == list(divmod(region, 3))
    assert found["chosen"] == [list(divmod(number, 3)) for number in chosen[region].tolist()]
    assert found["affinity"] == pytest.approx([region / 5, region / 5 + 0.1])


def slow_line_gate(scsa, line, norm):
    """Gate (length, C) of means (length, C): four convolutions by hand, then the norm in four groups."""
    out = torch.zeros_like(line)
    groups = zip(
        (scsa.local_dwc, scsa.global_dwc_s, scsa.global_dwc_m, scsa.global_dwc_l), line.chunk(4, 1), out.chunk(4, 1)
    )
    for conv, before, after in groups:
        half = conv.kernel_size[0] // 2
        for i in range(len(line)):
            after[i] = conv.bias
            for j in range(max(i - half, 0), min(i + half + 1, len(line))):
                after[i] += conv.weight[:, 0, j - i + half] * before[j]
    parts = [(part - part.mean()) / torch.sqrt(part.var(unbiased=False) + norm.eps) for part in out.chunk(4, 1)]
    return torch.sigmoid(torch.cat(parts, 1) * norm.weight + norm.bias)


def slow_channel_gate(scsa, gated):
    """Gate (C,) of a map (H, W, C) gated along its lines: attention between channels, head by head."""
    pool = (min(7, gated.shape[0]), min(7, gated.shape[1]))
    pooled = F.avg_pool2d(gated.permute(2, 0, 1), pool, pool).flatten(1)  # (C, pixels)
    pooled = (pooled - pooled.mean()) / torch.sqrt(pooled.var(unbiased=False) + scsa.norm.eps)
    pooled = pooled * scsa.norm.weight[:, None] + scsa.norm.bias[:, None]
    gates, width = [], len(pooled) // scsa.num_heads
    for head in range(scsa.num_heads):
        rows = slice(head * width, (head + 1) * width)
        q, k, v = (pooled[rows] * conv.weight[rows].flatten(1) for conv in (scsa.q, scsa.k, scsa.v))
        gates.append(((q @ k.T / math.sqrt(width)).softmax(1) @ v).mean(1))
    return torch.cat(gates).sigmoid()


@torch.no_grad()
def test_gates_equal_a_slow_recomputation(model, seen):
    (_, _, gates), kept, _ = seen
    assert [(one.stage, one.stride) for one in gates] == [(0, 16), (1, 8), (2, 4)]
    for one in gates:
        scsa = model.decoder[one.stage].attention
        (x,), out = kept[scsa]
        assert (one.rows.shape, one.columns.shape) == ((x.shape[1], x.shape[3]), (x.shape[2], x.shape[3]))
        torch.testing.assert_close(one.rows[:, None] * one.columns[None] * one.channels * x[0], out[0])
        torch.testing.assert_close(one.rows, slow_line_gate(scsa, x[0].mean(1), scsa.norm_h))
        torch.testing.assert_close(one.columns, slow_line_gate(scsa, x[0].mean(0), scsa.norm_w))
        gated = x[0] * one.rows[:, None] * one.columns[None]
        torch.testing.assert_close(one.channels, slow_channel_gate(scsa, gated))
        for gate in (one.rows, one.columns, one.channels):
            assert 0 < gate.min() < 0.45
            assert 0.55 < gate.max() < 1


def blob(*boxes, size=(8, 10), classes=3):
    """Logits (classes, H, W) that predict label 1, 2 ... in the boxes (rows, columns)."""
    logits = torch.zeros(classes, *size)
    logits[0] = 1
    for label, (rows, columns) in enumerate(boxes, 1):
        logits[label, slice(*rows), slice(*columns)] = 2
    return logits


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (blob(((2, 5), (4, 7))), (3, 5)),  # its middle
        (blob(((0, 1), (0, 1)), ((0, 1), (2, 9))), (0, 4)),  # the mean column of both classes is 4.4
        (blob(((0, 8), (0, 1)), ((0, 8), (8, 9))), (3, 0)),  # the mean lies outside: the nearest pixel
        (blob(), (4, 5)),
        (torch.full((1, 6, 6), -0.1), (3, 3)),
        (torch.full((1, 5, 7), 0.1), (2, 3)),
    ],
)
def test_predicted_pixel(logits, expected):
    assert predicted_pixel(logits) == expected
