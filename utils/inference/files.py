"""Segment a user's files one after the other; the ranks share them. The caller passes what reads and writes.

Beside each mask NAME_mask, a file may get a picture NAME_overlay.png and NAME_probabilities.npz; all get rows in
summary.csv.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from utils.distributed import gather, is_main, patient_group, rank, world_size
from utils.errors import UserError, join_listed
from utils.files import csv_text, parse_csv, read_text, reading, replacing, write_atomically
from utils.inference.components import measure
from utils.inference.segment import Segmented, segment
from utils.log import log
from utils.results.overlay import contact_sheet, overlay, save_overlay, upright

SUMMARY = "summary.csv"
COLUMNS = ("file", "mask", "label", "class", "pixels", "area_mm2", "volume_ml", "components", "largest_component")
MASK, OVERLAY, PROBABILITIES = "_mask", "_overlay.png", "_probabilities.npz"


def predict_files(
    network: Any,
    files: Sequence[tuple[Path, Path]],
    class_names: Sequence[str],
    read: Callable[[Path], Any],
    write: Callable[[Path, np.ndarray, Any], Path],
) -> list[Path]:
    """Segment each of `files` (image, its results without their endings); ranks share them. Returns all masks.

    network: as `segment` takes it
    read: path -> image with `array`, `kind`, `spacing` and `orientation`
    write: path without suffix, mask, image -> the file written
    raises: on rank 0, UserError that lists every file that could not be segmented, after all others are done
    """
    cfg, folder = network.cfg, Path(network.cfg.output_dir)
    read_summary(folder / SUMMARY)  # refused before anything is written
    all_ranks = patient_group()
    found = []  # (rows, problem) of each file
    mine = files[rank() :: world_size()]
    for source, target in tqdm(mine, desc="files", disable=None if is_main() else True, leave=False):
        rows, problem = [], ""
        try:
            image = read(source)
            volume = image.kind == "volume"
            segmented = segment(network, image.array, volume, str(source), image.orientation, image.spacing)
            target.parent.mkdir(parents=True, exist_ok=True)
            if cfg.probabilities:
                save_probabilities(target, segmented, class_names, image.spacing)
            if cfg.overlay:
                save_picture(target, segmented, class_names, image.orientation, image.spacing)
            mask = write(target.with_name(target.name + MASK), segmented.mask, image)
        except UserError as error:
            problem = str(error)
        except OSError as error:  # names its file
            problem = f"{source}: {error}"
        except (MemoryError, torch.OutOfMemoryError):
            problem = f"{source}: there is not enough memory for it; give a smaller --batch_size, or cut it"
        else:
            log(f"{source} -> {mask}")
            name = {"file": str(source), "mask": mask.relative_to(folder).as_posix()}
            rows = [name | row for row in measure(segmented.mask, image.spacing, class_names)]
        found.append((rows, problem))
    found = gather(found, all_ranks)
    rows, problems = [row for one, _ in found for row in one], [problem for _, problem in found if problem]
    if rows and is_main():
        new = {row["mask"] for row in rows}
        kept = [row for row in read_summary(folder / SUMMARY) if row["mask"] not in new]
        write_atomically(folder / SUMMARY, csv_text([*kept, *rows]))
    if problems and is_main():
        listed = join_listed(problems, 100)
        raise UserError(f"{len(problems)} of {len(files)} inputs were not segmented:\n  {listed}")
    return [folder / name for name in dict.fromkeys(row["mask"] for row in rows)]


def save_picture(
    target: Path,
    found: Segmented,
    class_names: Sequence[str],
    orientation: str,
    spacing: Sequence[float] | None = None,
) -> None:
    """The mask on the image, or on some slices of a volume: as a radiologist sees them, or as stored if not known."""
    if found.mask.ndim == 3:
        unit, mask, spacing = upright(orientation, spacing, found.unit, found.mask)
        picture = contact_sheet(unit, mask, None, len(class_names) + 1, class_names, spacing)
    else:
        picture = overlay(found.unit, found.mask, None, len(class_names) + 1)
    save_overlay(target.with_name(target.name + OVERLAY), picture)


def save_probabilities(
    target: Path, found: Segmented, class_names: Sequence[str], spacing: Sequence[float] | None
) -> None:
    """`probabilities` float16 (K, H, W) or (K, D, H, W), `classes` (K names), and `spacing` where it is known."""
    count = len(found.probabilities)
    names = list(class_names) if count == 1 else ["background", *class_names]
    arrays = {"probabilities": found.probabilities, "classes": np.array(names)}
    path = target.with_name(target.name + PROBABILITIES)
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays | ({"spacing": np.array(spacing)} if spacing else {}))


def read_summary(path: Path) -> list[dict[str, str]]:
    """The rows of a summary; none where there is no file. raises: UserError for a file of another kind"""
    if not path.is_file():
        return []
    text = read_text(path, "move it elsewhere")
    with reading(path, "move it elsewhere"):
        lines = parse_csv(text)
        if not lines or tuple(lines[0]) != COLUMNS:
            raise UserError(f"{path}: found another file of this name, expected masks' sizes; move it elsewhere")
        return [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]
