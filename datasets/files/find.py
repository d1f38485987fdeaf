"""The image files that a user means, and where their masks go."""

from collections.abc import Sequence
from pathlib import Path

from datasets.files.image import suffix_of
from utils.errors import UserError


def find_inputs(names: Sequence[str]) -> list[Path]:
    """The files meant by `names`: a folder stands for its images, or for itself where it holds a DICOM series.

    raises: UserError for what is not there, and for a folder without images
    """
    found: list[Path] = []
    for path in map(Path, names):
        if not path.exists():
            raise UserError(f"--input {path}: no such file or folder")
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        images = [p for p in files if suffix_of(p)]
        if not images:
            raise UserError(f"--input {path}: {len(files)} files, none of a known kind of image")
        found += [path] if any(suffix_of(p) == ".dcm" for p in images) else images
    if not found:
        raise UserError("--input: nothing given; name files or folders to segment")
    return found


def mask_paths(out: Path, paths: Sequence[Path], force: bool) -> list[Path]:
    """Where each mask goes, without the suffix, which the kind of its image decides.

    raises: UserError, before anything is predicted, where two inputs have one name or masks exist already
    """
    stems = [path.resolve().name.removesuffix(suffix_of(path)) for path in paths]
    if twice := ", ".join(sorted({stem for stem in stems if stems.count(stem) > 1})[:5]):
        raise UserError(f"--input: several files are called {twice}; segment them into different folders")
    held = ", ".join(sorted(p.name for stem in stems for p in out.glob(f"{stem}_mask.*"))[:5])
    if held and not force:
        raise UserError(f"--output_dir {out}: already holds {held}; give --force to replace, or another folder")
    out.mkdir(parents=True, exist_ok=True)
    return [out / f"{stem}_mask" for stem in stems]
