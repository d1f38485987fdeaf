"""Networks ready for use: to train, initialised as the config says; to test, from a checkpoint file.

A checkpoint is one of ours, with its own config, or released weights, with a recipe's.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.hetero_medseg import build_model
from models.ssd import backend_name
from models.weights.pretrained import initialise
from models.weights.released import is_released, load_released, released_num_classes
from utils import checkpoint
from utils.config import Config, from_dict
from utils.errors import UserError


def build_network(cfg: Config, device: torch.device) -> tuple[nn.Module, tuple[str, ...]]:
    """A network to train, initialised as `cfg.pretrained*` say, and the lines that tell how.

    raises: UserError when weights that were asked for are missing or do not fit
    """
    model = build_model(cfg.num_classes, cfg.ssd, cfg.drop_path)
    count = sum(p.numel() for p in model.parameters())
    notes = [f"network: {count:,} parameters, SSD {backend_name(cfg.ssd, device)}"]
    biformer, vssd = _weights_file(cfg.pretrained, "biformer"), _weights_file(cfg.pretrained_vssd, "vssd")
    if biformer or vssd:
        states = [checkpoint.read(path) if path else None for path in (biformer, vssd)]
        notes += map(str, initialise(model, *states, cfg.pretrained_form, str(biformer), str(vssd)))
    else:
        absent = cfg.pretrained == "auto"
        why = (
            "no BiFormer-Base weights in pretrained_ckpt/ (its README says where from)"
            if absent
            else "--pretrained none"
        )
        notes.append(f"initialised from scratch: {why}")
    model.recompute = cfg.recompute == "yes"
    return model, tuple(notes)


def name_weights(cfg: Config) -> Config:
    """`cfg` with the file, or none, in place of auto: what a checkpoint says that it started from."""
    found = {"pretrained": _weights_file(cfg.pretrained, "biformer")}
    found["pretrained_vssd"] = _weights_file(cfg.pretrained_vssd, "vssd")
    return dataclasses.replace(cfg, **{field: str(path or "none") for field, path in found.items()})


def _weights_file(wanted: str, kind: str) -> Path | None:
    """The file meant by `--pretrained wanted`: none, whatever lies in the usual places, or that very file."""
    if wanted == "none":
        return None
    return checkpoint.locate(kind) if wanted == "auto" else checkpoint.find(wanted)


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode, the config it was trained with, and where it is from.

    origin: file, sha256, epoch, selection, split, seed, ... - for the result files; notes: lines for the log
    """

    model: nn.Module
    cfg: Config
    class_names: tuple[str, ...] | None
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()


def load_network(path: Path, recipes: Mapping[str, Config], recipe: str | None = None) -> Loaded:
    """The network in the file `path`.

    recipe: the one of `recipes` that goes with released weights, which hold no settings of their own
    raises: UserError for files that are neither, and for released weights without a recipe
    """
    state = checkpoint.read(path)
    origin = {"file": str(path), "sha256": checkpoint.sha256(path)}
    if state.get("format") == "heteromedseg":
        return _ours(state, path, origin, recipes)
    if not is_released(state):
        raise UserError(
            f"{path}: not a HeteroMedSeg checkpoint: neither written by train.py nor the released state dict; "
            "expected best_model.pth, epoch_last.pth or a file named in pretrained_ckpt/README.md"
        )
    if recipe is None:
        raise UserError(f"{path}: released weights hold no settings; name their recipe, e.g. --dataset Synapse")
    num_classes = released_num_classes(state, str(path))
    cfg = dataclasses.replace(recipes[recipe], num_classes=num_classes, ssd="causal")
    model = build_model(num_classes, cfg.ssd, drop_path=0.0)
    summary = load_released(model, state, str(path))
    origin |= {"epoch": None, "selection": "as published", "split": "as published", "seed": None}
    return Loaded(model.eval(), cfg, None, origin, (str(summary),))


def _ours(state: dict[str, Any], path: Path, origin: dict[str, Any], recipes: Mapping[str, Config]) -> Loaded:
    cfg = from_dict(state["config"], str(path), recipes)
    model = build_model(cfg.num_classes, cfg.ssd, drop_path=0.0)
    weights = averaged_weights(state["ema"]) if state.get("ema") else state["model"]
    ours = model.state_dict()
    wrong = [name for name in ours.keys() | weights.keys() if _shape(ours, name) != _shape(weights, name)]
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} of its tensors are not those of this version's network: "
            f"{', '.join(sorted(wrong)[:5])}; evaluate it with the version that wrote it"
        )
    model.load_state_dict(weights)
    origin |= {key: state.get(key) for key in ("epoch", "selection", "split", "split_sha256")}
    origin |= {"seed": cfg.seed, "pretrained": cfg.pretrained, "pretrained_vssd": cfg.pretrained_vssd}
    return Loaded(model.eval(), cfg, tuple(state["class_names"]), origin)


def _shape(state: dict[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def averaged_weights(state: dict[str, Any]) -> dict[str, Any]:
    """The network's tensors inside a saved `AveragedModel`."""
    return {name.removeprefix("module."): value for name, value in state.items() if name != "n_averaged"}
