"""A raw BTCV download in small: 30 cases of 13 labels, in several storage orientations and spacings.

A case is drawn in the patient's space, (z, y, x) growing upwards, to the back and to the left. Every organ is a block
at a place of its own, so that any wrong axis or direction shows. The body lies elsewhere in each case, so that a
network that has learnt places alone does not find the organs.
"""

import zipfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

NUMBERS = (*range(1, 11), *range(21, 41))
STORED = ("LAS", "LPS", "RAS", "PIR", "AIL", "RPI", "ILP")  # where x, y and z of the file grow to
# label -> (z, y, x) of the block's first voxel, in a volume of 6 x 40 x 48
PLACES = {
    1: (3, 24, 36),  # spleen: left, above
    2: (0, 30, 12),  # right kidney: right, behind
    3: (1, 32, 30),  # left kidney: left, behind
    4: (2, 10, 8),
    5: (4, 20, 22),
    6: (3, 8, 14),  # liver: right, above, in front
    7: (4, 10, 28),  # stomach: left, in front
    8: (0, 22, 20),
    9: (1, 22, 26),
    10: (2, 18, 18),
    11: (2, 16, 24),
    12: (4, 30, 16),
    13: (4, 30, 24),
}
SHAPE = (6, 40, 48)


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """HU int16 and label uint8, (z, y, x) in the patient's space; air and bone are in it."""
    rng = np.random.default_rng(number)
    hu = rng.integers(-1000, -800, SHAPE, dtype=np.int16)
    hu[:, 4:38, 4:44] = rng.integers(0, 60, (6, 34, 40))
    hu[:, 34:37, 22:26] = 900
    label = np.zeros(SHAPE, np.uint8)
    for value, (z, y, x) in PLACES.items():
        label[z : z + 2, y : y + 6, x : x + 6] = value
        hu[z : z + 2, y : y + 6, x : x + 6] += 150
    shift = rng.integers(-2, 3, 2)
    return np.roll(hu, shift, (1, 2)), np.roll(label, shift, (1, 2))


def spacing_of(number: int) -> tuple[float, float, float]:
    """(z, y, x) in mm."""
    return (5.0 if number % 3 else 3.0, 0.7 + number / 100, 0.7)


def write_case(images: Path, labels: Path, number: int, stored: str | None = None) -> None:
    """Write imgNNNN.nii.gz and labelNNNN.nii.gz, stored in one of STORED."""
    hu, label = draw(number)
    for array, folder, word in ((hu, images, "img"), (label, labels, "label")):
        folder.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing_of(number)[::-1])
        image.SetOrigin((-100.0, 20.0, 500.0 + number))
        image = sitk.DICOMOrient(image, stored or STORED[number % len(STORED)])
        sitk.WriteImage(image, str(folder / f"{word}{number:04d}.nii.gz"))


def write_download(root: Path, images: str = "img", labels: str = "label") -> Path:
    for number in NUMBERS:
        write_case(root / images, root / labels, number)
    return root


def zip_folder(folder: Path, archive: Path, prefix: str) -> Path:
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(folder.rglob("*.*")):
            out.write(path, f"{prefix}/{path.relative_to(folder).as_posix()}")
    return archive
