"""Small data sets on disk for end-to-end tests. An image is never a function of its mask."""

from pathlib import Path

import cv2
import h5py
import numpy as np


def write_synapse_tree(root: Path, num_cases=2, slices=4, size=40, num_classes=9, seed=0) -> Path:
    """train_npz/, test_vol_h5/ and lists/ with random blocks of every class on noise; returns `root`."""
    rng = np.random.default_rng(seed)
    names = []
    for folder in ("train_npz", "test_vol_h5", "lists"):
        (root / folder).mkdir(parents=True)
    for case in range(1, num_cases + 2):
        label = rng.integers(0, num_classes, (slices, size // 8, size // 8)).repeat(8, 1).repeat(8, 2)
        image = (label / num_classes * 0.5 + rng.random(label.shape) * 0.5).astype(np.float32)
        if case > num_cases:
            with h5py.File(root / "test_vol_h5" / f"case{case:04d}.npy.h5", "w") as file:
                file["image"], file["label"] = image, label.astype(np.float32)
            (root / "lists" / "test_vol.txt").write_text(f"case{case:04d}\n")
            break
        for z in range(slices):
            name = f"case{case:04d}_slice{z:03d}"
            np.savez(root / "train_npz" / f"{name}.npz", image=image[z], label=label[z].astype(np.float32))
            names.append(name)
    (root / "lists" / "train.txt").write_text("\n".join(names) + "\n")
    return root


def write_picture_tree(root: Path, num_images=10, size=(40, 48), seed=0) -> Path:
    """images/ (JPEG) and masks/ (PNG) with a bright ellipse on noise; returns `root`."""
    rng = np.random.default_rng(seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(num_images):
        mask = np.zeros(size, np.uint8)
        center = int(rng.integers(12, size[1] - 12)), int(rng.integers(12, size[0] - 12))
        cv2.ellipse(mask, center, (10, 7), float(rng.integers(180)), 0, 360, 255, -1)
        image = rng.integers(0, 120, (*size, 3), dtype=np.uint8) + (mask[..., None] // 3)
        cv2.imwrite(str(root / "images" / f"{index:03d}.jpg"), image)
        cv2.imwrite(str(root / "masks" / f"{index:03d}.png"), mask)
    return root
