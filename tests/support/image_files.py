"""A small valid file for every reader, written into a folder, and the function that reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from datasets.files.image import read_image
from datasets.images.split import read_split
from datasets.volumes.files import read_slice, read_volume
from datasets.volumes.lists import read_list
from tests.support.result_folders import write_result
from utils.results.page.curves import read_history
from utils.results.reading import read_result

RNG = np.random.default_rng(0)
PICTURE = np.repeat(np.repeat(RNG.integers(0, 256, (6, 9, 3), np.uint8), 4, 0), 4, 1)
VOLUME = RNG.integers(-1000, 1500, (3, 8, 10), dtype=np.int16)
UNIT = RNG.random((3, 8, 10), np.float32)
LABEL = RNG.integers(0, 9, (3, 8, 10), np.uint8)
HISTORY = "epoch,iteration,loss,lr,mean_dice,dice one\n0,3,0.9,1e-3,0.5,0.5\n1,6,0.8,1e-3,,\n2,9,0.7,5e-4,0.6,0.6\n"


@dataclass(frozen=True)
class Reader:
    """name: the file's, or the folder's; write: its path -> None; read: its path -> value.

    target: the file to damage, inside the folder of a series or of results
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    target: str = ""


def write_itk(path: Path) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((0.5, 0.75, 2.5))
    sitk.WriteImage(image, str(path), useCompression=path.suffix in (".gz", ".nrrd"))


def write_series(folder: Path, heights: tuple[float, ...] = (10, 12.5, 15, 17.5), uid: str = "1.2.3.4") -> list[Path]:
    """DICOM slices of one series in the order of their positions; returns their files."""
    import SimpleITK as sitk

    folder.mkdir(exist_ok=True)
    writer, files = sitk.ImageFileWriter(), []
    writer.KeepOriginalImageUIDOn()
    for index, height in enumerate(heights):
        image = sitk.GetImageFromArray(RNG.integers(0, 1000, (1, 8, 10)).astype(np.int16))
        tags = {"0020|000e": uid, "0020|000d": "1.2.3", "0008|0018": f"{uid}.{index + 1}", "0008|0060": "CT"}
        tags |= {"0020|0032": f"0\\0\\{height}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for key, value in tags.items():
            image.SetMetaData(key, value)
        files.append(folder / f"{uid}_{index}.dcm")
        writer.SetFileName(str(files[-1]))
        writer.Execute(image)
    return files


def write_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["image"], file["label"], file.attrs["spacing"] = UNIT, LABEL, (2.5, 0.5, 0.75)


def write_packed_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, array in (("image", UNIT), ("label", LABEL)):
            file.create_dataset(name, data=array, chunks=(1, 8, 10), compression="gzip", shuffle=True, fletcher32=True)


def array_of(path: Path) -> tuple[Any, ...]:
    image = read_image(path)
    return image.array, image.spacing


def parts_of_volume(path: Path) -> tuple[Any, ...]:
    volume = read_volume(path, "case", 9)
    return volume.image, volume.label, volume.spacing


def parts_of_result(folder: Path) -> tuple[Any, ...]:
    result = read_result(folder)
    return result.summary, result.rows


def picture_writer(path: Path) -> None:
    cv2.imencode(path.suffix, PICTURE)[1].tofile(path)


READERS = {
    **{kind: Reader(f"a.{kind}", picture_writer, array_of) for kind in ("png", "jpg", "tif", "bmp")},
    "npy": Reader("a.npy", lambda path: np.save(path, VOLUME), array_of),
    "npz": Reader("a.npz", lambda path: np.savez_compressed(path, image=VOLUME, spacing=(2.5, 1, 1)), array_of),
    "h5": Reader("a.h5", write_packed_h5, array_of),
    **{kind: Reader(f"a.{kind}", write_itk, array_of) for kind in ("nii", "nii.gz", "nrrd", "mha")},
    "dcm": Reader("s", write_series, lambda path: array_of(path / "1.2.3.4_1.dcm"), "1.2.3.4_1.dcm"),
    "series": Reader("s", write_series, array_of, "1.2.3.4_3.dcm"),
    "slice": Reader("a.npz", lambda path: np.savez(path, image=UNIT[0], label=LABEL[0]), lambda p: read_slice(p, 9)),
    "volume": Reader("a.npy.h5", write_h5, parts_of_volume),
    "list": Reader("train.txt", lambda path: path.write_text("case0005_slice000\ncase0005_slice001\n"), read_list),
    "split": Reader(
        "a.csv",
        lambda path: path.write_text("image_id,category,fold,group\na,train,0,p\nb,train,1,q\nc,test,,r\n"),
        read_split,
    ),
    "history": Reader("history.csv", lambda path: path.write_text(HISTORY), read_history),
    "cases": Reader("r", write_result, parts_of_result, "cases.csv"),
    "summary": Reader("r", write_result, parts_of_result, "summary.json"),
}
TEXTS = ("list", "split", "history", "cases", "summary")
CHECKED = ("npz", "slice", "nii.gz")  # formats with a checksum of the values
