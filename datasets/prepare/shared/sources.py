"""The files of a download: those below folders, and the members of zip archives, which are unpacked one at a time.

Nothing of a source is moved or changed. A member of an archive is refused where its name leads out of the folder that
it is unpacked into, where it is a link, and where its header says that it is larger than any file of these data sets.
"""

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from utils.errors import UserError, counted, join_listed
from utils.files import reading, replacing

LARGEST = 8 * 2**30  # bytes of one unpacked member: raw volumes take less than 1 GiB
BLOCK = 2**20


@dataclass(frozen=True)
class SourceFile:
    """One file of a download.

    name: its path below the source, with "/"; size: bytes, unpacked; path: the file itself, or the archive that holds
    it under the name `member`
    """

    name: str
    size: int
    path: Path
    member: str | None = None

    @property
    def base(self) -> str:
        """The file's own name, without folders."""
        return PurePosixPath(self.name).name

    @property
    def where(self) -> str:
        """The name for messages: with a folder, or the archive, where the file lies in no folder of its source."""
        return self.name if "/" in self.name else f"{self.folder}/{self.name}"

    @property
    def folder(self) -> str:
        """The name of the folder that holds the file, or of the archive where the file lies in no folder of it."""
        parents = PurePosixPath(self.name).parent.name or (self.path.parent.name if self.member is None else "")
        return parents or self.path.stem

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The file's bytes. raises: UserError where they cannot be read"""
        with reading(self.path, "download the file again"):
            if self.member is None:
                with self.path.open("rb") as file:
                    yield file
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                    yield file

    def sha256(self) -> str:
        """The checksum of the file's bytes, unpacked."""
        digest = hashlib.sha256()
        with self.open() as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def copy_to(self, path: Path) -> None:
        """Write the file's bytes to `path`, whole or not at all."""
        with replacing(path) as part, part.open("wb") as out, self.open() as file:
            shutil.copyfileobj(file, out, BLOCK)

    @contextlib.contextmanager
    def local(self, folder: Path | None = None) -> Iterator[Path]:
        """A path to read the file at, while the context lasts; a member is unpacked for that time.

        folder: where to unpack; None for the system's folder of temporary files
        A UserError within the context that names this path names `where` instead.
        """
        with contextlib.ExitStack() as stack:
            path = self.path
            if self.member is not None:
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=".unpacked-", dir=folder))
                path = Path(scratch) / self.base
                self.copy_to(path)
            try:
                yield path
            except UserError as error:
                raise UserError(str(error).replace(str(path), self.where)) from None


def list_files(sources: Sequence[Path]) -> list[SourceFile]:
    """Every file of folders and zip archives, sorted by name; hidden files and those that macOS adds are left out.

    raises: UserError for a source that is neither, or is damaged, and for members that must not be unpacked
    """
    files: list[SourceFile] = []
    for source in sources:
        if source.is_dir():
            below = (folder / name for folder, names in walk(source) for name in names)
            named = [(path.relative_to(source).as_posix(), path) for path in below if path.is_file()]
            files += [SourceFile(name, path.stat().st_size, path) for name, path in named if _is_wanted(name)]
        elif source.is_file():
            files += _members(source)
        else:
            raise UserError(f"{source}: no such folder or file; expected the folder of the download, or its zip")
    return sorted(files, key=lambda file: (file.name, str(file.path)))


def walk(source: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names in it that are no folders) of `source` and all folders below it, hidden ones left out.

    Links to folders are followed last; each folder is visited once, and none that holds `source`.
    """
    visited, waiting = {str(folder) for folder in source.resolve().parents}, [source]
    for top in waiting:
        for folder, inner, names in os.walk(top):
            inner[:] = sorted(name for name in inner if _is_wanted(name))
            real = os.path.realpath(folder)
            if real in visited:
                inner.clear()
                continue
            visited.add(real)
            waiting += [path for name in inner if (path := Path(folder, name)).is_symlink()]
            yield Path(folder), names


def _members(path: Path) -> list[SourceFile]:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: found no complete zip archive; expected a folder or a zip (unpack other archives)")
    with reading(path, "download the archive again"), zipfile.ZipFile(path) as archive:
        members = [(member.filename.replace("\\", "/"), member) for member in archive.infolist()]  # "\\": of Windows
    members = [(name, member) for name, member in members if not name.endswith("/") and _is_wanted(name)]
    problems = []
    for name, member in members:
        parts, kind = PurePosixPath(name).parts, stat.S_IFMT(member.external_attr >> 16)
        if PurePosixPath(name).is_absolute() or ".." in parts or ":" in parts[0]:
            problems.append(f"{member.filename!r}: leads out of the folder that it would be unpacked into")
        elif kind not in (0, stat.S_IFREG):
            problems.append(f"{member.filename!r}: is a link or no plain file")
        elif member.file_size > LARGEST:
            problems.append(f"{member.filename!r}: {member.file_size} bytes unpacked; expected at most {LARGEST}")
    if problems:
        raise UserError(f"{path}: {counted(len(problems), 'member')} must not be unpacked:\n  {join_listed(problems)}")
    return [SourceFile(name, member.file_size, path, member.filename) for name, member in members]


def find_once(files: Sequence[SourceFile], pattern: re.Pattern[str]) -> dict[tuple[str | None, ...], SourceFile]:
    """The files whose own names match `pattern`, by what its groups match, in lower case.

    raises: UserError for a file that is there twice
    """
    found: dict[tuple[str | None, ...], SourceFile] = {}
    for file in files:
        if match := pattern.fullmatch(file.base.lower()):
            other = found.setdefault(match.groups(), file)
            if other is not file:
                raise UserError(f"{file.base} is there twice: {other.where} and {file.where}; give the one to use")
    return found


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)
