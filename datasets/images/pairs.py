"""A folder of images/ and masks/: pairing by name, and reading as a data set.

Shapes: H, W of a file are its own; S is the side that the network is given.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.files.pictures import PICTURE_SUFFIXES, orientation_of, read_picture, to_rgb8
from datasets.images.classes import ClassTable, read_mask
from utils.errors import UserError, counted
from utils.log import log_once
from utils.preprocess import PICTURES, Preprocess
from utils.preprocess.intensities import as_trained, to_unit
from utils.preprocess.sizes import fit_image, fit_labels

MASK_SUFFIX = re.compile(r"[ _.-](segmentation|seg|mask|gt|groundtruth|label|annotation)s?$", re.IGNORECASE)
RESULT = re.compile(r"_(mask|overlay)\.png$")  # of predict.py
TURN = "turn such images: mogrify -auto-orient"


@dataclass(frozen=True)
class Pair:
    """One image and its mask; image_id is the file name of the image, group that of the CSV, empty where unknown."""

    image_id: str
    image: Path
    mask: Path
    group: str = ""


def stem_of(name: str) -> str:
    """The name that matches images, masks and lines of a CSV: without folders and a picture's suffix.

    Accents are composed, since macOS stores them decomposed.
    """
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in PICTURE_SUFFIXES else name


def is_data(folder: Path) -> bool:
    """Whether `folder` holds images/, or is such a folder."""
    return folder.name == "images" or (folder / "images").is_dir()


def data_root(path: str | Path) -> Path:
    """The folder that holds images/ and masks/; `path` is that folder or its images/.

    raises: UserError where there are no such folders
    """
    path = Path(path)
    for root in (path, path.absolute().parent) if path.absolute().name == "images" else (path,):
        if (root / "images").is_dir() and (root / "masks").is_dir():
            return root
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected one with images/ and masks/")
    found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
    raise UserError(f"{path}: found {found}; expected the folders images/ and masks/ in it")


def pair_files(root: str | Path) -> list[Pair]:
    """Pair images/ with masks/ by stem, a mask's `_segmentation`, `_mask`, `-seg` ... apart; sorted by image_id.

    A mask that is named exactly as an image belongs to it. Only other masks lose such an ending. Results of predict.py
    beside the images are left out; the log says so.
    raises: UserError with every image without a mask, mask without an image, and name that fits twice
    """
    root = data_root(root)
    images, masks = (_by_stem(root / folder) for folder in ("images", "masks"))
    if results := results_among(*([p.name for paths in found.values() for p in paths] for found in (images, masks))):
        made = "that predict.py made of others (_mask.png, _overlay.png)"
        log_once(f"{root / 'images'}: left out {counted(len(results), 'picture')} {made}, the first is {results[0]}")
        images = {stem: [path for path in paths if path.name not in results] for stem, paths in images.items()}
        images = {stem: paths for stem, paths in images.items() if paths}
    matched: dict[str, list[Path]] = {}
    for stem, paths in masks.items():
        matched.setdefault(stem if stem in images else MASK_SUFFIX.sub("", stem), []).extend(paths)
    problems = []
    for stem in sorted(images.keys() | matched.keys()):
        names = [f"images/{path.name}" for path in images.get(stem, [])]
        mask_names = [f"masks/{path.name}" for path in matched.get(stem, [])]
        if not names or not mask_names:
            problems += [f"{name}: no {'mask' if names else 'image'}" for name in names + mask_names]
        elif len(names + mask_names) > 2:
            problems.append(f"ambiguous: {', '.join(names + mask_names)}")
    if problems:
        found = f"found {counted(len(problems), 'file')} without a partner; every image needs one mask of the same name"
        remedy = "(or with _segmentation, _mask, _seg, _gt after it); add or remove files:"
        raise UserError("\n  ".join([f"{root}: {found} {remedy}", *problems]))
    pairs = [Pair(paths[0].name, paths[0], matched[stem][0]) for stem, paths in images.items()]
    return sorted(pairs, key=lambda pair: pair.image_id)


def results_among(images: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Of the names of images, NAME_mask.png and NAME_overlay.png where NAME is there, unless they have masks, too."""
    of_images, of_masks = set(map(stem_of, images)), set(map(stem_of, masks))
    named = Counter(MASK_SUFFIX.sub("", stem) for stem in of_masks)
    results = []
    for name in images:
        stem, base = stem_of(name), stem_of(RESULT.sub("", name))
        own = 1 if MASK_SUFFIX.sub("", stem) == base else 0
        others = base in of_masks or named[base] > own  # NAME has a mask besides
        if base != stem and base in of_images and not (stem in of_masks and others):
            results.append(name)
    return results


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Picture files of a folder by stem, hidden ones left out; UserError when there is none."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    pictures: dict[str, list[Path]] = {}
    for path in paths:
        if path.suffix.lower() in PICTURE_SUFFIXES:
            if any("\ud800" <= letter <= "\udfff" for letter in path.name):  # as Python reads bytes that are no UTF-8
                raise UserError(f"{path}: its name is not UTF-8, which splits and results are written in; rename it")
            pictures.setdefault(stem_of(path.name), []).append(path)
    if not pictures:
        found = ", ".join(sorted({path.suffix or path.name for path in paths})) or "nothing"
        raise UserError(f"{folder}: found {found}, expected pictures ({', '.join(PICTURE_SUFFIXES)})")
    return pictures


