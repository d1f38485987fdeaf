"""prepared.json: how the images of a prepared folder were made, for the configuration of a training.

    {"class_names": ["aorta", ...], "intensity": "ct", "orientation": "SLP"}

class_names: the foreground classes in the order of their labels; intensity and orientation: as in `Preprocess`.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from datasets.volumes.lists import INNER_FOLDERS
from utils.errors import UserError
from utils.files import read_json, write_atomically
from utils.preprocess import INTENSITIES, ORIENTATIONS, UNKNOWN, Preprocess

PREPARED = "prepared.json"


class Prepared(NamedTuple):
    """How the images of a folder were made."""

    class_names: tuple[str, ...]
    intensity: str
    orientation: str


def write_prepared(folder: Path, made: Prepared) -> None:
    write_atomically(folder / PREPARED, json.dumps(made._asdict(), indent=2, ensure_ascii=False) + "\n")


def find_prepared(data: Path) -> tuple[Path, Prepared | None]:
    """The prepared folder that `data` is, or whose train_npz or test_vol_h5 it is, and what its prepared.json says."""
    inner = data.absolute().name in INNER_FOLDERS and not (data / PREPARED).exists()
    root = data.absolute().parent if inner else data
    return root, read_prepared(root)


def as_prepared(pre: Preprocess, given: Mapping[str, Any], root: Path, made: Prepared) -> Preprocess:
    """`pre` with intensity and orientation of the prepared folder `root`.

    raises: UserError where the flags `given` name an intensity, which would be applied a second time
    """
    if given.get("intensity", "auto") != "auto":
        found = f"the images of {root} have theirs already ({made.intensity}, see {PREPARED})"
        raise UserError(f"--intensity {given['intensity']}: {found}; leave the flag out")
    return replace(pre, intensity=made.intensity, orientation=made.orientation)


def read_prepared(folder: Path) -> Prepared | None:
    """What prepared.json of `folder` says; None where there is none. raises: UserError where it says something else"""
    path = folder / PREPARED
    if not path.is_file():
        return None
    found = read_json(path, "prepare the folder again")
    fields = sorted(found) if isinstance(found, dict) else found
    if fields != sorted(Prepared._fields):
        raise UserError(f"{path}: found {fields}; expected {', '.join(Prepared._fields)}; prepare the folder again")
    names, intensity, orientation = found["class_names"], found["intensity"], found["orientation"]
    texts = isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)
    if not texts or not 1 <= len(set(names)) == len(names) <= 255 or not "".join(names).isprintable():
        expected = "1 to 255 different names of foreground classes, without control characters"
        raise UserError(f"{path}: class_names is {names!r}; expected {expected}")
    if intensity not in (*INTENSITIES, UNKNOWN):
        raise UserError(f"{path}: intensity is {intensity!r}; expected one of {', '.join(INTENSITIES)}")
    if orientation not in ORIENTATIONS:
        raise UserError(f"{path}: orientation is {orientation!r}; expected three letters such as SPL, or none")
    return Prepared(tuple(names), intensity, orientation)
