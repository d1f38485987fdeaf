"""The network in PyTorch's own formats for other programs: traced and exported, saved and loaded again."""

import io

import pytest
import torch

from models.vssd import VSSDBlock
from tests.support.shallow import shallow_model


def image():
    return torch.randn(2, 1, 50, 64, generator=torch.Generator().manual_seed(0))


def traced(module, x):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, x), file)
    file.seek(0)
    return torch.jit.load(file)(x)


def exported(module, x):
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, (x,)), file)
    file.seek(0)
    return torch.export.load(file).module()(x)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated by PyTorch, still used by other programs
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_network():
    model = shallow_model(3).eval()
    torch.testing.assert_close(traced(model, image()), model(image()), rtol=1e-4, atol=1e-5)
    assert torch.equal(exported(model, image()), model(image()))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_encoder_block_of_the_noncausal_form():
    """The bidirectional form is the causal one twice."""
    block, x = VSSDBlock(32, 1, "noncausal").eval(), torch.randn(2, 8, 12, 32)
    torch.testing.assert_close(traced(block, x), block(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(exported(block, x), block(x))
