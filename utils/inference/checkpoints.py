"""Which checkpoints to test or to predict with, whether they go together, and under which settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from utils import checkpoint
from utils.config import Config, check_together
from utils.errors import UserError
from utils.log import log
from utils.preprocess import Preprocess
from utils.training.folder import BEST, LAST

# The published command for testing names these: test.py compares them with the checkpoint's own.
TRAINED_WITH = ("epochs", "lr")


def find_checkpoints(given: Mapping[str, Any], recipe: str | None) -> list[Path]:
    """The files of --checkpoint; without it the run in --output_dir, or else the released weights of `recipe`.

    raises: UserError that names the places without a checkpoint
    """
    if given.get("checkpoint"):
        return [checkpoint.find(name) for name in given["checkpoint"]]
    folder = Path(given.get("output_dir", "save_models"))
    for name in (BEST, LAST):
        if (folder / name).is_file():
            return [folder / name]
    released = checkpoint.locate("synapse") if recipe == "synapse" else None
    if released is None:
        raise UserError(
            f"no checkpoint: neither {BEST} nor {LAST} in {folder}, and no released weights for recipe {recipe} in "
            "pretrained_ckpt/; name one with --checkpoint FILE, or train first"
        )
    return [released]


def settle(trained: Config, given: Mapping[str, Any]) -> Config:
    """What a checkpoint passes on, with the flags of the command line on top.

    Where --dataset names other data than the training's, folder, lists and CSV of the training do not hold.
    raises: UserError for classes that the network does not have
    """
    if "num_classes" in given and given["num_classes"] != trained.num_classes:
        raise UserError(
            f"--num_classes {given['num_classes']}: the checkpoint's network has {trained.num_classes} classes; "
            "leave the flag out"
        )
    for name in TRAINED_WITH:
        if name in given and given[name] != getattr(trained, name):
            log(f"warning: --{name} {given[name]}: the checkpoint was trained with {getattr(trained, name)}")
    given = {name: value for name, value in given.items() if name not in TRAINED_WITH}
    if names_other_data(given.get("dataset"), trained):
        trained = replace(trained, root_path=None, list_dir=None, csvfile=None)
    return check_together(replace(trained, **given))


def names_other_data(word: str | None, trained: Config) -> bool:
    """Whether --dataset `word` is neither the recipe nor a folder of the training; not where it was not given."""
    if word is None or word in (trained.dataset, trained.recipe):
        return False
    places = [Path(place).resolve() for place in (trained.dataset, trained.root_path) if place]
    return Path(word).resolve() not in places


def check_alike(loaded: Sequence[Any]) -> None:
    """Networks to average must have the same outputs and see an image alike. in: `models.build.Loaded` of each

    raises: UserError
    """
    kinds = {name: [getattr(one.cfg, name) for one in loaded] for name in ("num_classes", "img_size", "recipe")}
    kinds["class names"] = [one.class_names for one in loaded if one.class_names]  # released weights have none
    for part in dataclasses.fields(Preprocess):
        kinds[f"preprocess.{part.name}"] = [getattr(one.cfg.preprocess, part.name) for one in loaded]
    for name, values in kinds.items():
        if len(set(values)) > 1:
            listed = ", ".join(dict.fromkeys(map(str, values)))
            files = ", ".join(one.origin["file"] for one in loaded)
            raise UserError(f"--checkpoint: cannot average networks of different {name}: {listed} ({files})")
