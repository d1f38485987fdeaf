"""SCSA against the published arrangement, written with its own modules on (B, C, H, W)."""

import pytest
import torch
import torch.nn.functional as F

from models.scsa import SCSA

pytestmark = pytest.mark.usefixtures("on_device64")


def published(module, x):
    """(B, C, H, W) -> (B, C, H, W)."""
    b, c, h, w = x.shape
    convs = [module.local_dwc, module.global_dwc_s, module.global_dwc_m, module.global_dwc_l]

    def gate(line, norm):
        parts = [conv(part) for conv, part in zip(convs, line.split(c // 4, dim=1))]
        return torch.sigmoid(norm(torch.cat(parts, 1)))

    x = x * gate(x.mean(3), module.norm_h).view(b, c, h, 1) * gate(x.mean(2), module.norm_w).view(b, c, 1, w)
    side = (min(7, h), min(7, w))
    y = module.norm(F.avg_pool2d(x, side, side))
    heads, width = module.num_heads, c // module.num_heads
    q, k, v = (conv(y).reshape(b, heads, width, -1) for conv in (module.q, module.k, module.v))
    attention = torch.softmax(q @ k.transpose(-1, -2) * width**-0.5, dim=-1)
    y = (attention @ v).reshape(b, c, *y.shape[2:]).mean((2, 3), keepdim=True)
    return x * torch.sigmoid(y)


@pytest.mark.parametrize("size", [(14, 14), (20, 9), (7, 13), (1, 1), (3, 15), (2, 6)])
def test_equals_the_published_arrangement(size):
    torch.manual_seed(0)
    module = SCSA(16, 2)
    for p in module.parameters():
        torch.nn.init.normal_(p)
    module = module.double()
    x = torch.randn(2, *size, 16, dtype=torch.float64, requires_grad=True)
    found, expected = module(x), published(module, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected)
    inputs = [x, *module.parameters()]
    weight = torch.randn_like(found)
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    for a, b in zip(gradients, torch.autograd.grad((expected * weight).sum(), inputs)):
        torch.testing.assert_close(a, b)


def test_gates_are_gates():
    """Every value shrinks and none changes its sign."""
    torch.manual_seed(0)
    x = torch.randn(1, 9, 11, 16)
    ratio = SCSA(16, 2)(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
