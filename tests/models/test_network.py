"""The whole network: sizes, padding, stochastic depth, gradients, precision, torch.compile."""

import pytest
import torch
from torch import nn

from models import build_model
from models.build import NETWORKS, build_network, make_network, name_weights
from models.hetero_medseg import HeteroMedSeg
from tests.support.manifests import quick_model
from tests.support.shallow import shallow_model
from utils.config import Config
from utils.errors import UserError

SMALL = (2, 1, 64, 96)


@pytest.fixture(scope="module")
def model() -> HeteroMedSeg:
    return shallow_model(3).eval()


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(96, 96), (160, 224), (250, 333), (1, 1), (5, 31), (33, 64)])
def test_any_size_comes_back(model, size):
    with torch.inference_mode():
        assert model(image(1, 1, *size)).shape == (1, 3, *size)


def test_padding_repeats_the_border_to_the_right_and_below(model):
    x = image(1, 1, 40, 70)
    rows, columns = torch.arange(64).clamp(max=39), torch.arange(96).clamp(max=69)
    with torch.inference_mode():
        padded = model(x[:, :, rows][:, :, :, columns])
        torch.testing.assert_close(model(x), padded[:, :, :40, :70])


def test_one_channel_is_repeated_to_three(model):
    x = image(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), model(x.repeat(1, 3, 1, 1)))


def test_samples_do_not_see_each_other_in_evaluation(model):
    x = image(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ssd", ["causal", "noncausal", "bidirectional"])
def test_every_parameter_gets_a_gradient(ssd):
    model = shallow_model(4, ssd, drop_path=0.0).train()
    model(image(2, 1, 64, 96)).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("size", [(224, 64), (32, 32), (7, 5)])
def test_one_image_trains(size):
    model = shallow_model(2).train()
    model(image(1, 1, *size)).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_gradient_of_one_image_equals_finite_differences():
    """Along the direction of the gradient itself and one random direction, in float64 and training mode."""
    torch.manual_seed(0)
    model = shallow_model(2, drop_path=0.0).double().train()
    x, weight = image(1, 1, 64, 64).double(), image(1, 2, 64, 64, seed=1).double()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad((model(x) * weight).sum(), parameters)
    for direction in (gradients, [torch.randn_like(p) for p in parameters]):
        size = sum(d.square().sum() for d in direction).sqrt()
        slope = sum((g * d).sum() for g, d in zip(gradients, direction)) / size
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, direction):
                    p.add_(d, alpha=sign * 1e-6 / size.item())
                ends.append((model(x) * weight).sum())
                for p, d in zip(parameters, direction):
                    p.sub_(d, alpha=sign * 1e-6 / size.item())
        assert slope.item() == pytest.approx(((ends[0] - ends[1]) / 2e-6).item(), rel=1e-3, abs=1e-4)


def test_two_single_images_have_the_mean_gradient_of_the_pair():
    model = shallow_model(2).double().eval()
    x, weight = image(2, 1, 64, 64).double(), image(2, 2, 64, 64, seed=1).double()

    def gradients(i):
        loss = (model(x[i]) * weight[i]).sum() / len(x[i])
        return torch.autograd.grad(loss, list(model.parameters()))

    pair, first, second = gradients(slice(0, 2)), gradients(slice(0, 1)), gradients(slice(1, 2))
    for both, a, b in zip(pair, first, second):
        torch.testing.assert_close((a + b) / 2, both, rtol=1e-6, atol=1e-9)


def test_drop_rates_of_the_published_schedule():
    rates = quick_model(1).drop_rates
    ramp = [0.2 * i / 7 for i in range(8)]
    assert rates == pytest.approx(ramp[:6] + ramp + [0, 0.2] * 2)


def test_stochastic_depth_drops_whole_branches_of_samples():
    """Kept branches are scaled by 1 / (1 - rate); a rate of zero keeps all."""
    model = quick_model(1)
    torch.manual_seed(0)
    paths = model.draw_paths(4000, torch.device("cpu"))
    assert paths.shape == (18, 4000, 2)
    for keep, rate in zip(paths, model.drop_rates):
        assert keep.unique().tolist() == pytest.approx([0, 1 / (1 - rate)] if rate else [1])
        assert keep.mean().item() == pytest.approx(1, abs=0.03)
        assert rate == 0 or not torch.equal(keep[:, 0], keep[:, 1])


def test_an_image_drops_what_was_drawn_for_it_wherever_it_is_computed():
    """The draws of a batch, shared out over two calls, give what one call gives; evaluation drops nothing."""
    model, x = quick_model(2).eval(), image(3, 1, 32, 32)
    keep = model.draw_paths(3, x.device)
    with torch.inference_mode():
        whole, parts = model(x, keep), [model(x[part], keep[:, part]) for part in (slice(0, 2), slice(2, 3))]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(x), whole, atol=1e-3)


def test_training_is_random_and_repeatable():
    torch.manual_seed(0)
    model = build_model(2).train()
    x, outputs = image(2, 1, 32, 32), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_initial_weights():
    torch.manual_seed(0)
    model = build_model(9)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.03), name
            assert module.weight.abs().max() <= 0.12, name
            assert module.bias is None or not module.bias.any()
    for name, p in model.named_parameters():
        if name.endswith("A_log"):
            assert ((p.exp() >= 1) & (p.exp() <= 16)).all()
        if name.endswith("dt_bias"):
            dt = torch.nn.functional.softplus(p)
            assert ((dt > 0.0009) & (dt < 0.11)).all()
        if name.endswith((".D", "norm1.weight")):
            assert (p == 1).all()


class Passed(nn.Module):
    """In the place of a block: its output is its input."""

    def forward(self, x, *_):
        return x


def test_what_lies_around_the_blocks_compiles_as_one_graph():
    """In training; test_parity.py compiles the blocks, test_exchange.py exports the whole network in evaluation."""
    model = shallow_model(2).train()
    model.supervise_deeply()
    for blocks in (*model.encoder, *(stage.blocks for stage in model.decoder)):
        blocks[0] = Passed()
    for stage in model.decoder:
        stage.attention = Passed()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    outputs = []
    for network in (model, compiled):
        torch.manual_seed(1)
        outputs.append(network(image(*SMALL)))
    assert len(outputs[1]) == 3
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_classes": 0}, "num_classes: found 0"),
        ({"num_classes": 2, "ssd": "sideways"}, "causal, noncausal, bidirectional"),
        ({"num_classes": 2, "drop_path": 1.0}, "drop_path: found 1.0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        build_model(**arguments)


def test_a_network_that_is_not_there_and_weights_for_another_one(monkeypatch):
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match="--network unet: no such network; expected one of heteromedseg"):
        make_network(Config(network="unet"))
    monkeypatch.setitem(NETWORKS, "one", lambda cfg: nn.Conv2d(3, cfg.num_classes, 1))
    with pytest.raises(UserError, match=r"--pretrained biformer\.pth: there are none for --network one"):
        build_network(Config(network="one", pretrained="biformer.pth"), cpu)
    model, notes = build_network(Config(network="one", num_classes=2), cpu)
    assert isinstance(model, nn.Conv2d)
    assert notes[0] == "network one: 8 parameters"
    assert name_weights(Config(network="one")).pretrained == "none"
