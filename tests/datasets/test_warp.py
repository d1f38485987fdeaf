"""The resampling: against a slow oracle pixel by pixel, exact flips, quarter turns, directions."""

import math

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets.augment import OPERATIONS, SynapseChoice, synapse_warp
from datasets.warp import Warp, compose, rotation, scaling, shearing, shifting, warp

pytestmark = pytest.mark.usefixtures("on_device")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def batch(size: int, channels: int, height: int, width: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, and targets of random labels that have nothing to do with it."""
    rng = generator(seed)
    images = torch.rand(size, channels, height, width, generator=rng)
    return images, torch.randint(0, 9, (size, height, width), generator=rng).to(torch.uint8)


def warp_of(matrix: torch.Tensor, moved: bool = True, flip_x: bool = False, flip_y: bool = False) -> Warp:
    rows = [torch.full((len(matrix),), value) for value in (flip_x, flip_y, moved)]
    return Warp(*rows, before=matrix)


def choice_of(names: list[str], **values: float | tuple[float, float] | torch.Tensor) -> SynapseChoice:
    """One sample that does `names` in their order, mirrors included, with the given values."""
    order = [OPERATIONS.index(name) for name in names]
    order += [index for index in reversed(range(len(OPERATIONS))) if index not in order]  # spatial ones next in line
    neutral = {"scale": (1.0, 1.0), "angle": 0.0, "shear": 0.0, "control": torch.zeros(2, 4, 4), "shift": (0.0, 0.0)}
    tensors = {
        name: torch.as_tensor(values.get(name, value)).to(torch.get_default_device())[None]
        for name, value in neutral.items()
    }
    true = torch.tensor([True])
    return SynapseChoice(torch.tensor([order]), torch.tensor([len(names)]), true, true, **tensors)


def oracle(image: np.ndarray, choice: SynapseChoice, order: int) -> np.ndarray:
    """Walk every output pixel back through the operations, the last one first, and read it with SciPy."""
    height, width = image.shape
    center = ((height - 1) / 2, (width - 1) / 2)
    places = np.zeros((2, height, width))
    for row in range(height):
        for column in range(width):
            x, y = column - center[1], row - center[0]
            for index in reversed(choice.order[0, : int(choice.count[0])].tolist()):
                x, y = undo(OPERATIONS[index], x, y, choice, height, width)
            places[:, row, column] = y + center[0], x + center[1]
    return ndimage.map_coordinates(image, places, order=order, mode="grid-constant", cval=0)


def undo(name: str, x: float, y: float, choice: SynapseChoice, height: int, width: int) -> tuple[float, float]:
    if name == "flip_x":
        return -x, y
    if name == "flip_y":
        return x, -y
    if name == "scale":
        return x / float(choice.scale[0, 0]), y / float(choice.scale[0, 1])
    if name == "rotate":  # the picture turned counter-clockwise as seen; y points down
        angle = float(choice.angle[0])
        return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    if name == "shear":
        return x - math.tan(float(choice.shear[0])) * y, y
    if name == "shift":
        return x - width * float(choice.shift[0, 0]), y - height * float(choice.shift[0, 1])
    if name == "piecewise":
        place = [[(y / height + 0.5) * 3], [(x / width + 0.5) * 3]]
        dx, dy = (
            float(ndimage.map_coordinates(plane.cpu().numpy(), place, order=1, mode="nearest")[0])
            for plane in choice.control[0]
        )
        return x + width * dx, y + height * dy
    return x, y


CONTROL = 0.03 * torch.randn(2, 4, 4, generator=generator(5))
VALUES = {
    "scale": (0.7, 1.6),
    "angle": math.radians(33),
    "shear": math.radians(-14),
    "control": CONTROL,
    "shift": (0.15, -0.1),
}


@pytest.mark.parametrize(
    "names",
    [
        ["scale"],
        ["rotate"],
        ["shear"],
        ["shift"],
        ["piecewise"],
        ["rotate", "scale"],
        ["scale", "rotate"],
        ["shift", "rotate", "shear", "scale"],
        ["rotate", "flip_x", "shear", "shift"],
        ["flip_y", "rotate", "piecewise", "scale"],
        ["piecewise", "shift", "flip_x", "rotate"],
        ["scale", "noise", "blur", "shift"],
        ["shift", "rotate", "scale", "piecewise"],
    ],
)
def test_the_drawn_order_is_the_order_in_which_the_operations_act(names):
    choice = choice_of(names, **VALUES)
    images, targets = batch(1, 1, 21, 34)
    got, labels = warp(images, targets, synapse_warp(choice, 21, 34))
    torch.testing.assert_close(
        got[0, 0].cpu().numpy(), oracle(images[0, 0].cpu().numpy(), choice, 1), atol=2e-4, rtol=0
    )
    expected = oracle(targets[0].cpu().numpy().astype(float), choice, 0)
    assert (labels[0].cpu().numpy() == expected).mean() > 0.995  # a rounded half may fall to either side


@pytest.mark.parametrize("shape", [(32, 32), (21, 34), (224, 224)])
@pytest.mark.parametrize(("names", "dims"), [(["flip_x"], [-1]), (["flip_y"], [-2]), (["flip_y", "flip_x"], [-1, -2])])
def test_flips_alone_are_exact(names, dims, shape):
    images, targets = batch(1, 1, *shape)
    got, labels = warp(images, targets, synapse_warp(choice_of(names, **VALUES), *shape))
    assert torch.equal(got, images.flip(dims))
    assert torch.equal(labels, targets.flip(dims))


def test_nothing_drawn_leaves_the_sample_as_it_is():
    images, targets = batch(1, 1, 21, 34)
    got, labels = warp(images, targets, synapse_warp(choice_of([], **VALUES), 21, 34))
    assert torch.equal(got, images)
    assert torch.equal(labels, targets)


@pytest.mark.parametrize("side", [32, 33])
def test_a_quarter_turn_is_rot90(side):
    images, targets = batch(2, 3, side, side)
    quarter = rotation(torch.tensor([math.pi / 2, -math.pi / 2]))
    got, labels = warp(images, targets, warp_of(quarter))
    for i, turns in enumerate((1, -1)):
        torch.testing.assert_close(got[i], images[i].rot90(turns, (-2, -1)), atol=1e-4, rtol=0)
        assert torch.equal(labels[i], targets[i].rot90(turns, (-2, -1)))


@pytest.mark.parametrize("shape", [(24, 40), (7, 5)])
def test_a_mirrored_border_is_opencvs(shape, device):
    rng = np.random.default_rng(0)
    image, mask = rng.random(shape, dtype=np.float32), rng.integers(0, 2, shape, dtype=np.uint8)
    angle, scale = 0.6, 0.7
    matrix = cv2.getRotationMatrix2D(((shape[1] - 1) / 2, (shape[0] - 1) / 2), math.degrees(angle), scale)
    expected = cv2.warpAffine(image, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    turned = compose(rotation(torch.tensor([angle])), scaling(torch.tensor([scale]), torch.tensor([scale])))
    given = torch.from_numpy(image)[None, None].to(device), torch.from_numpy(mask)[None].to(device)
    images, masks = warp(*given, warp_of(turned), mirror=True)
    assert np.abs(images[0, 0].cpu().numpy() - expected).mean() < 0.02  # OpenCV rounds places to 1/32 of a pixel
    nearest = cv2.warpAffine(mask, matrix, shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    assert (masks[0].cpu().numpy() != nearest).mean() < 0.1


def test_a_shift_by_whole_pixels_moves_content_right_and_down_and_fills_with_zero():
    images, targets = batch(1, 1, 20, 30)
    got, labels = warp(images, targets, warp_of(shifting(torch.tensor([3.0]), torch.tensor([2.0]))))
    torch.testing.assert_close(got[..., 2:, 3:], images[..., :-2, :-3], atol=1e-4, rtol=0)
    assert torch.equal(labels[:, 2:, 3:], targets[:, :-2, :-3])
    assert not got[..., :2, :].any()
    assert not labels[..., :3].any()


def test_scaling_and_shearing_point_the_way_they_say():
    image = torch.zeros(1, 1, 41, 41)
    image[..., 20, 30] = 1  # 10 to the right of the centre
    target = image[:, 0].to(torch.uint8)
    got, _ = warp(image, target, warp_of(scaling(torch.tensor([2.0]), torch.tensor([1.0]))))
    assert divmod(int(got.argmax()), 41) == (20, 40)
    image = torch.zeros(1, 1, 41, 41)
    image[..., 30, 20] = 1  # 10 below the centre
    got, _ = warp(image, target, warp_of(shearing(torch.tensor([math.atan(0.5)]))))
    assert divmod(int(got.argmax()), 41) == (30, 25)
