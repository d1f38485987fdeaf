"""Save and load a trained network in the form of the Hugging Face Hub: safetensors, config.json and a model card.

Needs safetensors, and `huggingface_hub` for what is on the Hub (requirements-hub.txt). `python -m tools.export
--format safetensors` uses `portable`, too.
"""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from models.build import Loaded, is_ours, load_network
from utils import checkpoint
from utils.config import Config, to_dict
from utils.errors import UserError
from utils.files import write_atomically
from utils.results.names import fit_in_words
from utils.results.summary import dataset_of

WEIGHTS = "model.safetensors"  # the name that the Hub expects
CARD = """---
license: apache-2.0
pipeline_tag: image-segmentation
tags: [medical-imaging]
---

# HeteroMedSeg: {classes}

A network that marks {classes} in {images}, {fitted}.

**For research. Not a medical device: it must not be used to diagnose, treat or screen anyone.**

It was trained by the recipe `{recipe}`. config.json holds all settings, and how images become its input. In a copy
of the code:

```python
from models import Predictor

predictor = Predictor.from_pretrained("THIS REPOSITORY OR FOLDER")
mask = predictor.predict(array)
```
"""


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


def hub() -> ModuleType:
    """The package huggingface_hub. raises: UserError where it is not installed"""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install -r requirements-hub.txt") from None
    return huggingface_hub


def save(predictor: Any, folder: Path) -> None:
    """Write the network of a `Predictor`. raises: UserError for several networks, and without safetensors"""
    if find_spec("safetensors") is None:
        raise UserError("safetensors is not installed; pip install -r requirements-hub.txt")
    if len(predictor.models) > 1 or not is_ours(predictor.cfg):
        found = f"{len(predictor.models)} networks {predictor.cfg.network}"
        raise UserError(f"found {found}, expected one heteromedseg; save them one by one")
    state, cfg = portable(predictor.loaded[0], predictor.class_names), predictor.cfg
    card = CARD.format(
        classes=re.sub(r"([\\`*_<\[\]|])", r"\\\1", ", ".join(predictor.class_names)),
        images="single-channel slices of volumes" if cfg.preprocess.channels == 1 else "RGB images",
        fitted=fit_in_words(cfg.preprocess.fit, cfg.img_size),
        recipe=cfg.recipe,
    )
    write_atomically(folder / "README.md", card)
    settings = {"settings": state["config"], "class_names": state["class_names"]}
    write_atomically(folder / "config.json", json.dumps(settings, indent=2) + "\n")
    checkpoint.save_safetensors(folder / WEIGHTS, state)


def push(predictor: Any, name: str, token: str | None, **options: Any) -> str:
    """Upload what `save` writes; `options`: of HfApi.create_repo. out: the address"""
    api = hub().HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save(predictor, Path(folder))
        name = api.create_repo(repo_id=name, exist_ok=True, **options).repo_id
        return api.upload_folder(repo_id=name, folder_path=folder)


def from_hub(name: str, revision: str | None) -> Loaded:
    """Load a folder that `save_pretrained` wrote, or a repository of the Hub. raises: UserError"""
    path = Path(name) / WEIGHTS
    if not Path(name).is_dir():
        try:
            path = Path(hub().hf_hub_download(name, WEIGHTS, revision=revision))
        except (OSError, ValueError) as error:
            raise UserError(f"{name}: no folder, and not on the Hugging Face Hub: {error}") from None
    elif not path.is_file():
        raise UserError(f"{name}: holds no {WEIGHTS}; expected a folder that save_pretrained wrote")
    return load_network(path, {})
