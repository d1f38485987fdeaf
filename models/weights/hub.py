"""A trained network on the Hugging Face Hub, or in a folder of the same form: safetensors, config.json, model card.

Needs `huggingface_hub` and `safetensors` (requirements-hub.txt), which nothing else here imports.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from models.build import Loaded
from models.hetero_medseg import ARCHITECTURE, HeteroMedSeg
from utils.config import from_dict, to_dict
from utils.errors import UserError

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


@cache
def hub_class() -> type:
    """HeteroMedSeg with PyTorchModelHubMixin. raises: UserError where huggingface_hub is not installed"""
    try:
        import safetensors.torch  # noqa: F401 - the mixin needs it
        from huggingface_hub import PyTorchModelHubMixin
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install -r requirements-hub.txt") from None
    facts = {"license": "apache-2.0", "pipeline_tag": "image-segmentation", "tags": ["medical-imaging"]}

    class HubHeteroMedSeg(HeteroMedSeg, PyTorchModelHubMixin, model_card_template=CARD, **facts):
        """settings: `utils.config.to_dict` of the training; class_names: of its foreground"""

        def __init__(self, settings: dict[str, Any], class_names: list[str]) -> None:
            self.cfg = from_dict(settings, "config.json", {})
            self.class_names = tuple(class_names)
            super().__init__(**{name: getattr(self.cfg, name) for name in ARCHITECTURE})

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
    # where the training data lay is nobody else's business
    settings = to_dict(predictor.trained) | {"root_path": None, "list_dir": None, "csvfile": None}
    for name in ("dataset", "pretrained", "pretrained_vssd", "output_dir"):
        settings[name] = Path(settings[name]).name
    model = hub_class()(settings=settings, class_names=list(predictor.class_names))
    model.load_state_dict(predictor.models[0].state_dict())
    return model.eval()


def from_hub(name: str, revision: str | None) -> Loaded:
    """Load a folder that `save_pretrained` wrote, or a repository of the Hub."""
    kind = hub_class()
    if Path(name).is_dir() and not (Path(name) / "model.safetensors").is_file():
        raise UserError(f"{name}: holds no model.safetensors; expected a folder that save_pretrained wrote")
    model = kind.from_pretrained(name, revision=revision, strict=True)
    return Loaded(model.eval(), model.cfg, model.class_names, {"file": name})
