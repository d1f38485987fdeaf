"""The network in PyTorch's own formats for other programs: traced and exported, saved and loaded again."""

import io

import pytest
import torch

from models.ssd import SSD_FORMS
from models.vssd import VSSDBlock
from tests.support.shallow import shallow_model


@pytest.fixture(scope="module", params=("causal", "noncausal"))
def model(request):
    return shallow_model(3, request.param).eval()


def image():
    return torch.randn(2, 1, 50, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated by PyTorch, still used by other programs
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_traced_network(model):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, image()), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(image()), model(image()), rtol=1e-4, atol=1e-5)


def exported(module, x):
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, (x,)), file)
    file.seek(0)
    return torch.export.load(file).module()(x)


@torch.no_grad()
def test_exported_network():
    model = shallow_model(3).eval()
    assert torch.equal(exported(model, image()), model(image()))


@pytest.mark.parametrize("form", SSD_FORMS)
@torch.no_grad()
def test_exported_block_of_each_form(form):
    block, x = VSSDBlock(32, 1, form).eval(), torch.randn(2, 8, 12, 32)
    assert torch.equal(exported(block, x), block(x))
