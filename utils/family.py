"""A family is one kind of data, slices or pictures, with all functions that the scripts call for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config import Config
from utils.training.task import Task


@dataclass(frozen=True)
class Family:
    """What a task folder exports.

    recipes: name -> Config; default: the recipe of a data folder for which none is named
    is_data: whether a folder is laid out as this family's data
    build_task: the training task of a Config; every file is read and checked first
    class_names: names of the foreground classes under a Config
    evaluate: (cfg, forward, device, class names, folder for files, album or None) -> rows, split in words
    settle: (cfg, flags given) -> cfg with what the data folder says of its classes
    train_folds: (cfg, function that trains one Config) trains every fold; None where the family has no folds
    """

    recipes: Mapping[str, Config]
    default: str
    is_data: Callable[[Path], bool]
    build_task: Callable[[Config], Task]
    class_names: Callable[[Config], tuple[str, ...]]
    evaluate: Callable[..., tuple[list[dict[str, Any]], str]]
    settle: Callable[[Config, Mapping[str, Any]], Config]
    train_folds: Callable[[Config, Callable[[Config], None]], None] | None = None