def may_lie_otherwise(pair: Pair, size: tuple[int, int]) -> bool:
    """Whether a mask drawn in a viewer, which turns the image by its EXIF orientation, would have this size, too.

    size: height and width as stored. False where the mask has the orientation of its image.
    """
    orientation = orientation_of(pair.image)
    keeps_size = orientation < 5 or size[0] == size[1]
    return orientation > 1 and keeps_size and orientation != orientation_of(pair.mask)


def check_sizes(pair: Pair, image: np.ndarray, mask: np.ndarray) -> None:
    """Raise UserError unless image and mask have one height and width."""
    if image.shape[:2] != mask.shape[:2]:
        found, expected = ("x".join(map(str, array.shape[:2])) for array in (mask, image))
        is_turned = image.shape[1::-1] == mask.shape[:2] and orientation_of(pair.image) > 4
        turned = f", which viewers turn by its EXIF orientation; {TURN}; or"
        expected += f" as {pair.image.name} has{turned if is_turned else ';'} export it again"
        raise UserError(f"{pair.mask}: found a mask of {found}, expected {expected}")


def read_image(path: Path, intensity: str = "auto") -> np.ndarray:
    """The image in a file as uint8 RGB (H, W, 3).

    intensity: one of INTENSITIES, which makes values from 0 to 1 of those stored; auto: fractions of their type's range
    raises: UserError as `read_picture`, `to_rgb8` and `to_unit`
    """
    stored = read_picture(path)
    if intensity == "auto":
        return to_rgb8(stored, path)
    return as_trained(to_unit(stored, intensity, str(path)), PICTURES, colour=stored.ndim == 3)


class ImageMaskSet(Dataset):
    """Pairs resized for the network; nothing is kept in memory.

    table: the classes of the masks; None for binary ones; intensity: as `read_image`
    out: image uint8 (3, S, S), target uint8 (S, S) of labels, for `img_size` (S, S), height first; under the fit slide
        at least so large
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        img_size: tuple[int, int],
        table: ClassTable | None = None,
        pre: Preprocess = PICTURES,
        intensity: str = "auto",
    ) -> None:
        self.pairs = list(pairs)
        self.img_size, self.table = img_size, table
        self.pre, self.intensity = pre, intensity

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.native(index)
        image, mask = fit_image(image, self.img_size, self.pre), fit_labels(mask, self.img_size, self.pre)
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(mask.astype(np.uint8))

    def native(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H, W, 3) and mask (H, W) in the files' own size: bool, or labels uint8 of several classes.

        raises: UserError when the sizes differ
        """
        pair = self.pairs[index]
        image = read_image(pair.image, self.intensity)
        mask = read_mask(pair.mask, self.table)
        check_sizes(pair, image, mask)
        return image, mask
