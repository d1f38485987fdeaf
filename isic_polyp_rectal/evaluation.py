"""Evaluation of images: predict in batches, score each at its own size, and write what was asked for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.images.check import check_pairs
from datasets.images.classes import ClassTable
from datasets.images.pairs import ImageMaskSet, Pair
from isic_polyp_rectal.task import fold_parts, open_split
from utils.config import Config
from utils.distributed import gather, is_main, patient_group, rank, world_size
from utils.errors import UserError
from utils.inference.forward import Forward
from utils.inference.predict import decide, predict_images
from utils.log import log
from utils.preprocess.sizes import fit_image, fit_labels
from utils.results.overlay import overlay, save_overlay
from utils.results.page.frames import Album
from utils.results.place import check_same_cases
from utils.scoring.protocols import Row, score_image


def evaluate(
    cfg: Config, forward: Forward, device: torch.device, classes: Sequence[str], out: Path, album: Album | None = None
) -> tuple[list[Row], str]:
    """Score every image of cfg.split; return the rows and the split in words.

    Write overlays where asked for, and add pictures for the page to `album`, if there is one. The ranks share the
    batches; each returns all rows.
    """
    if cfg.is_savenii:
        raise UserError(f"--is_savenii: recipe {cfg.recipe} has images, not volumes; --debug writes overlays")
    pairs, split, table = chosen_pairs(cfg)
    check_same_cases(out, [pair.image_id for pair in pairs], cfg.force)
    log(f"evaluating on {split}: {check_pairs(pairs, table, training=False, intensity=cfg.intensity)}")
    images = ImageMaskSet(pairs, cfg.img_size, table, cfg.preprocess, cfg.intensity)
    if album is not None:
        album.expect(len(pairs))

    def finish(pair: Pair, image: np.ndarray, mask: np.ndarray, found: np.ndarray) -> list[Row]:
        """Score one image: at its own size, or under legacy at the network's; write its overlay if asked for."""
        if found.shape != mask.shape:
            mask = fit_labels(mask, found.shape, cfg.preprocess)
        if image.shape[:2] != mask.shape and (cfg.debug or album is not None):
            image = fit_image(image, mask.shape, cfg.preprocess)
        if album is not None:
            album.add_image(pair.image_id, image, found, mask)
        if cfg.debug:
            save_overlay(out / "overlays" / f"{pair.image.stem}.png", overlay(image, found, mask, cfg.num_classes))
        return [
            {"case": pair.image_id, "group": pair.group}
            | score_image(pair.image_id, found == label, mask == label, name, cfg.protocol, cfg.tolerance)
            for label, name in enumerate(classes, 1)
        ]

    all_ranks, scored = patient_group(), []
    mine = torch.arange(len(pairs)).split(cfg.batch_size)[rank() :: world_size()]
    with ThreadPoolExecutor() as pool:
        for batch in tqdm(mine, desc="images", disable=None if is_main() else True, leave=False):
            native, masks = zip(*pool.map(images.native, batch.tolist()))
            maps = predict_images(forward, native, cfg, device)
            scored.append(list(pool.map(finish, (pairs[i] for i in batch), native, masks, map(decide, maps))))
    if album is not None:
        album.gather(all_ranks)
    return [row for batch in gather(scored, all_ranks) for rows in batch for row in rows], split


def chosen_pairs(cfg: Config) -> tuple[list[Pair], str, ClassTable | None]:
    """The pairs of cfg.split, which they are in words, and the classes of their masks.

    raises: UserError where there are none
    """
    # a test part needs no folds, and another data set than that of the training may have too few images for them
    _, split = open_split(replace(cfg, folds=0) if cfg.split == "test" else cfg)
    if not (split.test if cfg.split == "test" else split.train + split.val):
        raise UserError(f"--split {cfg.split}: the CSV has {split.description}; choose another part")
    if cfg.split == "test":
        return split.test, f"test part ({split.description})", split.table
    if cfg.split == "val" and split.val:
        return split.val, f"validation part ({split.description})", split.table
    if cfg.split == "val" and split.folds is None:
        raise UserError("--split val: the training part is not cut into folds; give --folds, or a fold column")
    train, held_out = fold_parts(cfg, split)
    if cfg.split == "val":
        return held_out, f"fold {cfg.fold} of the training part ({split.description})", split.table
    return train, f"training part ({split.description})", split.table
