"""One field of Config: what its metadata says, and whether a value from the command line or a file agrees with it."""

import dataclasses
import math
import os
import types
import typing
from typing import Any

LARGEST = 2**31  # whole numbers stay below it where a field does not say otherwise
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes of one name and of a whole path, as file systems allow


def option(
    default: Any,
    text: str,
    *spellings: str,
    verbs: tuple[str, ...] = ("train",),
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    below: float | None = None,
) -> Any:
    """A Config field with its flag: help `text`, more `spellings`, scripts, and bounds `least <= value < below`."""
    meta = {"text": text, "spellings": spellings, "verbs": verbs, "choices": choices, "least": least, "below": below}
    return dataclasses.field(default=default, metadata=meta)


def plain_type(hint: Any) -> type:
    """bool, int, float, str or tuple behind an annotation such as `str | None` or `tuple[int, int]`."""
    if isinstance(hint, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return typing.get_origin(hint) or hint


def item_types(hint: Any, count: int) -> tuple[type, ...]:
    """The types of `count` values in a tuple such as `tuple[int, int]` or `tuple[str, ...] | None`.

    raises: ValueError where the annotation asks for another number of values
    """
    if isinstance(hint, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    first, *rest = typing.get_args(hint)
    if rest == [...]:
        return (first,) * count
    if count != 1 + len(rest):
        raise ValueError(f"{1 + len(rest)} values")
    return first, *rest


def check_bounds(field: dataclasses.Field, value: Any) -> None:
    """Refuse a number, or a text, that the field does not take. raises: ValueError that says what was expected"""
    meta = field.metadata
    least, below = meta.get("least"), meta.get("below")
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("a name, not an empty text")
        if len(os.fsencode(value)) > LONGEST_PATH:
            raise ValueError(f"a text of at most {LONGEST_PATH} bytes")
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in value.replace(os.sep, "/").split("/")):
            raise ValueError(f"names of at most {LONGEST_NAME} bytes, which is what file systems allow")
        if field.name != "input" and not value.isprintable():  # names of images may be anything
            raise ValueError("a text without control characters")
    elif isinstance(value, int) and not isinstance(value, bool):
        below = LARGEST if below is None else below
        least = -LARGEST if least is None else least
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number")
    if (least is not None and not value >= least) or (below is not None and not value < below):
        raise ValueError(f"at least {least}" + (f" and below {below}" if below is not None else ""))
    if meta.get("choices") and value not in meta["choices"]:
        raise ValueError(f"one of {', '.join(meta['choices'])}")


def check_saved(field: dataclasses.Field, value: Any) -> Any:
    """A value that JSON or a checkpoint holds as the field's own: lists become tuples, whole numbers floats.

    raises: ValueError that says what was expected
    """
    if value is None and isinstance(field.type, types.UnionType):
        return None
    if plain_type(field.type) is not tuple:
        return _check_item(field, value, plain_type(field.type))
    if not isinstance(value, list | tuple):
        raise ValueError("a list")
    return tuple(_check_item(field, *pair) for pair in zip(value, item_types(field.type, len(value))))


def _check_item(field: dataclasses.Field, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int and abs(value) < LARGEST:
        value = float(value)
    if type(value) is not kind:
        words = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
        raise ValueError(words[kind])
    check_bounds(field, value)
    return value
