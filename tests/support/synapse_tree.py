"""Small trees in the Synapse layout for tests; an image is drawn without a look at its label."""

from pathlib import Path

import h5py
import numpy as np

LISTED = ["case0005_slice002", "case0005_slice010", "case0005_slice001", "case0021_slice000"]
VOLUMES = ["case0008", "case0022"]


def random_image(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def random_label(seed: int, shape: tuple[int, ...], dtype: str = "float32", num_classes: int = 9) -> np.ndarray:
    """Blocks of 4 pixels of one class each, so that a wrong row or column shows."""
    blocks = np.random.default_rng([seed, 2]).integers(0, num_classes, [-(-length // 4) for length in shape])
    for axis in range(len(shape)):
        blocks = blocks.repeat(4, axis)
    return blocks[tuple(slice(length) for length in shape)].astype(dtype)


def write_slices(
    root: Path, names: list[str] = LISTED, shape: tuple[int, int] = (24, 20), dtype: str = "float32"
) -> Path:
    folder = root / "train_npz"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        np.savez(folder / f"{name}.npz", image=random_image(seed, shape, dtype), label=random_label(seed, shape))
    return folder


def write_volume(path: Path, seed: int, shape: tuple[int, int, int] = (5, 18, 22), **more: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        arrays = {"image": random_image(seed, shape), "label": random_label(seed, shape), **more}
        for key, array in arrays.items():
            if array is not None:
                file[key] = array
