"""Checkpoint files: written whole or not at all, read without executing anything, found by name.

`torch.load(weights_only=True)` builds tensors and plain containers and refuses the rest. BiFormer's
file also holds the arguments that it was trained with, so exactly two further kinds of object are
allowed here: `argparse.Namespace`, and the paths of `pathlib`, which come back as pure paths so that a
Windows path can be read on Linux and the other way round.
"""

import argparse
import contextlib
import hashlib
import json
import pathlib
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch.serialization import safe_globals

from utils.checkpoint_content import CHECKSUM, checksum, verified
from utils.errors import UserError
from utils.files import replacing

REPOSITORY = Path(__file__).resolve().parents[1]
PLACES = (
    ".",
    REPOSITORY,
    REPOSITORY / "pretrained_ckpt",
    REPOSITORY / "synapse_train_test",
    REPOSITORY / "synapse_train_test/pretrained_ckpt",
    REPOSITORY / "save_models",
    REPOSITORY / "synapse_train_test/save_models",
)
ALIASES = {"synapse": "synapse_84.00.pth", "biformer": "biformer_base_best.pth", "vssd": "vssd_base.pth"}
SUFFIXES = (".pth", ".pt", ".safetensors")
SETTINGS = "heteromedseg"  # where a .safetensors file keeps, as JSON, what a checkpoint holds besides its weights

