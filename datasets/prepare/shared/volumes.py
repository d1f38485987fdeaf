"""Raw volumes with labels -> slices (npz) and volumes (h5) of the Synapse layout, all turned to one orientation.

Letters: D slices, H rows, W columns, in the directions that `orientation` names (utils/inference/orientation.py).
"""

from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datasets.files.dicom import quiet_itk
from datasets.files.image import Image, read_image, suffix_of
from datasets.files.nifti import whole_nifti
from datasets.prepare.shared.sources import SourceFile
from utils.errors import UserError, join_listed
from utils.files import reading, replacing
from utils.inference.orientation import turn, turn_spacing
from utils.preprocess import ORIENTATIONS
from utils.preprocess.intensities import to_unit

FOLDERS = ("train_npz", "test_vol_h5", "lists")
AXIAL = "SPL"  # slices grow upwards, rows to the back, columns to the left: a standard axial CT
# How far headers of image and label may differ, in voxels: the step along each axis, and the place of the first voxel.
# More than rounding: qform and sform of one NIfTI file, both float32, differ by up to 0.00025 and 0.015 (60 volumes).
MAX_STEP, MAX_SHIFT = 0.001, 0.05


def add_orientation(parser: ArgumentParser, default: str) -> None:
    """The flag --orientation; a wrong one is a UserError."""

    def known(text: str) -> str:
        if text not in ORIENTATIONS[1:]:
            expected = f"three letters, one of R and L, one of A and P, one of I and S, such as {default}"
            raise UserError(f"--orientation {text}: expected {expected}")
        return text

    text = f"volumes: where the axes (slice, row, column) of what is written grow to (default {default})"
    parser.add_argument("--orientation", type=known, default=default, help=text)


def prepare_volume(
    target: Path,
    image: SourceFile,
    label: SourceFile,
    name: str,
    test: bool,
    orientation: str,
    intensity: str,
    label_map: dict[int, int],
    channel: int | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """Write one case as slices, or as one volume where it is to `test`; return the files and what `finish` needs.

    label_map: stored value -> class, for every value that may be there
    channel: the one to use of a file of four dimensions; another file must have its number in its name
    raises: UserError for files that do not fit each other or cannot be read
    """
    with image.local(target) as image_path, label.local(target) as label_path:
        stored, classes, spacing, affine = read_labelled(image_path, label_path, orientation, label_map, channel)
    unit = to_unit(stored, intensity, image.where)
    facts = {"slices": len(unit), "shape": list(unit.shape), "spacing": [round(value, 4) for value in spacing]}
    if intensity == "ct" and (unit.min() > 0 or unit.max() < 1):
        low, high = float(stored.min()), float(stored.max())
        facts["note"] = f"{image.where}: values from {low:g} to {high:g} do not fill the window: is it in HU?"
    place = {"spacing": spacing, "affine": affine, "orientation": orientation}
    if not test:
        names = [f"train_npz/{name}_slice{number:03d}.npz" for number in range(len(unit))]
        for number, (file, pixels, labels) in enumerate(zip(names, unit, classes)):
            place["affine"] = affine.copy()
            place["affine"][:3, 3] += number * affine[:3, 0]
            with replacing(target / file) as part:
                np.savez(part, image=pixels, label=labels, **place)
        return names, facts
    file = f"test_vol_h5/{name}.npy.h5"
    with replacing(target / file) as part, h5py.File(part, "w") as volume:
        volume["image"], volume["label"] = unit, classes
        volume.attrs.update(place)
    return [file], facts


def read_labelled(
    image_path: Path, label_path: Path, orientation: str, label_map: dict[int, int], channel: int | None
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...], np.ndarray]:
    """Read and turn an image and its label.

    out: image (D, H, W) in its stored type, label (D, H, W) uint8, spacing (D, H, W) in mm, affine (4, 4):
        (slice, row, column, 1) -> a point in mm in the patient's space, which grows to the left, to the back and
        upwards, as in DICOM
    A label without geometry lies where the image does.
    raises: UserError where their sizes or geometries differ or values cannot be used
    """
    image, label = _read(image_path, channel), read_image(label_path)
    if label.array.shape == image.array.shape and not label.orientation:
        label = replace(label, spacing=image.spacing, meta=image.meta)
    arrays = []
    for one in (image, label):
        if one.kind != "volume" or one.meta.get("dimension") == 2:
            what = "is a picture in colours"
            if one.kind == "volume":
                what = f"is 2-D ({one.array.shape[2]} x {one.array.shape[1]})"
            remedy = "save pictures and their masks as PNG, or stack the slices of a patient (SimpleITK.JoinSeries)"
            raise UserError(f"{one.path}: {what}; expected slices of grey values; {remedy}")
        if one.spacing is None or not one.orientation:
            remedy = "export it with its geometry (qform or sform of NIfTI, space of NRRD)"
            raise UserError(f"{one.path}: the file does not say how its volume lies in the patient; {remedy}")
        arrays.append(turn(one.array, one.orientation, orientation))
    pixels, classes = arrays
    if pixels.shape != classes.shape or not _lie_alike(image, label):
        raise UserError(_what_differs(image, label))
    spacing = turn_spacing(image.spacing, image.orientation, orientation)
    return pixels, _map_labels(classes, label_map, label.path), spacing, _affine(image, orientation)


