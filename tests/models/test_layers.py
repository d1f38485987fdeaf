"""Small layers against plain PyTorch and einops; BatchNorm on one image and over several processes."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from models import layers
from models.layers import (
    BatchNorm,
    DepthwiseConv,
    Head,
    PatchExpand,
    add_branch,
    down_conv,
    pixel_shuffle,
    to_nchw,
    to_nhwc,
)

pytestmark = pytest.mark.usefixtures("on_device64")


def randn(*shape, seed=0):
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
    return numbers.to(torch.get_default_device())


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(7, 9), (1, 1), (2, 5)])
def test_depthwise_convolution(kernel, size):
    conv = DepthwiseConv(8, kernel).double()
    x = randn(2, *size, 8).requires_grad_()
    found = conv(x)
    expected = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=kernel // 2, groups=8)
    expected = expected.permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected)
    weight = randn(*found.shape, seed=1)
    inputs = [x, conv.weight, conv.bias]
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    for a, b in zip(gradients, torch.autograd.grad((expected * weight).sum(), inputs)):
        torch.testing.assert_close(a, b)


def test_maps_are_viewed_not_copied():
    x = torch.randn(2, 4, 5, 8)
    assert to_nchw(x).is_contiguous(memory_format=torch.channels_last)
    assert to_nhwc(to_nchw(x)).data_ptr() == x.data_ptr()
    assert DepthwiseConv(8, 3)(x).is_contiguous()


@pytest.mark.parametrize("scale", [2, 4])
def test_patch_expand(scale):
    module = PatchExpand(12, 6, scale)
    nn.init.normal_(module.norm.weight)
    x = torch.randn(2, 3, 5, 12)
    shuffled = rearrange(module.expand(x), "b h w (p q c) -> b (h p) (w q) c", p=scale, q=scale)
    torch.testing.assert_close(module(x), module.norm(shuffled))


def test_pixel_shuffle_puts_block_2p_plus_q_at_pixel_p_q():
    assert pixel_shuffle(torch.arange(8).view(1, 1, 2, 4, 1), 2)[0, :, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_head_equals_its_steps():
    torch.manual_seed(0)
    head = Head(8, 3).double()
    for p in head.parameters():
        nn.init.normal_(p)
    x = randn(2, 3, 5, 8).requires_grad_()
    expected = head.classify(head.expand(head.norm(x)).permute(0, 3, 1, 2))
    found = head(x)
    torch.testing.assert_close(found, expected)
    weight = randn(*found.shape, seed=1)
    inputs = [x, *head.parameters()]
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    for a, b in zip(gradients, torch.autograd.grad((expected * weight).sum(), inputs)):
        torch.testing.assert_close(a, b)


def test_add_branch():
    x, branch = torch.ones(3, 1, 1, 2), torch.full((3, 1, 1, 2), 1.5)
    assert add_branch(x, branch, None)[:, 0, 0, 0].tolist() == [2.5, 2.5, 2.5]
    y = add_branch(x, branch.bfloat16(), torch.tensor([0.0, 2.0, 2.0]))
    assert y.dtype == torch.float32
    assert y[:, 0, 0, 0].tolist() == [1, 4, 4]


def pair_of_norms():
    ours, torchs = BatchNorm(6).double(), nn.BatchNorm2d(6).double()
    with torch.no_grad():
        ours.weight.copy_(1 + torch.arange(6))
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_torch(training):
    ours, torchs = pair_of_norms()
    for step in range(3):
        x = 2 * randn(3, 6, 4, 5, seed=step) + 1
        torch.testing.assert_close(ours.train(training)(x), torchs.train(training)(x))
    for name, value in torchs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_batch_norm_of_a_single_value_uses_running_statistics():
    ours, torchs = pair_of_norms()
    x = randn(1, 6, 1, 1)
    torch.testing.assert_close(ours.train()(x), torchs.eval()(x))
    assert ours.num_batches_tracked == 0


def test_batch_norm_compiles_for_any_size():
    norm = BatchNorm(6)
    compiled = torch.compile(norm, backend="eager", dynamic=True, fullgraph=True)
    x = randn(3, 6, 4, 5).float()
    torch.testing.assert_close(compiled(x), norm(x))


def test_batch_norm_over_processes(monkeypatch):
    """Two processes with 3 and 1 images, played one after the other, equal one process with 4."""
    monkeypatch.setattr(layers, "world_size", lambda: 2)
    x, sums, outputs = 100 + randn(4, 6, 3, 5), [], []
    torchs = pair_of_norms()[1]
    expected = torchs(x)
    for part in x.split([3, 1]):
        monkeypatch.setattr(layers, "all_reduce_sum", lambda values: sums.append(values) or values)
        pair_of_norms()[0](part)
    for part in x.split([3, 1]):
        monkeypatch.setattr(layers, "all_reduce_sum", lambda values: sums[0] + sums[1])
        ours = pair_of_norms()[0]
        outputs.append(ours(part))
        for name, value in torchs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(torch.cat(outputs), expected)


def test_batch_norm_over_processes_keeps_gradients(monkeypatch):
    ours, torchs = pair_of_norms()
    monkeypatch.setattr(layers, "world_size", lambda: 2)
    monkeypatch.setattr(layers, "all_reduce_sum", lambda values: values)
    x, weight = randn(4, 6, 3, 5).requires_grad_(), randn(4, 6, 3, 5, seed=1)
    found, expected = (
        torch.autograd.grad((norm(x) * weight).sum(), [x, norm.weight, norm.bias]) for norm in (ours, torchs)
    )
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_one_image_has_the_gradient_of_finite_differences(training, channels_last):
    """PyTorch's CPU backward of BatchNorm fails where the gradient comes from (1, L, C) viewed as a map."""
    torch.manual_seed(0)
    module = nn.Sequential(*down_conv(3, 5)).double().train(training)
    x = randn(1, 3, 8, 6)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    weight = randn(1, 12, 5, seed=1)

    def loss(x):
        return (module(x).flatten(2).transpose(1, 2) * weight).sum()

    (gradient,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    for seed in range(3):
        step = 1e-6 * randn(*x.shape, seed=10 + seed)
        with torch.no_grad():
            slope = (loss(x + step) - loss(x - step)) / 2
        assert (gradient * step).sum().item() == pytest.approx(slope.item(), rel=1e-6, abs=1e-13)
