"""Find the Config and the family of data of a recipe by its name."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.prepare.shared.manifest import MANIFEST, read_manifest
from isic_polyp_rectal.family import PICTURES
from synapse_train_test.family import VOLUMES
from utils.config import Config
from utils.errors import UserError
from utils.family import Family
from utils.log import log_once

FAMILIES = (VOLUMES, PICTURES)
RECIPES: dict[str, Config] = {name: recipe for family in FAMILIES for name, recipe in family.recipes.items()}
PREPARED_FOR = {"cvc": "cvc_clinicdb", "rectal": "rectal"}  # name of prepare_data.py -> recipe


def family_of(cfg: Config) -> Family:
    """The family that a run's recipe belongs to. raises: UserError for a recipe of another version, in a checkpoint"""
    for family in FAMILIES:
        if cfg.recipe in family.recipes:
            return family
    found = f"recipe {cfg.recipe}: this version has no such recipe, expected one of {', '.join(RECIPES)}"
    raise UserError(f"{found}; use the version that wrote the checkpoint, or give --recipe")


def class_names_of(cfg: Config, trained: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the foreground classes: those that `cfg` gives, else the checkpoint's (`trained`), else the recipe's.

    raises: UserError where `cfg` gives another number of names than it has classes
    """
    return (not cfg.class_names and trained) or family_of(cfg).class_names(cfg)


def match_name(name: str) -> str | None:
    """The recipe called `name` in any case or spelt nearly so, else None; another number is another name."""
    wanted = name.lower().replace("-", "_")
    if wanted in RECIPES:
        return wanted
    near = difflib.get_close_matches(wanted, RECIPES, n=1, cutoff=0.8)
    return near[0] if near and re.findall(r"\d+", near[0]) == re.findall(r"\d+", wanted) else None


def find_recipe(name: str | None) -> str | None:
    """The recipe that `--recipe name` means; None without a name. raises: UserError with all names"""
    recipe = match_name(name) if name else None
    if name and recipe is None:
        raise UserError(f"--recipe {name}: no such recipe; expected one of {', '.join(RECIPES)}")
    return recipe


def recipe_of(folder: Path, layout: Family) -> str:
    """The recipe of a folder of data: that of the data set which its manifest names, else the one of its layout."""
    dataset = (read_manifest(folder) or {}).get("dataset")
    recipe = PREPARED_FOR.get(dataset, layout.default)
    if recipe != layout.default:
        log_once(f"recipe {recipe}, because {folder / MANIFEST} says {dataset}; --recipe names another")
    return recipe


def resolve_dataset(given: Mapping[str, Any], guess: bool) -> dict[str, Any]:
    """The flags `given` with `dataset`, `recipe` and `root_path` as --dataset and --recipe mean them.

    A word that names both a recipe and a folder of data means both. A near miss of a name is taken as meant, with a
    warning. A folder alone has the recipe of its layout if `guess`; else its recipe is left to the checkpoint.
    raises: UserError with all names
    """
    given, recipe = dict(given), find_recipe(given.get("recipe"))
    word = given.get("dataset", recipe)
    if word is None:
        return given
    meant, folder = match_name(word), Path(word)
    layout = next((family for family in FAMILIES if word and folder.is_dir() and family.is_data(folder)), None)
    exact = meant == word.lower().replace("-", "_")
    if layout or (word and folder.is_dir() and not meant):
        given |= {"dataset": word, "root_path": given.get("root_path", word)}
        recipe = recipe or (meant if exact else None) or (recipe_of(folder, layout or PICTURES) if guess else None)
    elif meant:
        if not exact:
            log_once(f"warning: --dataset {word} is taken as {meant}")
        recipe = recipe or meant
        given["dataset"] = recipe
    else:
        expected = "expected a folder with images/ and masks/, one with train_npz/ or test_vol_h5/, or one of"
        found = f"--dataset {word}: neither a folder nor the name of a recipe"
        raise UserError(f"{found}; {expected} {', '.join(RECIPES)}")
    return given | ({"recipe": recipe} if recipe else {})