def _read(path: Path, channel: int | None) -> Image:
    """The volume of a file that is one channel or, as NIfTI, holds `channel`. raises: UserError where it has none"""
    sitk = quiet_itk()
    reader = sitk.ImageFileReader()
    if is_nifti := suffix_of(path) in (".nii", ".nii.gz"):
        reader.SetFileName(str(path))
        with reading(path, as_what=" as NIfTI"):
            reader.ReadImageInformation()
    if not is_nifti or reader.GetDimension() != 4:
        if channel and not path.name[: -len(suffix_of(path))].endswith(f"_{channel:04d}"):
            raise UserError(f"{path}: found one channel, and no _{channel:04d} in its name; leave --channel out")
        return read_image(path)
    size = reader.GetSize()
    if channel is None or not 0 <= channel < size[3]:
        raise UserError(f"{path}: found {size[3]} channels; give the one to use as --channel 0 to {size[3] - 1}")
    reader.SetExtractIndex((0, 0, 0, channel))
    reader.SetExtractSize((*size[:3], 0))
    with reading(path, as_what=" as NIfTI"), whole_nifti(path) as whole:
        reader.SetFileName(str(whole))
        found = reader.Execute()
    meta = {"origin": found.GetOrigin(), "direction": found.GetDirection(), "dimension": 3}
    return Image(sitk.GetArrayFromImage(found), found.GetSpacing()[::-1], "volume", path, meta)


def _lie_alike(image: Image, label: Image) -> bool:
    """Whether the voxels of two volumes of one size are at the same places, in whatever order they are stored."""
    wanted, found = (_affine(one, image.orientation) for one in (image, label))
    sizes = np.linalg.norm(wanted[:3, :3], axis=0)
    apart = np.linalg.norm((found - wanted)[:3], axis=0) / (*sizes, min(sizes))
    return bool((apart < (MAX_STEP, MAX_STEP, MAX_STEP, MAX_SHIFT)).all())


def _what_differs(image: Image, label: Image) -> str:
    """The message with all that the two headers do not have in common."""
    words = []
    for one in (label, image):
        facts = {"size": one.array.shape[::-1], "spacing": one.spacing[::-1]}
        facts |= {name: one.meta[name] for name in ("origin", "direction")}
        words.append([f"{name} ({', '.join(f'{value:.7g}' for value in facts[name])})" for name in facts])
    found, expected = (", ".join(a for a, b in zip(these, others) if a != b) for these, others in (words, words[::-1]))
    if label.array.shape == image.array.shape:
        remedy = "copy the image's geometry to it (SimpleITK: label.CopyInformation(image))"
        remedy = f"if it was drawn on this image voxel by voxel, {remedy}"
    else:
        remedy = "SimpleITK.Resample(label, image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)"
        remedy = f"if it was drawn on another cut of this scan, resample it: {remedy}"
    expected = f"expected {expected} as {image.path} has (x, y, z)"
    return f"{label.path}: found {found}; {expected}; give the label of this image, or, {remedy}"


def _map_labels(label: np.ndarray, label_map: dict[int, int], path: Path) -> np.ndarray:
    """The class of every voxel, uint8. raises: UserError for values that `label_map` lacks"""
    values, counts = np.unique(label, return_counts=True)
    if unknown := [f"{v:g} ({n:,} voxels)" for v, n in zip(values, counts) if v not in label_map]:
        expected = ", ".join(map(str, label_map))
        raise UserError(f"{path}: found the labels {join_listed(unknown, 8, ', ')}; expected {expected}")
    classes = np.zeros(label.shape, np.uint8)
    for value in values:
        classes[label == value] = label_map[value]
    return classes


def _affine(image: Image, orientation: str) -> np.ndarray:
    """The affine of the turned array: its first voxel and the steps of its axes, found by turning the eight corners."""
    axes = np.reshape(image.meta["direction"], (3, 3))[:, ::-1] * np.array(image.spacing)  # steps of slice, row, column
    corners = turn(np.arange(8).reshape(2, 2, 2), image.orientation, orientation)
    ends = (corners[index] for index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)))
    first, *ends = (np.array(np.unravel_index(end, (2, 2, 2))) for end in ends)
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.stack([end - first for end in ends], axis=1)
    affine[:3, 3] = image.meta["origin"] + axes @ (first * (np.array(image.array.shape) - 1))
    return np.round(affine, 6) + 0.0  # the last bits of products differ between machines; + 0.0: no -0


def lists_of(parts: dict[str, list[str]], records: dict[str, Any]) -> dict[str, str]:
    """The list files in lists/: train.txt names slices, val_vol.txt and test_vol.txt volumes.

    parts: "train", "val" and "test" -> names of cases
    """
    slices = [Path(name).stem for case in parts["train"] for name in records[case]["outputs"]]
    texts = {"lists/train.txt": slices, "lists/test_vol.txt": parts["test"]}
    if parts.get("val"):
        texts["lists/val_vol.txt"] = parts["val"]
    return {name: "".join(f"{line}\n" for line in lines) for name, lines in texts.items()}