# What a pickle may name besides tensors -> what is built instead. Python 3.13 moved pathlib's classes.
PATHS = {
    "PosixPath": pathlib.PurePosixPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "WindowsPath": pathlib.PureWindowsPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
ALLOWED = [
    (argparse.Namespace, "argparse.Namespace"),
    *((kind, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name, kind in PATHS.items()),
]
# What `weights_only` would build of any size that a pickle asks for
OF_ANY_SIZE = re.compile(r"(builtins|__builtin__) bytearray|torch(\.\w+)* (\w*Tensor|TypedStorage|UntypedStorage)")


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` and its checksum to `path`, replacing it only once the new file is complete on the disk.

    Raises UserError when the disk is full or the folder cannot be written; what was at `path` stays.
    """
    with replacing(Path(path)) as part, part.open("wb") as file:
        torch.save(state | {CHECKSUM: checksum(state)}, file)


def read(path: str | Path) -> dict[str, Any]:
    """The dict that the checkpoint `path` holds, on the CPU; the zip and the older format of PyTorch.

    Raises UserError for a file that is missing, empty, damaged, of another kind, holds no dict, asks for anything to
    be built that is neither a tensor nor in `ALLOWED`, or is not what its checksum says (older files have none).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; expected a checkpoint file")
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error
    if not start:
        raise UserError(f"{path}: the file is empty; copy or download it again")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        _check_size(path, zipped=start.startswith(b"PK\x03\x04"))
        with path.open("rb") as file, safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript and odd pickles, which end as an error below anyway
            state = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # an unpickler raises whatever it likes on bytes that are no checkpoint
        raise UserError(f"{path}: {describe_failure(error, start)}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}; expected a dict of weights")
    return verified(state, str(path))


def _check_size(path: Path, zipped: bool) -> None:
    """Refuse a file that would take more memory than its own size, before it is loaded. raises: UserError

    In the zip format the pickle lies in `data.pkl`; the older format begins with four, and has one more behind them.
    """
    with path.open("rb") as file, contextlib.ExitStack() as stack:
        pickles: list[IO[bytes]] = [file] * 5
        if zipped:
            archive = stack.enter_context(zipfile.ZipFile(file))
            members = archive.infolist()
            if f"{members[0].filename.partition('/')[0]}/constants.pkl" in archive.namelist():
                return  # TorchScript, which PyTorch refuses before it builds anything
            if any(m.compress_type for m in members) or sum(m.file_size for m in members) > path.stat().st_size:
                raise UserError(f"{path}: its parts are compressed or overlap; expected a file as torch.save writes it")
            chosen = [member for member in members if member.filename.lower().endswith("data.pkl")]
            pickles = [stack.enter_context(archive.open(member)) for member in chosen]
        with contextlib.suppress(ValueError):  # loading says what is wrong with a damaged pickle
            for stream in pickles:
                asked = [value for code, value, _ in pickletools.genops(stream) if code.name == "GLOBAL"]
                if found := [name for name in asked if OF_ANY_SIZE.fullmatch(name)]:
                    raise UserError(f"{path}: asks to build {found[0]!r}; expected the tensors that the file holds")


def save_safetensors(path: Path, state: dict[str, Any], words: Mapping[str, str] | None = None) -> None:
    """Write `state` as safetensors: its `model` as tensors, the rest as JSON in the metadata, beside `words`."""
    from safetensors.torch import save_file

    weights = {name: state["model"][name].contiguous() for name in sorted(state["model"])}
    settings = {name: value for name, value in state.items() if name != "model"}
    settings[CHECKSUM] = checksum(settings | {"model": weights})
    save_file(weights, path, {**(words or {}), SETTINGS: json.dumps(settings)})


def _read_safetensors(path: Path) -> dict[str, Any]:
    """The dict that `save_safetensors` wrote."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise UserError(f"{path}: needs the package safetensors; pip install safetensors") from None
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {}).get(SETTINGS, "null"))
            weights = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except Exception as error:  # so does safetensors
        raise UserError(f"{path}: damaged, or no safetensors file ({first_line(error)}); copy it again") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no settings of this project; expected a file that tools.export wrote")
    return verified(settings | {"model": weights}, str(path))


def describe_failure(error: BaseException, start: bytes) -> str:
    """What to tell the user of a file that begins with the bytes `start` and failed with `error`."""
    unsafe = re.search(r"GLOBAL (\S+) (?:was not|whose module)", str(error))
    if unsafe:
        return (
            f"asks to run or build {unsafe[1]!r} while loading, which is not done: only tensors, plain containers, "
            "argparse.Namespace and pathlib paths are read. If you trust where it comes from, "
            "re-save its weights alone where it was made: torch.save(model.state_dict(), …)"
        )
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return (
            f"cannot be read as a PyTorch checkpoint; it is truncated, damaged or of another kind "
            f"({first_line(error)}). Copy or download it again and compare its size and sha256 with the source's"
        )
    return (
        f"not a PyTorch checkpoint: it begins with {start!r} (a web page or a Git LFS pointer saved in the "
        "file's place?). Download the file itself"
    )


def first_line(error: BaseException) -> str:
    """An error's kind and the first line of its message, shortened."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:160]}"


def locate(name: str | Path) -> Path | None:
    """The checkpoint called `name`, or None.

    `name` is a path, or is looked for under each of `PLACES`; a key of `ALIASES` stands for its
    published file's name. A path is never replaced by a file that only shares its last part.
    """
    for place in PLACES:
        for spelling in (name, ALIASES.get(str(name), name)):
            if (Path(place) / spelling).is_file():
                return Path(place) / spelling
    return None


def find(name: str | Path) -> Path:
    """`locate`, but a file that is nowhere is a UserError with the places and the checkpoints there."""
    found = locate(name)
    if found is not None:
        return found
    path, problem = Path(name), "no such file"
    places = [path.parent] if path.is_absolute() else [Path(place).resolve() for place in PLACES]
    if path.is_dir():
        places, problem = [path], "is a folder"
    spelling = f"{name} ({ALIASES[str(name)]})" if str(name) in ALIASES else str(name)
    lines = [f"checkpoint {spelling}: {problem}. Looked in:"]
    for place in dict.fromkeys(places):
        there = sorted(p.name for p in place.iterdir() if p.suffix in SUFFIXES) if place.is_dir() else None
        lines.append(f"  {place}: {'no such folder' if there is None else ', '.join(there) or 'no checkpoints'}")
    lines.append("  Give the path of an existing file; pretrained_ckpt/README.md says where published files come from")
    raise UserError("\n".join(lines))


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
