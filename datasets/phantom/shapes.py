"""Smooth random fields and implicit shapes, the clay of the phantom's anatomy.

A scene has slices D from the feet up, rows H from front to back, columns W from the patient's right to
the left, as a radiologist sees a slice. Lengths are in mm from the middle of the field of view.
An implicit shape is a field (D, H, W), below 1 inside and above 1 outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FIELD_OF_VIEW = 370.0
HEIGHT = 224.0
WARP = 4.0


@dataclass(frozen=True)
class Scene:
    """What is painted: coordinates x, y, z in mm, Hounsfield units `hu` and classes `label`, all (D, H, W)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    hu: np.ndarray
    label: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.hu.shape

    def paint(self, inside: np.ndarray, hu: float | np.ndarray, label: int | None = 0) -> None:
        """Give the voxels `inside` Hounsfield units and a class; `label` None leaves their class."""
        self.hu[inside] = hu[inside] if isinstance(hu, np.ndarray) else hu
        if label is not None:
            self.label[inside] = label


def empty_scene(rng: np.random.Generator, size: int, slices: int) -> Scene:
    """A scene of air whose coordinates are bent by about `WARP` mm, and scaled by the patient's build."""
    shape = (slices, size, size)
    plane = (np.arange(size) + 0.5) * FIELD_OF_VIEW / size - FIELD_OF_VIEW / 2
    z = (np.arange(slices) + 0.5) * HEIGHT / slices - HEIGHT / 2
    bend_x, bend_y, bend_z = (WARP * smooth_field(rng, shape, (3, 4, 4)) for _ in range(3))
    x = plane / rng.uniform(0.94, 1.06) + bend_x
    y = (plane[:, None] - rng.uniform(-8, 8)) / rng.uniform(0.9, 1.08) + bend_y
    z = z[:, None, None] - rng.uniform(-10, 10) + bend_z
    hu = np.full(shape, -1000, dtype=np.float32)
    x, y, z = (axis.astype(np.float32) for axis in (x, y, z))
    return Scene(x, y, z, hu, np.zeros(shape, dtype=np.uint8))


def crop(scene: Scene, points: Sequence[Sequence[float]], reach: float) -> tuple[Scene, tuple[slice, slice, slice]]:
    """The part of a scene, as views, that can lie within `reach` mm of a polyline of `points`, and its place."""
    place = []
    for axis, (coordinate, values) in enumerate(zip((scene.z, scene.y, scene.x), np.transpose(points)[::-1])):
        others = tuple({0, 1, 2} - {axis})
        low, high = coordinate.min(axis=others), coordinate.max(axis=others)
        indices = np.flatnonzero((high > values.min() - reach) & (low < values.max() + reach))
        place.append(slice(indices[0], indices[-1] + 1) if len(indices) else slice(0, 0))
    place = tuple(place)
    return Scene(*(array[place] for array in (scene.x, scene.y, scene.z, scene.hu, scene.label))), place


def smooth_field(rng: np.random.Generator, shape: tuple[int, int, int], cells: tuple[int, int, int]) -> np.ndarray:
    """A random field of mean 0 and standard deviation about 1 that varies over `cells` cells along each axis.

    A cubic B-spline with normal coefficients; the coefficients depend on `cells` alone, so that a patient
    has one anatomy at every resolution.
    """
    field = rng.standard_normal([count + 3 for count in cells])
    for axis in (2, 1, 0):
        field = _interpolate(field, axis, shape[axis], cells[axis]).astype(np.float32)
    return field


def _interpolate(coefficients: np.ndarray, axis: int, length: int, cells: int) -> np.ndarray:
    """A cubic B-spline of `coefficients` (cells + 3 along `axis`) at `length` places, scaled to keep the variance.

    A sum of four products rather than a matrix product: its result does not depend on the platform's BLAS.
    """
    position = (np.arange(length) + 0.5) / max(length, 1) * cells
    cell = np.minimum(position.astype(int), cells - 1)
    u = position - cell
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]) / 6
    weights /= np.sqrt((weights**2).sum() / max(length, 1))
    broadcast = [1, 1, 1]
    broadcast[axis] = length
    weights = weights.astype(coefficients.dtype)
    return sum(weight.reshape(broadcast) * coefficients.take(cell + i, axis) for i, weight in enumerate(weights))


def ellipsoid(scene: Scene, centre: Sequence[float], half: Sequence[float], power: float = 2) -> np.ndarray:
    """Implicit ellipsoid around `centre` with half axes `half`, both (x, y, z) or only (x, y) for a cylinder.

    A `power` above 2 makes it boxier.
    """
    axes = zip((scene.x, scene.y, scene.z), map(float, centre), map(float, half))
    if power == 2:  # far faster than a power, and the usual case
        return np.sqrt(sum(np.square((coordinate - middle) / length) for coordinate, middle, length in axes))
    return sum(np.abs((coordinate - middle) / length) ** power for coordinate, middle, length in axes) ** (1 / power)


def tube(scene: Scene, points: Sequence[Sequence[float]], radii: Sequence[float]) -> np.ndarray:
    """Implicit tube along a polyline of `points` (x, y, z) with a radius at each; infinite well away from it."""
    points, radii = np.asarray(points, dtype=np.float32), np.asarray(radii, dtype=np.float32)
    shape = np.full(scene.shape, np.inf, dtype=np.float32)
    part, place = crop(scene, points, 1.6 * max(radii))
    nearest = shape[place]
    for (start, radius), (end, radius_end) in zip(zip(points, radii), zip(points[1:], radii[1:])):
        axis = end - start
        x, y, z = part.x - start[0], part.y - start[1], part.z - start[2]
        along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / (axis @ axis), 0, 1)
        distance = np.sqrt((x - along * axis[0]) ** 2 + (y - along * axis[1]) ** 2 + (z - along * axis[2]) ** 2)
        np.minimum(nearest, distance / (radius + along * (radius_end - radius)), out=nearest)
    return shape
