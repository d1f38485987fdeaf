"""Evaluation of whole volumes: predict, score, and write what was asked for."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.files.place import meta_of, write_placed
from datasets.summary import DataSummary
from datasets.volumes.files import Volume
from datasets.volumes.lists import find_root, hold_out_cases, patient_of, read_list
from datasets.volumes.sets import SliceVolumes, SynapseVolumes, check_slices, check_volumes
from synapse_train_test.task import TEST_LIST, TRAIN_LIST, VAL_LIST, locate
from utils.config import Config
from utils.distributed import gather, is_main, patient_group, rank, world_size
from utils.files import replacing
from utils.inference.forward import Forward
from utils.inference.predict import predict_volume
from utils.log import log
from utils.results.overlay import contact_sheet, save_overlay, upright
from utils.results.page.frames import Album
from utils.results.place import check_same_cases
from utils.scoring.protocols import Row, score_volume


def evaluate(
    cfg: Config, forward: Forward, device: torch.device, classes: Sequence[str], out: Path, album: Album | None = None
) -> tuple[list[Row], str]:
    """Score every volume of cfg.split; return the rows and the split in words.

    Write NIfTI files and overlays where asked for, and add pictures for the page to `album`, if there is one.
    One volume is scored while the next is in the network. The ranks share the volumes; each returns all rows.
    """
    volumes, split, summary = open_split(cfg)
    check_same_cases(out, volumes.names, cfg.force)
    log(f"evaluating on {split}: {summary}")
    if album is not None:
        album.expect(len(volumes))

    def finish(volume: Volume, labels: np.ndarray) -> list[Row]:
        """Score one predicted volume and write the files asked for."""
        if cfg.is_savenii:
            save_volume(out / "nifti", volume, labels)
        image, found, label, spacing = upright(volume.orientation, volume.spacing, volume.image, labels, volume.label)
        if cfg.debug:
            sheet = contact_sheet(image, found, label, cfg.num_classes, classes, spacing)
            save_overlay(out / "overlays" / f"{volume.name}.png", sheet)
        if album is not None:
            album.add_volume(volume.name, image, found, label, spacing)
        rows = score_volume(volume.name, labels, volume.label, classes, cfg.protocol, volume.spacing, cfg.tolerance)
        return [{"case": volume.name, "group": patient_of(volume.name)} | row for row in rows]

    all_ranks, scored = patient_group(), []
    mine = range(len(volumes))[rank() :: world_size()]
    with ThreadPoolExecutor(1) as pool:
        waiting: Future | None = None
        for index in tqdm(mine, "volumes", leave=False, disable=None if is_main() else True):
            volume = volumes[index]
            labels = predict_volume(forward, volume.image, cfg, device)
            scored += [waiting.result()] if waiting else []
            waiting = pool.submit(finish, volume, labels)
        scored += [waiting.result()] if waiting else []
    if album is not None:
        album.gather(all_ranks)
    return [row for rows in gather(scored, all_ranks) for row in rows], split


def open_split(cfg: Config) -> tuple[SliceVolumes | SynapseVolumes, str, DataSummary]:
    """(volumes, split in words, summary of the check) of cfg.split."""
    root, lists = locate(cfg)
    if cfg.split == "train" or (cfg.split == "val" and cfg.val_cases):
        folder, names = find_root(root, "train_npz"), read_list(lists / TRAIN_LIST)
        split = f"{lists.name}/{TRAIN_LIST}"
        if cfg.val_cases:
            trained, held_out = hold_out_cases(names, cfg.val_cases, cfg.seed)
            names = trained if cfg.split == "train" else held_out
            without = "without its" if cfg.split == "train" else "of which only the"
            split += f", {without} {cfg.val_cases} held-out cases (seed {cfg.seed})"
        summary = check_slices(folder, names, cfg.num_classes, cfg.intensity)
        return SliceVolumes(folder, names, cfg.intensity), split, summary
    name = VAL_LIST if cfg.split == "val" else TEST_LIST
    folder, names = find_root(root, "test_vol_h5"), read_list(lists / name)
    summary = check_volumes(folder, names, cfg.num_classes, cfg.intensity)
    return SynapseVolumes(folder, names, cfg.intensity), f"{lists.name}/{name}", summary


def save_volume(folder: Path, volume: Volume, labels: np.ndarray) -> None:
    """Write NAME_img, NAME_gt and NAME_pred.nii.gz where the volume lies; they claim no place where it is not known."""
    meta = meta_of(volume.spacing, volume.affine)
    for suffix, array in (("img", volume.image), ("gt", volume.label), ("pred", labels)):
        if array is not None:
            with replacing(folder / f"{volume.name}_{suffix}.nii.gz") as part:
                write_placed(part, array, volume.spacing, meta)
