"""Bi-level routing attention against full attention under a mask, and its parts against loops."""

import pytest
import torch

from models.bra import BRA, BRABlock, choose_routes, from_regions, gather_regions, to_regions

pytestmark = pytest.mark.usefixtures("on_device64")


def filled(module, seed=0):
    """Weights large enough that the softmax is far from even."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g, device="cpu") * (0.5 if p.ndim > 1 else 0.1))
    return module.double()


def randn(*shape, seed=1):
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
    return numbers.to(torch.get_default_device())


def region_of_pixels(size, regions):
    """(H * W,) number of the region that holds each pixel."""
    height, width = size[0] // regions[0], size[1] // regions[1]
    return torch.tensor([y // height * regions[1] + x // width for y in range(size[0]) for x in range(size[1])])


def masked_attention(module, x, regions):
    """The same attention as one softmax over all pixels, those outside the routes masked out."""
    b, h, w, c = x.shape
    q, k, v = module.qkv(x).flatten(1, 2).chunk(3, -1)
    region = region_of_pixels((h, w), regions)
    num_regions = regions[0] * regions[1]
    outputs = []
    for i in range(b):
        means = [torch.stack([t[i][region == r].mean(0) for r in range(num_regions)]) for t in (q, k)]
        affinity = means[0] @ means[1].T
        allowed = torch.zeros(num_regions, num_regions, dtype=torch.bool)
        for r in range(num_regions):
            allowed[r, affinity[r].argsort(descending=True)[: module.topk]] = True
        mask = allowed[region][:, region]
        heads = []
        for s in range(0, c, 32):
            scores = q[i, :, s : s + 32] @ k[i, :, s : s + 32].T / c**0.5
            heads.append(scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v[i, :, s : s + 32])
        outputs.append(torch.cat(heads, -1))
    lepe = torch.nn.functional.conv2d(
        v.view(b, h, w, c).permute(0, 3, 1, 2), module.lepe.weight, module.lepe.bias, padding=2, groups=c
    )
    return module.wo(torch.stack(outputs).view(b, h, w, c) + lepe.permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("size", "regions", "topk"),
    [
        ((8, 8), (4, 4), 3),
        ((6, 10), (3, 5), 4),  # not square
        ((4, 12), (2, 2), 2),  # regions are not square
        ((4, 4), (2, 2), 8),  # fewer regions than routes
        ((2, 2), (1, 1), 2),
    ],
)
def test_equals_masked_full_attention(size, regions, topk):
    module = filled(BRA(64, topk))
    x = randn(2, *size, 64).requires_grad_()
    found, expected = module(x, regions), masked_attention(module, x, regions)
    torch.testing.assert_close(found, expected)
    weight = randn(*found.shape, seed=2)
    inputs = [x, *module.parameters()]
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    for a, b in zip(gradients, torch.autograd.grad((expected * weight).sum(), inputs)):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_regions_row_by_row():
    x = torch.arange(24).view(1, 4, 6, 1)
    regions = to_regions(x, 2, 3)
    assert regions[0, :, :, 0].tolist() == [
        [0, 1, 6, 7],
        [2, 3, 8, 9],
        [4, 5, 10, 11],
        [12, 13, 18, 19],
        [14, 15, 20, 21],
        [16, 17, 22, 23],
    ]
    assert torch.equal(from_regions(regions, 2, 3, (4, 6)), x)


def test_routes_follow_the_mean_query_and_key():
    """Keys of region r point along axis r; the queries of region r prefer region r + 1, then r + 2."""
    k = torch.eye(5).view(1, 5, 1, 5).repeat(2, 1, 3, 1)
    q = torch.stack([2 * torch.eye(5)[(r + 1) % 5] + torch.eye(5)[(r + 2) % 5] for r in range(5)])
    q = q.view(1, 5, 1, 5) + torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 3, 1)  # cancels in the mean
    routes = choose_routes(q.repeat(2, 1, 1, 1), k, 2).sort(-1).values
    assert routes.tolist() == [[sorted([(r + 1) % 5, (r + 2) % 5]) for r in range(5)]] * 2
    assert choose_routes(q, k[:1], 9).shape == (1, 5, 5)


def test_gather_takes_each_sample_from_itself_and_adds_up_backwards():
    x = randn(2, 3, 4, 5).requires_grad_()
    routes = torch.tensor([[[0, 2], [2, 1], [0, 0]], [[1, 1], [0, 1], [2, 0]]])
    found = gather_regions(x, routes)
    expected = torch.stack([torch.cat([x[b, r] for r in routes[b, g]]) for b in range(2) for g in range(3)])
    assert torch.equal(found, expected)
    weight = randn(*found.shape, seed=3)
    a, b = (torch.autograd.grad((t * weight).sum(), x)[0] for t in (found, expected))
    torch.testing.assert_close(a, b)


def test_moving_whole_regions_moves_the_output():
    """Without its convolution the attention does not know where a region lies."""
    module = filled(BRA(32, 3))
    torch.nn.init.zeros_(module.lepe.weight)
    x = randn(1, 6, 8, 32)
    order = torch.arange(12).roll(5)
    moved = from_regions(to_regions(x, 3, 4)[:, order], 3, 4, (6, 8))
    expected = from_regions(to_regions(module(x, (3, 4)), 3, 4)[:, order], 3, 4, (6, 8))
    torch.testing.assert_close(module(moved, (3, 4)), expected)


def test_block_normalises_its_input_away():
    """norm1 comes first and there is no residual around it: scale and offset of the input do not count."""
    module = filled(BRABlock(32, 2))
    x = randn(1, 4, 4, 32)
    torch.testing.assert_close(module(3 * x + 5, (2, 2)), module(x, (2, 2)), rtol=1e-4, atol=1e-4)


def test_block_step_by_step():
    module = filled(BRABlock(32, 2))
    x = randn(2, 4, 4, 32)
    keep = torch.tensor([[0.0, 2.0], [1.5, 0.0]], dtype=torch.float64)
    y = module.norm1(x)
    y = y + module.pos_embed(y)
    y = y + keep[:, 0].view(2, 1, 1, 1) * module.attn(module.norm1(y), (2, 2))
    y = y + keep[:, 1].view(2, 1, 1, 1) * module.mlp(module.norm2(y))
    torch.testing.assert_close(module(x, (2, 2), keep), y)
    assert module.norm1.eps == module.norm2.eps == 1e-6
