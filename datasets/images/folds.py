"""Dividing names into training and test part, into folds, and into groups that stay together.

Names are sorted by a hash of seed and name. So a seed gives one division on every system, whatever the order and the
file type of the images.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from datasets.images.pairs import stem_of
from utils.errors import UserError, counted

GROUP_BY = "files whose names match alike stay together, such as 'case[0-9]+'; a first bracket says which part counts"


def parse_size(text: str) -> float:
    """The share of images that trains, as --size gives it. raises: UserError unless above 0 and below 1"""
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1:
        raise UserError(f"--size {text}: expected the share of training images, above 0 and below 1, such as 0.9")
    return size


def choose_training(ids: Sequence[str], size: float, seed: int, groups: Sequence[str] | None = None) -> list[bool]:
    """Whether each image trains: the share `size` of them, rounded, at least one image in each part.

    With groups the test part is filled with whole groups as far as they fit.
    """
    if len(ids) < 2:
        raise UserError(f"found {counted(len(ids), 'image')}, expected at least 2 to split")
    num_train = min(max(int(size * len(ids) + 0.5), 1), len(ids) - 1)
    if groups is None:
        training = set(_shuffled(ids, seed, "split")[:num_train])
        return [name in training for name in ids]
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise UserError(f"all {len(ids)} images are of the one group {groups[0]!r}, expected several to split")
    order, testing, room = _shuffled(list(sizes), seed, "split"), set(), len(ids) - num_train
    for group in order:
        if sizes[group] <= room:
            testing.add(group)
            room -= sizes[group]
    testing = testing or {min(order, key=sizes.__getitem__)}
    return [group not in testing for group in groups]


def assign_folds(ids: Sequence[str], k: int, seed: int, groups: Sequence[str] | None = None) -> list[int]:
    """The fold 0 to k - 1 of each image; sizes differ by at most one, or as little as whole groups allow.

    The first folds are the smaller ones.
    raises: UserError when k is below 2 or above the number of images or groups
    """
    unit_of = ids if groups is None else groups
    units = Counter(unit_of)
    if not 2 <= k <= len(units):
        what = "training image" if groups is None else "training group"
        if len(units) < 2:
            remedy = "add some, or give images the category val in the CSV, for validation in place of folds"
            raise UserError(f"--folds {k}: found {counted(len(units), what)}, too few for folds; {remedy}")
        raise UserError(f"--folds {k}: expected 2 to {len(units)}, the number of {what}s")
    order = _shuffled(list(units), seed, "fold")
    order.sort(key=units.__getitem__, reverse=True)  # stable: large groups first, each to the emptiest fold
    filled, fold_of = [0] * k, {}
    for unit in order:
        fold_of[unit] = fold = min(reversed(range(k)), key=filled.__getitem__)
        filled[fold] += units[unit]
    return [fold_of[unit] for unit in unit_of]


def groups_by_pattern(ids: Sequence[str], pattern: str) -> list[str]:
    """The group of each file name: what the first bracket of the regular expression matches, or all of it."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group-by {pattern!r}: no regular expression ({error}); such as 'case\\d+'") from None
    matches = [expression.search(name) for name in ids]
    groups = [match and (match.group(1) if expression.groups else match.group()) for match in matches]
    if missed := [name for name, group in zip(ids, groups) if not group]:
        found = f"finds nothing in {counted(len(missed), 'name')}"
        raise UserError("\n  ".join([f"--group-by {pattern!r} {found}:", *missed]))
    return groups


def groups_by_cuts(ids: Sequence[str], cuts: Sequence[int]) -> list[str]:
    """The group of each file name by the number in it; each number of `cuts` is the last frame of a group (a scene)."""
    numbers = [re.findall(r"\d+", stem_of(name)) for name in ids]
    if missed := [name for name, found in zip(ids, numbers) if not found]:
        raise UserError("--group-cuts needs numbered images; there is no number in:\n  " + "\n  ".join(missed))
    return [f"scene{sum(int(found[-1]) > cut for cut in cuts) + 1:03d}" for found in numbers]


def _shuffled(names: Sequence[str], seed: int, purpose: str) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {purpose} {stem_of(name)}".encode()).digest())
