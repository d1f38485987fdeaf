"""Forms that are faster on some device, against the plain forms that they replace."""

import torch

from models.fast import attend


def arguments(dtype):
    g = torch.Generator().manual_seed(0)
    shapes = (6, 2, 4, 32), (6, 2, 8, 32), (6, 2, 8, 32)
    return [torch.randn(shape, generator=g).to(dtype).requires_grad_() for shape in shapes]


def test_attention_in_bfloat16_is_near_float32():
    wide, narrow = arguments(torch.float32), arguments(torch.bfloat16)
    expected = attend(*wide, 0.3)
    found = attend(*narrow, 0.3).float()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    weight = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * weight).sum(), given) for y, given in ((found, narrow), (expected, wide))]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a.float(), b, rtol=0.03, atol=0.03)
    with torch.no_grad():
        torch.testing.assert_close(attend(*narrow, 0.3).float(), expected, rtol=0.02, atol=0.02)
