"""manifest.json of a prepared folder: what was made of which files; a second machine can prove that it has the same.

Checksums are of what the arrays hold, not of the files that wrap them: a zip or HDF5 file has dates and versions in it.
prepared.json tells train.py how the images were made (`datasets/prepared.py`).
"""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

import h5py
import numpy as np

from datasets.files.arrays import read_arrays
from datasets.files.pictures import PICTURE_SUFFIXES, is_lossy, read_picture
from utils.errors import UserError
from utils.files import read_json, reading, write_atomically

MANIFEST = "manifest.json"
FORMAT = 1
KINDS = {"dataset": str, "sha256": str, "parameters": dict, "lists": dict}  # of fields
LIBRARIES = ("numpy", "h5py", "SimpleITK", "opencv-python-headless")


def content_sha256(path: Path) -> str:
    """The checksum of what `path` holds: names, types, shapes and values of its arrays; of other files, the bytes.

    raises: UserError as `read_arrays` and `read_picture`
    """
    digest = hashlib.sha256()
    with reading(path):
        if path.suffix == ".npz":
            arrays = read_arrays(path, sorted)
        elif path.suffix == ".h5":
            arrays = read_arrays(path, sorted)
            with h5py.File(path, "r") as file:
                attributes = dict(sorted(file.attrs.items()))
            arrays = {name: array for name, array in arrays.items() if name not in attributes} | attributes
        elif path.suffix.lower() in PICTURE_SUFFIXES and not is_lossy(path):
            arrays = {"picture": read_picture(path)}
        else:
            return hashlib.sha256(path.read_bytes()).hexdigest()
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        digest.update(f"{name} {array.dtype.str if array.dtype.kind != 'O' else 'text'} {array.shape}\n".encode())
        digest.update(str(array[()]).encode() if array.dtype.kind == "O" else array.tobytes())
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a prepared folder; None where there is none. raises: UserError where it is damaged or made up"""
    path = folder / MANIFEST
    if not path.exists():
        return None
    found = read_json(path, "remove it to prepare the folder anew")
    if not _is_manifest(found):
        raise UserError(f"{path}: no manifest of format {FORMAT}; remove it to prepare the folder anew")
    return found


def _is_manifest(found: Any) -> bool:
    """Whether the fields are of the kinds that `write_manifest` writes, and all names those of files below a folder."""
    try:
        cases = found["cases"].values()
        outputs = {name: out for case in cases for name, out in case["outputs"].items()}
        paths = [PurePath(name) for name in [*outputs, *found["lists"]]]
        return (
            found["format"] == FORMAT
            and all(type(found[name]) is kind for name, kind in KINDS.items())
            and all("sources" in case for case in cases)
            and all(isinstance(out["sha256"], str) and isinstance(out["bytes"], int) for out in outputs.values())
            and not any(path.is_absolute() or ".." in path.parts for path in paths)
        )
    except (LookupError, TypeError, AttributeError):
        return False


def write_manifest(
    folder: Path, dataset: str, parameters: dict[str, Any], cases: dict[str, Any], lists: dict[str, str]
) -> str:
    """Write the manifest and return the checksum of all outputs and lists.

    lists: name -> checksum of each list, split or table of classes
    """
    cases = dict(sorted(cases.items()))
    outputs = lists | {name: facts["sha256"] for case in cases.values() for name, facts in case["outputs"].items()}
    total = hashlib.sha256("\n".join(f"{outputs[name]} {name}" for name in sorted(outputs)).encode()).hexdigest()
    versions = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    head = {"format": FORMAT, "dataset": dataset, "sha256": total, "parameters": parameters, "versions": versions}
    text = json.dumps(head | {"lists": lists, "cases": cases}, indent=1, ensure_ascii=False)
    write_atomically(folder / MANIFEST, text + "\n")
    return total
