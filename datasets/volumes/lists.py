"""Names and places in the Synapse layout: list files, the file of each name, cases, a split by patient.

A name is a file's name without suffix: case0005_slice000 for a slice, case0001 for a volume.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.errors import UserError, counted, join_listed
from utils.files import read_text

SLICE_SUFFIXES = (".npz",)
VOLUME_SUFFIXES = (".npy.h5", ".npz.h5", ".h5")
INNER_FOLDERS = {"train_npz": SLICE_SUFFIXES, "test_vol_h5": VOLUME_SUFFIXES}


def is_data(folder: Path) -> bool:
    """Whether `folder` is laid out as slices and volumes, or is an inner folder of such a layout."""
    return folder.name in INNER_FOLDERS or any((folder / name).is_dir() for name in INNER_FOLDERS)


def find_root(path: str | Path, inner: str) -> Path:
    """The folder that holds the files of `inner` ("train_npz" or "test_vol_h5").

    `path` is the data folder, the inner folder itself, its sibling, or a folder with such files directly in it.
    raises: UserError where none of these exists
    """
    path = Path(path)
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UserError(f"{path}: found {found}; expected the data folder (with {inner}/) or {inner}/ itself")
    name = path.absolute().name  # "." has none
    if name == inner:
        return path
    siblings = [path.absolute().parent / inner] if name in INNER_FOLDERS else []
    for candidate in [path / inner, *siblings]:
        if candidate.is_dir():
            return candidate
    if any(file.name.endswith(INNER_FOLDERS[inner]) for file in path.iterdir()):
        return path
    suffixes = " or ".join(f"*{suffix}" for suffix in INNER_FOLDERS[inner])
    raise UserError(f"{path}: neither a folder {inner}/ in it nor files {suffixes}; give the data folder or {inner}/")


def strip_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """`name` without the first of `suffixes` that it ends with."""
    return next((name[: -len(suffix)] for suffix in suffixes if name.endswith(suffix)), name)


def read_list(path: str | Path) -> list[str]:
    """Names of a list file, one a line, without their suffixes. Blank lines are skipped; any line ending will do.

    raises: UserError when the file is missing, no text, empty, or names something twice
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such list file; expected one name a line (see --list_dir)")
    lines = read_text(path, "give a text file in UTF-8, one name a line", as_what=" as a list of names").splitlines()
    names = [strip_suffix(line.strip(), VOLUME_SUFFIXES + SLICE_SUFFIXES) for line in lines if line.strip()]
    if not names:
        raise UserError(f"{path}: the list is empty; expected one name a line")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        listed = join_listed(twice, 10, ", ")
        raise UserError(f"{path}: {counted(len(twice), 'name')} listed twice, remove one of each: {listed}")
    return names


def find_files(folder: str | Path, names: list[str], suffixes: tuple[str, ...]) -> list[Path]:
    """The file of each name in `folder`, with any of `suffixes`.

    raises: one UserError for all names without a file, or with two
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected files *{suffixes[0]} in it")
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.name.endswith(suffixes):
            files.setdefault(strip_suffix(file.name, suffixes), []).append(file)
    if missing := [name for name in names if name not in files]:
        remedy = "Complete the data, or take these names off the list"
        if not files:
            remedy = f"The folder holds no such file at all: is it the right one? (expected *{', *'.join(suffixes)})"
        elif len(missing) == len(names):
            like = next(iter(files.values()))[0].name
            remedy = f"The folder holds files like {like}: the list is of another data set; give its own (--list_dir)"
        found = f"{len(missing)} of {len(names)} listed names have no file *{suffixes[0]}"
        raise UserError(f"{folder}: {found}: {join_listed(missing, 10, ', ')}\n  {remedy}")
    if twice := [" and ".join(file.name for file in files[name]) for name in names if len(files[name]) > 1]:
        raise UserError(f"{folder}: one name, two files; remove one of each: {join_listed(twice, 10, '; ')}")
    return [files[name][0] for name in names]


def case_of(name: str) -> str:
    """case0005 of case0005_slice000; a name without a slice itself."""
    return name.partition("_slice")[0]


def patient_of(name: str) -> str:
    """The patient of a case or a slice by its name.

    That is what comes before `@` (`prepare_data.py folder --group-by`); the `sub-02` of `sub-02_ses-1_T1w`, as BIDS has
    it; else the case without its frame, such as `_frame01` of ACDC.
    """
    group, at, _ = case_of(name).partition("@")
    if at:
        return group
    bids = re.match(r"sub-[A-Za-z0-9]+(?=_[A-Za-z]|$)", group)
    return bids[0] if bids else re.sub(r"_frame\d+$", "", group)


def group_by_case(names: Iterable[str]) -> dict[str, list[str]]:
    """Case -> its slices by number; the case is the name up to `_slice`, the whole name where it has none."""
    cases: dict[str, list[str]] = {}
    for name in names:
        cases.setdefault(case_of(name), []).append(name)

    def number(name: str) -> int:
        digits = re.search(r"\d+$", name.partition("_slice")[2])
        return int(digits.group()) if digits else 0

    return {case: sorted(cases[case], key=number) for case in sorted(cases)}


def hold_out_cases(names: Sequence[str], num_cases: int, seed: int) -> tuple[list[str], list[str]]:
    """Slices to train on and slices of `num_cases` patients held out, both in the order of `names`.

    A seed gives one split, whatever the order of the list. Cases of a patient (`patient_of`) stay together.
    raises: UserError unless patients remain in both parts
    """
    patients = sorted({patient_of(name) for name in names})
    if not 0 < num_cases < len(patients):
        expected = f"1 to {len(patients) - 1}" if len(patients) > 1 else "a list of at least 2 cases"
        raise UserError(f"cannot hold out {num_cases} of {len(patients)} training cases; expected {expected}")
    order = np.random.default_rng(seed).permutation(len(patients))
    held_out = {patients[i] for i in order[:num_cases]}
    return tuple([n for n in names if (patient_of(n) in held_out) is held] for held in (False, True))
