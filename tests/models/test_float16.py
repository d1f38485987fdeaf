"""The mixer under float16, whose largest number is 65,504."""

import pytest
import torch

from models import ssd
from models.ssd import SSD_FORMS
from models.vssd import Mixer
from tests.support.fill import fill_module

LOSS_SCALE = 65536  # what torch.amp.GradScaler begins with


@pytest.mark.parametrize("form", SSD_FORMS)
def test_sums_beyond_its_range_stay_finite(form):
    """The state-space sums reach 3e5 and more here; the LayerNorm behind them brings them back into range."""
    mixer = fill_module(Mixer(96, 3, form), "mixer")
    u = 8 * torch.randn(1, 16, 16, 96, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.float16):
        y = mixer(u)
    torch.testing.assert_close(y.float(), mixer(u), rtol=0.02, atol=0.1)
    (LOSS_SCALE * y.float().mean()).backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


def test_mamba_kernel_gets_float32(monkeypatch):
    """The fused kernel returns the type of its input, which must hold sums over all tokens."""
    seen = []

    def kernel(x, dt, A, B, C, chunk_size):
        seen.extend(t.dtype for t in (x, dt, A, B, C))
        return x

    monkeypatch.setattr(ssd, "runs_mamba", lambda x: True)
    monkeypatch.setattr(ssd, "mamba_kernel", lambda: kernel)
    x, b = torch.ones(1, 4, 2, 8, dtype=torch.float16), torch.ones(1, 4, 3, dtype=torch.float16)
    y = ssd.ssd_causal(x, torch.ones(1, 4, 2), -torch.ones(2), b, b)
    assert {*seen, y.dtype} == {torch.float32}
