"""Receptive fields: their support against a slow propagation, their values against known answers."""

import math

import pytest
import torch
from torch import nn

from models import build_model
from models.ssd import ssd_causal
from tools.explain.receptive_field import Field, describe_field, fields_of, receptive_fields

HEIGHT, WIDTH = 192, 32  # tall: the causal form leaves rows of the first two stages' inputs untouched


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(2, "causal").double().eval()


@pytest.fixture(scope="module")
def fields(model):
    inputs = torch.randn(2, 1, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return {(field.form, field.stage): field for field in receptive_fields(model, inputs)}


def touched(mask):
    """Everything within a 3x3 neighbourhood of `mask` (H, W)."""
    return nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0


def upstream(mask, shape):
    """What a 3x3 convolution of stride 2 reads of a map of `shape` for the outputs in `mask`."""
    read = torch.zeros(shape, dtype=torch.bool)
    for row, column in mask.nonzero().tolist():
        rows, columns = slice(max(2 * row - 1, 0), 2 * row + 2), slice(max(2 * column - 1, 0), 2 * column + 2)
        read[rows, columns] = True
    return read


def until_last(mask):
    """All tokens up to the last one of `mask`, row by row."""
    flat = torch.zeros(mask.numel(), dtype=torch.bool)
    flat[: int(mask.flatten().nonzero().max()) + 1] = True
    return flat.view(mask.shape)


def support(stage, sees):
    """Input pixels that lead to the middle feature of `stage`, when SSD lets a token depend on `sees(tokens)`."""
    stride = 4 << stage
    mask = torch.zeros(HEIGHT // stride, WIDTH // stride, dtype=torch.bool)
    mask[HEIGHT // stride // 2, WIDTH // stride // 2] = True
    for _stage in range(stage, -1, -1):
        for _block in range(2):
            mask = touched(mask)  # cpe2
            mask = touched(touched(sees(mask)))  # the mixer's convolution, cpe1
        mask = upstream(mask, (2 * mask.shape[0], 2 * mask.shape[1]))
    return upstream(mask, (2 * mask.shape[0], 2 * mask.shape[1]))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_causal_form_sees_what_comes_before_and_the_convolutions_reach_no_more(fields, stage):
    expected = support(stage, until_last)
    assert torch.equal(fields["causal", stage].values > 0, expected)
    row = fields["causal", stage].middle[0]
    assert expected[: row + 1].all()
    if stage < 2:
        behind = fields["causal", stage].values[row + fields["causal", stage].reach + 1 :]
        assert len(behind) > 10
        assert not behind.any()


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("form", ["noncausal", "bidirectional"])
def test_the_other_forms_see_everything(fields, form, stage):
    assert (fields[form, stage].values > 0).all()


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (200, 40)])  # the second one is padded
def test_reach_is_that_of_the_convolutions(model, height, width):
    """Without SSD, the field is exactly the square of side 2 * reach + 1, cut off at the border."""
    network = build_model(2).double().eval()
    network.load_state_dict(model.state_dict())
    for stage in network.encoder:
        for block in stage:
            block.attn.ssd = lambda x, dt, A, B, C: torch.zeros_like(x)
    image = torch.randn(1, 1, height, width, dtype=torch.float64)
    for field in fields_of(network, image, "none", torch.Generator()):
        (row, column), reach = field.middle, field.reach
        assert field.stride == 4 << field.stage
        assert height // 2 - field.stride < row <= height // 2
        square = torch.zeros(height, width, dtype=torch.bool)
        square[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = True
        assert torch.equal(field.values > 0, square), field.stage


def test_fields_are_named_by_form_stage_and_place(fields):
    assert list(fields) == [(form, s) for form in ("causal", "noncausal", "bidirectional") for s in range(3)]
    for (_form, stage), field in fields.items():
        assert field.stride == 4 << stage
        assert field.middle == (HEIGHT // 2, WIDTH // 2)
        assert field.values.shape == (HEIGHT, WIDTH)
        assert field.values.dtype == torch.float64


def test_forms_share_weights_and_the_network_stays_as_it_was(model, fields):
    """The causal field is that of the whole network, and looking changes nothing in the network."""
    inputs = torch.randn(2, 1, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    itself = fields_of(model, inputs, "causal", torch.Generator().manual_seed(0))
    assert all(torch.equal(field.values, fields["causal", field.stage].values) for field in itself)
    assert model.encoder[0][0].attn.ssd is ssd_causal
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


class Shifts(nn.Module):
    """Channel c of a pixel is w_c times the square of the pixel at an offset: each pixel leads to one channel."""

    offsets = ((0, 0), (-2, 1), (3, -1))
    weights = (1.0, -2.0, 0.5)

    def forward(self, image):
        maps = [w * image[:, 0].square().roll((-r, -c), (1, 2)) for w, (r, c) in zip(self.weights, self.offsets)]
        return torch.stack(maps, dim=-1)


class OneStage(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([nn.ModuleList([Shifts()])])

    def forward(self, image):
        return self.encoder[0][0](image)


def test_values_are_the_root_mean_square_of_the_jacobian():
    inputs = torch.full((2, 1, 32, 32), 3.0, dtype=torch.float64)
    inputs[1] = -1.0  # gradients of the squares: 6 w and -2 w
    (field,) = fields_of(OneStage(), inputs, "toy", torch.Generator().manual_seed(3))
    expected = torch.zeros(32, 32, dtype=torch.float64)
    for weight, (row, column) in zip(Shifts.weights, Shifts.offsets):
        expected[16 + row, 16 + column] = abs(weight) * math.sqrt((36 + 4) / 2)
    torch.testing.assert_close(field.values, expected)
    assert (field.stride, field.middle) == (1, (16, 16))


def test_channels_of_one_pixel_do_not_cancel():
    """Random signs: over many inputs, 3 and -2 at one pixel make sqrt(13), neither 1 nor 5."""
    network = OneStage()
    network.encoder[0][0].offsets, network.encoder[0][0].weights = ((0, 0), (0, 0)), (3.0, -2.0)
    inputs = torch.full((3000, 1, 32, 32), 0.5, dtype=torch.float64)
    (field,) = fields_of(network, inputs, "toy", torch.Generator().manual_seed(3))
    assert float(field.values[16, 16]) == pytest.approx(math.sqrt(13), rel=0.05)


def made(values, middle=(2, 2), reach=1):
    return Field("causal", 0, 4, middle, reach, torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((2, 2), {"half_within": 0, "most_within": 0, "beyond": 0, "before": 0, "behind": 0, "reached": 0.04}),
        ((0, 2), {"half_within": 2, "most_within": 2, "beyond": 1, "before": 1, "behind": 0, "reached": 0.04}),
        ((4, 1), {"half_within": 2, "most_within": 2, "beyond": 1, "before": 0, "behind": 1, "reached": 0.04}),
        ((3, 0), {"half_within": 2, "most_within": 2, "beyond": 1, "before": 0, "behind": 0, "reached": 0.04}),
        ((1, 3), {"half_within": 1, "most_within": 1, "beyond": 0, "before": 0, "behind": 0, "reached": 0.04}),
    ],
)
def test_figures_of_a_single_point(place, expected):
    values = torch.zeros(5, 5)
    values[place] = 7
    found = describe_field(made(values.tolist()))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["felt"] == pytest.approx(0.04)


def test_figures_of_several_points():
    values = torch.zeros(5, 5)
    values[2, 2], values[2, 3], values[0, 0], values[4, 4] = 6.0, 3.05, 0.945, 0.005
    found = describe_field(made(values.tolist()))
    expected = {"half_within": 0, "most_within": 1, "beyond": 0.095, "before": 0.0945, "behind": 0.0005}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert (found["reached"], found["felt"]) == pytest.approx((4 / 25, 3 / 25))


def test_felt_is_a_thousandth_of_the_largest():
    values = torch.zeros(5, 5)
    values[0, :4] = torch.tensor([2.0, 0.0021, 0.0019, 1e-9])
    assert describe_field(made(values.tolist()))["felt"] == pytest.approx(2 / 25)


def test_figures_of_nothing():
    found = describe_field(made([[0.0] * 5] * 5))
    assert {name for name, value in found.items() if value is None} == {
        *("half_within", "most_within", "beyond", "before", "behind", "reached", "felt")
    }
    assert (found["form"], found["stage"], found["stride"], found["middle"]) == ("causal", 1, 4, [2, 2])
