"""The plainly written network that the benchmarks measure against is the same network."""

import pytest
import torch

from benchmarks import plain as plainly
from benchmarks.plain import Plain
from tests.support.shallow import shallow_model


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Parameters of the smallest network with every kind of part, which `Plain` runs in its own way."""
    monkeypatch.setattr(plainly, "build_model", lambda num_classes, ssd, _: shallow_model(num_classes, ssd))


@pytest.mark.parametrize(
    ("ssd", "shape"),
    [("causal", (2, 1, 64, 96)), ("noncausal", (1, 3, 32, 64)), ("bidirectional", (1, 3, 32, 64))],
)
def test_plain_network_is_ours_in_values_and_gradients(ssd, shape):
    ours, plain = shallow_model(2, ssd).double(), Plain(2, ssd).double()
    ours.drop_rates = plain.drop_rates = [0.0] * len(ours.drop_rates)
    with torch.no_grad():  # away from the ones and zeros that hide a forgotten weight
        for parameter in ours.parameters():
            spread = 0.1 if parameter.ndim < 2 else 0.5 / parameter[0].numel() ** 0.5
            parameter.add_(torch.randn_like(parameter), alpha=spread)
    plain.load_state_dict(ours.state_dict())
    image = torch.randn(shape, dtype=torch.float64)
    found, expected = ours.train()(image), plain.train()(image)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * weight).sum(), m.parameters()) for y, m in ((found, ours), (expected, plain))]
    largest = max(g.abs().max() for g in gradients[0])
    for (name, _), a, b in zip(ours.named_parameters(), *gradients):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * float(largest), msg=name)


def test_plain_network_drops_branches_in_training_alone():
    plain = Plain(1)
    plain.drop_rates = [0.5] * len(plain.drop_rates)
    x = torch.rand(1, 3, 32, 32).repeat(2, 1, 1, 1)
    assert torch.equal(plain.eval()(x), plain(x))
    assert not torch.equal(*plain.train()(x).detach())
