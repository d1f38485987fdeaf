"""Making the split of a data set: everything behind data_split_csv.py."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets.images.folds import assign_folds, choose_training, groups_by_cuts, groups_by_pattern
from datasets.images.pairs import data_root, pair_files
from datasets.images.split import DEFAULT_NAME, Row, check_output, describe, write_split
from utils.errors import UserError


def split_dataset(
    dataset: str | Path,
    size: float,
    seed: int = 1234,
    output: str | Path | None = None,
    force: bool = False,
    group_by: str | None = None,
    group_cuts: Sequence[int] | None = None,
    num_folds: int | None = None,
) -> str:
    """Split the pairs of the folder `dataset`, the share `size` of them to train; returns the counts as text.

    The file is test_train_data.csv in the data set's folder unless `output` names another.
    Groups come from names (`group_by`) or from the last frame numbers of scenes (`group_cuts`).
    `num_folds` also writes the folds of the training part.
    raises: UserError before anything is written
    """
    if group_by and group_cuts:
        raise UserError("--group-by and --group-cuts: found both, expected one of them")
    path = Path(output) if output else data_root(dataset) / DEFAULT_NAME
    check_output(path, force)
    ids = [pair.image_id for pair in pair_files(dataset)]
    groups = groups_by_pattern(ids, group_by) if group_by else groups_by_cuts(ids, group_cuts) if group_cuts else None
    rows = make_rows(ids, size, seed, groups, num_folds)
    write_split(path, rows)
    lines = [f"{path}: {describe(rows)}, seed {seed}"]
    if num_folds:
        sizes = Counter(row.fold for row in rows)
        lines.append(f"folds of the training part: {' + '.join(str(sizes[fold]) for fold in range(num_folds))} images")
    return "\n  ".join(lines)


def make_rows(
    ids: Sequence[str], size: float, seed: int, groups: Sequence[str] | None = None, num_folds: int | None = None
) -> list[Row]:
    """The rows of a new split, sorted as `ids` are."""
    training = choose_training(ids, size, seed, groups)
    rows = [Row(name, "train" if trains else "test") for name, trains in zip(ids, training)]
    if groups:
        rows = [row._replace(group=group) for row, group in zip(rows, groups)]
    if num_folds is not None:
        chosen = [row for row in rows if row.category == "train"]
        train_groups = [row.group for row in chosen] if groups else None
        folds = iter(assign_folds([row.image_id for row in chosen], num_folds, seed, train_groups))
        rows = [row._replace(fold=next(folds)) if row.category == "train" else row for row in rows]
    return rows
