"""The state-space operator against the recurrence, one token after another."""

import sys
import types

import pytest
import torch

from models import ssd
from models.ssd import SSD_FORMS, backend_name, chunk_length, ssd_bidirectional, ssd_causal, ssd_noncausal

pytestmark = pytest.mark.usefixtures("on_device64")


def recurrence(x, dt, A, B, C):
    state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[-1])
    outputs = []
    for t in range(x.shape[1]):
        added = torch.einsum("bh,bhp,bn->bhpn", dt[:, t], x[:, t], B[:, t])
        state = torch.exp(dt[:, t] * A)[..., None, None] * state + added
        outputs.append(torch.einsum("bhpn,bn->bhp", state, C[:, t]))
    return torch.stack(outputs, 1)


def both_ways(x, dt, A, B, C):
    back = recurrence(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1)).flip(1)
    return (recurrence(x, dt, A, B, C) + back) / 2


def all_at_once(x, dt, A, B, C):
    state = torch.einsum("bln,blh,h,blhp->bhnp", B, dt, -A, x)
    return torch.einsum("bln,bhnp->blhp", C, state)


ORACLES = {"causal": recurrence, "noncausal": all_at_once, "bidirectional": both_ways}


def arguments(length, heads=3, dim=5, state=4, batch=2, dtype=torch.float64, largest_dt=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    with torch.device("cpu"):
        x = torch.randn(batch, length, heads, dim, generator=g, dtype=torch.float64)
        dt = torch.rand(batch, length, heads, generator=g, dtype=torch.float64) * largest_dt
        A = -1 - 15 * torch.rand(heads, generator=g, dtype=torch.float64)
        B, C = (torch.randn(batch, length, state, generator=g, dtype=torch.float64) for _ in range(2))
    return [t.to(torch.get_default_device(), dtype).requires_grad_() for t in (x, dt, A, B, C)]


@pytest.mark.parametrize("form", SSD_FORMS)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_equals_its_definition_in_values_and_gradients(form, length):
    given = arguments(length)
    found, expected = SSD_FORMS[form](*given), ORACLES[form](*given)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(found)
    gradients = torch.autograd.grad((found * weight).sum(), given)
    for a, b in zip(gradients, torch.autograd.grad((expected * weight).sum(), given)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", SSD_FORMS)
def test_gradcheck(form):
    assert torch.autograd.gradcheck(SSD_FORMS[form], arguments(70, heads=1, dim=1, state=1, batch=1))


def with_long_pauses(wide):
    """Tokens that bring nothing and forget everything: the running sum over a chunk reaches thousands."""
    wide[0][:, ::40] = 0
    wide[1][:, ::40] = 300


def with_tiny_steps(wide):
    """Most steps are too small to move a float32 sum, some are large."""
    torch.manual_seed(2)
    wide[1].mul_(10 * torch.rand_like(wide[1]) ** 8)


@pytest.mark.parametrize("form", ["causal", "bidirectional"])
@pytest.mark.parametrize("change", [None, with_long_pauses, with_tiny_steps])
def test_float32_keeps_its_digits_whatever_the_decay(form, change):
    wide = arguments(150, largest_dt=0.05)
    if change:
        with torch.no_grad():
            change(wide)
    narrow = [t.detach().float().requires_grad_() for t in wide]
    found, expected = SSD_FORMS[form](*narrow), ORACLES[form](*wide)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    gradients = torch.autograd.grad(found.square().sum(), narrow)
    for i, (a, b) in enumerate(zip(gradients, torch.autograd.grad(expected.square().sum(), wide))):
        tolerance = 2e-4 if i == 2 else 1e-5  # the gradient of A multiplies what cancels by dt
        assert (a - b).abs().max() < tolerance * b.abs().max()


@pytest.mark.parametrize("form", SSD_FORMS)
def test_bfloat16_and_float16(form, device):
    given = [t.detach() for t in arguments(130, largest_dt=0.1)]
    expected = ORACLES[form](*given)
    for dtype, tolerance in [(torch.bfloat16, 0.02), (torch.float16, 0.003)]:
        x, dt, A, B, C = (t.float() if i in (1, 2) else t.to(dtype) for i, t in enumerate(given))
        with torch.autocast(device.type, torch.bfloat16):
            found = SSD_FORMS[form](x, dt, A, B, C)
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_causal_form_does_not_look_ahead_and_the_others_do():
    given = [t.detach() for t in arguments(150)]
    changed = [given[0].clone(), *given[1:]]
    changed[0][:, 100] += 1
    for form, function in SSD_FORMS.items():
        different = (function(*given) != function(*changed)).any(-1).any(-1).any(0)
        assert different[100]
        assert different[:100].any() == (form != "causal")


def test_bidirectional_form_has_no_preferred_direction():
    x, dt, A, B, C = (t.detach() for t in arguments(77))
    turned = ssd_bidirectional(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1)).flip(1)
    torch.testing.assert_close(ssd_bidirectional(x, dt, A, B, C), turned)


def test_noncausal_form_ignores_the_order_of_tokens():
    x, dt, A, B, C = (t.detach() for t in arguments(40))
    order = torch.arange(40).roll(7)
    shuffled = ssd_noncausal(x[:, order], dt[:, order], A, B[:, order], C[:, order])
    torch.testing.assert_close(ssd_noncausal(x, dt, A, B, C)[:, order], shuffled)


@pytest.mark.parametrize("length", [1, 7, 8, 64, 65, 196, 784, 3136, 4097, 16384, 65536])
def test_chunks_cover_a_sequence_with_little_padding(length):
    q = chunk_length(length)
    num_chunks = -(-length // q)
    assert q % 8 == 0
    assert q * num_chunks - length < 8 * num_chunks
    assert num_chunks <= max(length // 64 + 1, length**0.5 + 1)


@pytest.fixture
def fake_mamba(monkeypatch):
    """A package named mamba_ssm whose kernel runs the recurrence and remembers its chunk size."""
    calls = []

    def kernel(x, dt, A, B, C, chunk_size):
        calls.append(chunk_size)
        return recurrence(x, dt, A, B.squeeze(2), C.squeeze(2))

    names = ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.ops.triton.ssd_combined"]
    modules = {name: types.ModuleType(name) for name in names}
    modules[names[-1]].mamba_chunk_scan_combined = kernel
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    ssd.mamba_kernel.cache_clear()
    yield calls
    ssd.mamba_kernel.cache_clear()


def test_mamba_kernel_runs_where_it_may(fake_mamba, monkeypatch):
    with torch.device("cpu"):
        given = arguments(40)
    expected = ssd_causal(*given)
    assert not fake_mamba, "the kernel is for CUDA only"
    assert "mamba_ssm" in backend_name("causal", "cuda")
    monkeypatch.setattr(ssd, "runs_mamba", lambda x: True)
    torch.testing.assert_close(ssd_causal(*given), expected)
    assert len(fake_mamba) == 1


def test_backend_is_named():
    ssd.mamba_kernel.cache_clear()
    assert backend_name("causal", "cpu") == "causal: chunked, PyTorch"
    assert backend_name("bidirectional", torch.device("cpu")) == "bidirectional: chunked, PyTorch"
    assert "two matrix products" in backend_name("noncausal", "cuda")
