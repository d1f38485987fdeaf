"""A checkpoint to give away: `python -m tools.export --format safetensors` and `Predictor.save_pretrained` write it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.build import Loaded
from utils.config import Config, to_dict
from utils.results.summary import dataset_of


def portable(loaded: Loaded, class_names: Sequence[str]) -> dict[str, Any]:
    """What `utils.checkpoint.save_safetensors` writes of a network: weights, settings, hashes of the cases.

    The settings name no folder of this machine.
    """
    cfg = loaded.trained or loaded.cfg
    places = {"dataset": dataset_of(cfg)} | {n: getattr(cfg, n) for n in ("init", "pretrained", "pretrained_vssd")}
    names = {name: place and Path(place).name for name, place in places.items()}
    cfg = replace(cfg, root_path=None, list_dir=None, csvfile=None, output_dir=Config.output_dir, **names)
    state = {"format": "heteromedseg", "config": to_dict(cfg), "class_names": list(class_names)}
    facts = {key: loaded.origin.get(key) for key in ("epoch", "selection", "split", "split_sha256")}
    state |= {key: value for key, value in facts.items() if value is not None}
    return state | {"cases": dict(loaded.cases), "model": loaded.model.state_dict()}
