"""The embedded data set: simulated abdominal CT with the 8 organs of Synapse, in Synapse's layout.

    root/train_npz/case0001_slice000.npz   `image` (size, size) float32 in [0, 1], `label` float32 0..8
    root/test_vol_h5/case0011.npy.h5       `image`, `label` (slices, size, size); attribute `spacing` (z, y, x) in mm
    root/lists/train.txt, test_vol.txt     names
    root/phantom.json                      the parameters it was made with

Every patient has a seed of its own: the same parameters give the same data, and a patient stays the same whatever
the number of others. Windowed and scaled as PROTOCOL's Synapse: HU clipped to [-125, 275], then to [0, 1].
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage

from datasets.phantom.anatomy import draw_patient
from datasets.phantom.shapes import FIELD_OF_VIEW, HEIGHT, Scene, smooth_field
from datasets.volumes.files import Volume
from utils.device import num_cores
from utils.errors import UserError
from utils.files import read_json, replacing
from utils.preprocess.intensities import window_ct

MANIFEST = "phantom.json"


def write_phantom(
    root: str | Path, num_train: int = 10, num_test: int = 3, size: int = 128, slices: int = 32, seed: int = 1234
) -> None:
    """Write the data set to `root`, at once and whole; one of the same parameters that is there already is kept.

    raises: UserError for a folder that holds anything else
    """
    root, parameters = Path(root), {"num_train": num_train, "num_test": num_test, "size": size, "slices": slices}
    parameters |= {"seed": seed, "version": 1}
    if _is_there(root, parameters):
        return
    try:
        with replacing(root.absolute()) as part:
            _write(part, parameters)
            if root.is_dir():
                root.rmdir()
    except UserError:
        if not _is_there(root, parameters):  # else another process was faster: its data are the same
            raise


def _is_there(root: Path, parameters: dict[str, int]) -> bool:
    """Whether `root` is this very data set; UserError where it is something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = read_json(root / MANIFEST, "")
    except UserError:
        raise UserError(f"{root}: holds something that is no phantom data set; give an empty or a new folder") from None
    if found != parameters:
        expected = json.dumps(parameters)
        raise UserError(f"{root}: holds another phantom, {json.dumps(found)}; expected {expected}; give another folder")
    num_slices, num_volumes = len(list(root.glob("train_npz/*.npz"))), len(list(root.glob("test_vol_h5/*.h5")))
    if (num_slices, num_volumes) != (parameters["num_train"] * parameters["slices"], parameters["num_test"]):
        raise UserError(f"{root}: a phantom with files missing or added; remove the folder, it will be written anew")
    return True


def _write(root: Path, parameters: dict[str, int]) -> None:
    """Write all files; test cases are numbered after the training ones."""
    num_train, num_slices, size = parameters["num_train"], parameters["slices"], parameters["size"]
    cases = [f"case{number:04d}" for number in range(1, num_train + parameters["num_test"] + 1)]
    train, test = cases[:num_train], cases[num_train:]
    for folder in ("train_npz", "test_vol_h5", "lists"):
        (root / folder).mkdir(parents=True)
    slices = [f"{case}_slice{number:03d}" for case in train for number in range(num_slices)]
    (root / "lists/train.txt").write_text("\n".join(slices) + "\n", encoding="utf-8")
    (root / "lists/test_vol.txt").write_text("\n".join(test) + "\n", encoding="utf-8")

    def write_case(name: str, is_test: bool, index: int) -> None:
        case = draw_case(name, (parameters["seed"], int(is_test), index), size, num_slices)
        label = case.label.astype(np.float32)
        if is_test:
            with h5py.File(root / f"test_vol_h5/{name}.npy.h5", "w") as file:
                file["image"], file["label"] = case.image, label
                file.attrs["spacing"] = case.spacing
            return
        for number in range(num_slices):
            path = root / f"train_npz/{name}_slice{number:03d}.npz"
            np.savez(path, image=case.image[number], label=label[number])

    jobs = [(name, part is test, index) for part in (train, test) for index, name in enumerate(part)]
    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        list(pool.map(write_case, *zip(*jobs)))
    (root / MANIFEST).write_text(json.dumps(parameters), encoding="utf-8")


def draw_case(name: str, seed: tuple[int, ...], size: int, slices: int) -> Volume:
    """One simulated scan: image (slices, size, size) in [0, 1], label 0..8, spacing (z, y, x) in mm."""
    rng = np.random.default_rng(seed)
    scene = draw_patient(rng, size, slices)
    spacing = (HEIGHT / slices, FIELD_OF_VIEW / size, FIELD_OF_VIEW / size)
    return Volume(name, window_ct(_scan(scene, rng)), scene.label, spacing)


def _scan(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Whole Hounsfield units that a scanner would see: blurred, uneven, noisiest where rays pass most matter."""
    hu = ndimage.gaussian_filter(np.clip(scene.hu, -1000, 600), (0.3, 0.55, 0.55))
    matter = hu.astype(np.float64) + 1000
    path = matter.mean(axis=1, keepdims=True) + matter.mean(axis=2, keepdims=True)
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape), (0, 0.6, 0.6))
    noise *= rng.uniform(8, 14) / noise.std() * np.exp(0.9 * (path / path.max() - 1))
    return np.rint(hu + noise + 5 * smooth_field(rng, hu.shape, (2, 3, 3)))
