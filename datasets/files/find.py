"""The image files that a user means, and where their masks go."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.files.dicom import is_dicom
from datasets.files.image import suffix_of
from utils.errors import UserError
from utils.files import check_writable

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
# What predict.py may write for an input NAME
ENDINGS = ("_mask.png", "_mask.npy", "_mask.tif", "_mask.nii.gz", "_overlay.png", "_probabilities.npz")


@dataclass
class Inputs:
    """What is to be segmented.

    places: file, or folder of a DICOM series -> where it lies below the folder that was given
    skipped: what those folders also hold, and why it is left out, in words
    notes: how the rest is read, where that may surprise
    """

    places: dict[Path, Path] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_inputs(words: Sequence[str], recursive: bool = False, out: Path | None = None) -> Inputs:
    """The files meant by `words`: files, folders, or patterns such as `scans/*.nii.gz`.

    A folder stands for its images, or for itself where all of them are DICOM: they are one series. `recursive` also
    searches the folders in it, but never `out`. A word that is the name of a file is no pattern.
    raises: UserError for what is not there, and for a folder without images
    """
    found = Inputs()
    for path in (path for word in words for path in _expand(word)):
        if not path.is_dir():
            found.places.setdefault(path, Path(path.name))
            continue
        before = len(found.places)
        for folder in _folders(path, recursive, out, found):
            _search(folder, path, found)
        if len(found.places) == before:
            more = "" if recursive else "; give --recursive to search the folders in it"
            raise UserError(f"--input {path}: it holds no image of a known kind{more}")
    if not found.places:
        raise UserError("--input: nothing given; name files or folders to segment")
    found.notes += _channels(found.places)
    return found


def _expand(word: str) -> list[Path]:
    """The paths that a word means."""
    if word and Path(word).exists():
        return [Path(word)]
    if not glob.has_magic(word):
        raise UserError(f"--input {word}: no such file or folder")
    if not (matches := sorted(glob.glob(word, recursive=True))):  # noqa: PTH207 - Path.glob takes no absolute pattern
        raise UserError(f"--input {word}: no file has such a name")
    return [Path(match) for match in matches]


def _folders(root: Path, recursive: bool, out: Path | None, found: Inputs) -> Iterator[Path]:
    """`root`, and where `recursive` the folders in it; else those are skipped. Hidden ones are passed over."""
    for name, folders, _ in os.walk(root):
        folder = Path(name)
        inner = sorted(inner for inner in folders if not inner.startswith("."))
        own = [inner for inner in inner if out and (folder / inner).resolve() == out.resolve()]
        folders[:] = [inner for inner in inner if inner not in own] if recursive else []
        found.skipped += [f"{folder / inner}: the output folder" for inner in own]
        if not recursive:
            found.skipped += [f"{folder / inner}: a folder; give --recursive" for inner in inner if inner not in own]
        yield folder


def _search(folder: Path, root: Path, found: Inputs) -> None:
    """Add the images of one folder, which was found below `root`."""
    kinds = {path: _kind(path) for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    images = [path for path, kind in kinds.items() if kind]
    found.skipped += [f"{path}: no image of a known kind" for path, kind in kinds.items() if not kind]
    series = [path for path in images if kinds[path] == ".dcm"]
    below = Path(root.resolve().name) if folder == root else folder.relative_to(root)
    if series and len(series) == len(images):
        found.places.setdefault(folder, below)
        return
    if series:
        note = f"{len(series)} DICOM files beside other images, each segmented alone; a series needs its own folder"
        found.notes.append(f"{folder}: {note}")
    for path in images:
        found.places.setdefault(path, path.relative_to(root))


def _channels(places: Iterable[Path]) -> list[str]:
    """A warning of the first two files that nnU-Net would call channels of one image: X_0000.nii.gz, X_0001.nii.gz."""
    there = set(places)
    for path in sorted(there):
        suffix, name = suffix_of(path), path.name
        other = path.parent / f"{name[: -len(suffix) - 1]}1{suffix}"
        if suffix in VOLUME_SUFFIXES and name.endswith(f"_0000{suffix}") and other in there:
            found = f"warning: {path} and {other} look like channels of one image, and each is segmented by itself"
            remedy = f"name the files of the one it was trained on, such as --input '{path.parent}/*_0000{suffix}'"
            return [f"{found}; a network sees one channel: {remedy}"]
    return []


def _kind(path: Path) -> str:
    """The suffix of a known kind of image; that of DICOM for a file that only begins like it."""
    try:
        return suffix_of(path) or (".dcm" if path.name.upper() != "DICOMDIR" and is_dicom(path) else "")
    except (OSError, UserError):  # may not be read
        return ""


def mask_paths(out: Path, places: Mapping[Path, Path], force: bool) -> list[Path]:
    """Where the results of each input go, without their endings; the folder `out` is made.

    An input lies below `out` as below the folder that was given, or, where two would have one name, as below the folder
    that holds all inputs. Files of one folder that differ in their ending alone, such as x.jpg and x.png, keep it.
    raises: UserError, before anything is predicted, where results exist already or would replace an input
    """
    names = list(places.values())
    if len({_fold(name) for name in names}) < len(names):
        common = os.path.commonpath([path.resolve().parent for path in places])
        names = [path.resolve().relative_to(common) for path in places]
    bare = [name.with_name(_stem(path, name)) for path, name in zip(places, names)]
    count = Counter(map(_fold, bare))
    bare = [name if count[_fold(short)] > 1 else short for name, short in zip(names, bare)]
    if twice := [str(name) for name, times in Counter(map(_fold, bare)).items() if times > 1]:
        raise UserError(f"--input: several files would have one mask, {', '.join(twice[:5])}; segment them one by one")
    results = {out / name.with_name(name.name + ending): path for path, name in zip(places, bare) for ending in ENDINGS}
    inputs = {path.resolve() for path in places}
    if lost := [f"{new} (of {path})" for new, path in results.items() if new.resolve() in inputs]:
        raise UserError(f"--output_dir {out}: a mask would replace an input, {lost[0]}; give another folder")
    held = sorted(str(path.relative_to(out)) for path in results if os.path.lexists(path))
    if held and not force:
        listed = ", ".join(held[:5])
        raise UserError(f"--output_dir {out}: already holds {listed}; give --force to replace, or another folder")
    check_writable(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {out}: cannot be made ({error.strerror}); give another folder") from None
    return [out / name for name in bare]


def _stem(path: Path, name: Path) -> str:
    """The name without the ending of its kind; a folder keeps all of it."""
    suffix = "" if path.is_dir() else suffix_of(path)
    return name.name[: -len(suffix)] if suffix and len(name.name) > len(suffix) else name.name


def _fold(path: Path) -> str:
    """What two paths have in common that some file systems take for one."""
    return path.as_posix().casefold()
