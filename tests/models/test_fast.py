"""Forms that are faster on some device, against the plain forms that they replace."""

import torch
import torch.nn.functional as F

from models.fast import attend, attend_by_products


def arguments(dtype):
    g = torch.Generator().manual_seed(0)
    shapes = (6, 2, 4, 32), (6, 2, 8, 32), (6, 2, 8, 32)
    return [torch.randn(shape, generator=g).to(dtype).requires_grad_() for shape in shapes]


def test_attention_by_products_has_the_values_and_gradients_of_the_fused_kernel():
    given = arguments(torch.float64)
    found, expected = attend_by_products(*given, 0.3), F.scaled_dot_product_attention(*given, scale=0.3)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * weight).sum(), given) for y in (found, expected)]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


def test_attention_in_bfloat16_is_near_float32():
    wide, narrow = arguments(torch.float32), arguments(torch.bfloat16)
    expected = attend(*wide, 0.3)
    torch.testing.assert_close(attend(*narrow, 0.3).float(), expected, rtol=0.02, atol=0.02)
    with torch.no_grad():
        torch.testing.assert_close(attend(*narrow, 0.3).float(), expected, rtol=0.02, atol=0.02)
