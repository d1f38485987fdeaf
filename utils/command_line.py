"""argv -> fields of Config: flags from the fields' metadata, every mistake named.

A flag is `--field` or one of its spellings, with `_` or `-`. A boolean is on as `--flag`, off as
`--no-flag`, and takes True/False after it. What is given replaces the recipe's value.
"""

import argparse
import contextlib
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from utils.config import AUTO_BATCH, FIELDS, PREDICT, TEST, TRAIN, Config, check_together
from utils.errors import UserError
from utils.fields import check_bounds, check_saved, item_types, plain_type

# The fields that recipes set
OF_RECIPES = (
    *("dataset", "recipe", "num_classes", "img_size", "epochs", "batch_size", "loss", "optimizer", "lr", "min_lr"),
    *("weight_decay", "schedule", "schedule_epochs", "warmup_epochs", "restart_iterations", "drop_last", "folds"),
    *("clip_grad", "drop_path", "val_cases", "eval_every", "strong_augment"),
)
MEANT = {"--learning_rate": "--lr", "--num_workers": "--workers", "--gpu": "--device", "--weights": "--checkpoint"}
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_flags(argv: Sequence[str], verb: str, description: str) -> dict[str, Any]:
    """The fields given on the command line, and only those, with checked values.

    raises: UserError for an unknown flag (with the nearest one) or a wrong value
    """
    given = vars(build_parser(verb, description).parse_args(argv))
    values = {name: check_value(name, value) for name, value in given.items()}
    if values.get("batch_size") == AUTO_BATCH and verb != TRAIN:
        raise UserError("--batch_size auto: only train.py finds the batch that fits; give a number")
    return values


def build_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """The parser of the flags that `verb` offers; absent flags leave no trace in its result."""
    parser = _Parser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, field in FIELDS.items():
        meta = field.metadata
        if verb not in meta["verbs"]:
            continue
        spellings = (f"--{name}", *meta["spellings"])
        flags = list(dict.fromkeys(s for flag in spellings for s in (flag, "--" + flag[2:].replace("_", "-"))))
        text = meta["text"] + (f" ({', '.join(meta['choices'])})" if meta["choices"] else "")
        text = (text + _default(name, verb)).replace("%", "%%")
        if field.type is bool:
            parser.add_argument(*flags, dest=name, nargs="?", const=True, metavar="True|False", help=text)
            off = [f"--no{dash}{flag[2:]}" for flag in flags for dash in "-_"]
            parser.add_argument(*off, dest=name, action="store_const", const=False, help=argparse.SUPPRESS)
        else:
            words = "+" if plain_type(field.type) is tuple and name != "img_size" else None
            parser.add_argument(*flags, dest=name, nargs=words, metavar=name.upper(), help=text)
    return parser


def _default(name: str, verb: str) -> str:
    """What holds where the flag is not given, for --help; nothing where that is a matter of course."""
    field = FIELDS[name]
    if name == "recipe" and verb == TRAIN:
        return "; default: that of the data"
    if name in OF_RECIPES and name != "dataset" and verb == TRAIN:
        return "; default: the recipe's"
    if name in ("epochs", "lr") and verb == TEST:
        return "; only compared with the checkpoint's"
    if name in (*OF_RECIPES, "fold") and verb != TRAIN:
        return "; default: the checkpoint's"
    if name == "output_dir" and verb != TRAIN:
        return "; default: predictions" if verb == PREDICT else "; default: that of the checkpoint"
    if field.default in (None, (), False):
        return ""
    return f"; default: {field.default}"


def check_value(name: str, value: Any) -> Any:
    """`value` (text or words from argv, or True/False) as the field's type, within its choices and bounds."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list):
        return _check_one(name, value, plain_type(FIELDS[name].type))
    if not value or plain_type(FIELDS[name].type) is not tuple:  # argparse turns `--dataset=--` into no words
        raise UserError(f"--{name}: expected one value")
    # commas separate words, too, but they may be part of a file's name
    words = value if name in ("input", "checkpoint") else [p.strip() for w in value for p in w.split(",") if p.strip()]
    return tuple(_check_one(name, *pair) for pair in zip(words, item_types(FIELDS[name].type, len(words))))


def check_setting(name: str, value: Any) -> Any:
    """`value` as the field `name`, which predict.py has as a flag. raises: UserError"""
    if name not in FIELDS or PREDICT not in FIELDS[name].metadata["verbs"]:
        raise UserError(f"{name}: no setting of a prediction; python predict.py --help lists them")
    try:
        return check_saved(FIELDS[name], value)
    except ValueError as error:
        raise UserError(f"{name}={value!r}: expected {error}") from None


def _check_one(name: str, text: str, kind: type) -> Any:
    """`text` as `kind`, one of the field's choices and within its bounds."""
    try:
        value = _convert(name, text, kind)
        for part in value if isinstance(value, tuple) else (value,):
            check_bounds(FIELDS[name], part)
    except ValueError as error:
        raise UserError(f"--{name} {text[:200]}: expected {error}") from None
    return value


def apply(cfg: Config, given: Mapping[str, Any]) -> Config:
    """`cfg` with the fields in `given` replaced. raises: UserError for flags that exclude each other"""
    if given.get("resume") and given.get("force"):
        raise UserError("--resume and --force: the one keeps the run that is there, the other replaces it; give one")
    return check_together(dataclasses.replace(cfg, **given))


def _convert(name: str, text: str, kind: type) -> Any:
    """`text` as `kind`; ValueError's message says what was expected."""
    if kind is bool:
        if text.lower() not in (*TRUE, *FALSE):
            raise ValueError("True or False")
        return text.lower() in TRUE
    if name == "batch_size":
        if text == "auto":
            return AUTO_BATCH
        number = int(text) if text.isdecimal() and len(text) < 20 else 0
        if number == 0:
            raise ValueError("a whole number from 1, or auto (train.py)")
        return number
    if kind in (int, float):
        with contextlib.suppress(ValueError):
            if (number := kind(text)) == number:  # not NaN
                return number
        raise ValueError("a whole number" if kind is int else "a number")
    if name == "img_size":
        parts = text.lower().split("x")
        if len(parts) > 2 or not all(p.isdecimal() and int(p[:20]) > 0 for p in parts):
            raise ValueError("a size in pixels such as 224, or height x width such as 160x224")
        return int(parts[0][:20]), int(parts[-1][:20])
    return text


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors and name the nearest flag."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def parse_args(self, argv: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        given, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].split("=")[0]
            meant = MEANT.get(word.replace("-", "_").replace("__", "--", 1), word)
            near = difflib.get_close_matches(meant, self._option_string_actions, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            kind = "unknown flag" if word.startswith("-") else "unexpected word"
            raise UserError(f"{kind} {word}{hint} (see {self.prog} --help for all flags)")
        return given
