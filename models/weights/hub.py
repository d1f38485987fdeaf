"""Save and load a trained network in the form of the Hugging Face Hub.

Such a folder holds safetensors, config.json and a model card. Both need `huggingface_hub` and `safetensors`
(requirements-hub.txt); `portable` does not, and `python -m tools.export --format safetensors` uses it, too.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from models.build import Loaded, load_network
from models.hetero_medseg import ARCHITECTURE, HeteroMedSeg
from utils import checkpoint
from utils.config import Config, from_dict, to_dict
from utils.errors import UserError
from utils.results.summary import dataset_of

WEIGHTS = "model.safetensors"  # the name that the Hub expects
CARD = """---
{{ card_data }}
---

# HeteroMedSeg: {{ classes }}

A network that marks {{ classes }} in {{ images }}, resized to {{ size }} (height x width).

**For research. Not a medical device: it must not be used to diagnose, treat or screen anyone.**

It was trained by the recipe `{{ recipe }}`. config.json holds all settings, and how images become its input. In a copy
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
    """The package huggingface_hub. raises: UserError where it, or safetensors, is not installed"""
    try:
        import huggingface_hub
        import safetensors  # noqa: F401 - what is saved there
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install -r requirements-hub.txt") from None
    return huggingface_hub


@cache
def hub_class() -> type:
    """HeteroMedSeg with PyTorchModelHubMixin; what it writes is read like any other file of ours.

    raises: UserError where huggingface_hub is not installed
    """
    PyTorchModelHubMixin = hub().PyTorchModelHubMixin
    facts = {"license": "apache-2.0", "pipeline_tag": "image-segmentation", "tags": ["medical-imaging"]}

    class HubHeteroMedSeg(HeteroMedSeg, PyTorchModelHubMixin, model_card_template=CARD, **facts):
        """A network to publish.

        settings: `utils.config.to_dict` of the training; class_names: of its foreground
        """

        state: dict[str, Any]  # what `portable` gives of it; `to_hub` sets it

        def __init__(self, settings: dict[str, Any], class_names: list[str]) -> None:
            self.cfg = from_dict(settings, "config.json", {})
            self.class_names = tuple(class_names)
            super().__init__(**{name: getattr(self.cfg, name) for name in ARCHITECTURE})

        def _save_pretrained(self, save_directory: Path) -> None:
            checkpoint.save_safetensors(save_directory / WEIGHTS, self.state)

        def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
            pre = self.cfg.preprocess
            return super().generate_model_card(
                classes=re.sub(r"([\\`*_<\[\]|])", r"\\\1", ", ".join(self.class_names)),
                images="single-channel slices of volumes" if pre.channels == 1 else "RGB images",
                size="x".join(map(str, self.cfg.img_size)),
                recipe=self.cfg.recipe,
            )

    return HubHeteroMedSeg


def to_hub(predictor: Any) -> Any:
    """The network of a `Predictor` with `save_pretrained` and `push_to_hub`. raises: UserError for several networks"""
    if len(predictor.models) > 1 or predictor.cfg.network != "heteromedseg":
        found = f"{len(predictor.models)} networks {predictor.cfg.network}"
        raise UserError(f"found {found}, expected one heteromedseg; save them one by one")
    state = portable(predictor.loaded[0], predictor.class_names)
    model = hub_class()(settings=state["config"], class_names=state["class_names"])
    model.state = state
    return model.eval()


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
