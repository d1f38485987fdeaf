"""Trained networks from Python: loaded once, then one array after another to its mask, as predict.py does it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.build import Loaded, load_network
from models.weights.hub import from_hub, push, save
from utils import checkpoint
from utils.command_line import apply, check_setting
from utils.config import Config
from utils.device import choose_device, choose_precision
from utils.errors import UserError
from utils.inference.checkpoints import check_alike
from utils.inference.forward import forward_fn
from utils.inference.segment import segment
from utils.preprocess import ORIENTATIONS
from utils.preprocess.intensities import is_volume


class Predictor:
    """One or several trained networks with the preprocessing of their training.

    loaded: the networks as their files held them; cfg: settings of the first, with `settings` on top; class_names: of
    labels 1, 2, ...; models: the networks, in evaluation mode on `device`; forward: images to logits, see
    `utils.inference.forward`
    """

    def __init__(self, loaded: Sequence[Loaded], device: str = "auto", **settings: Any) -> None:
        """settings: fields of Config that predict.py takes as flags, such as tta=True or intensity="ct".

        raises: UserError for networks whose probabilities cannot be averaged, and for settings that are none
        """
        check_alike(loaded)
        self.loaded = tuple(loaded)
        self.cfg = apply(loaded[0].cfg, {name: check_setting(name, value) for name, value in settings.items()})
        self.device = choose_device(device)
        self.precision = choose_precision(self.cfg.precision, self.device)
        self.models = [one.model for one in loaded]
        self.forward = forward_fn(self.models, self.device, self.precision, self.cfg)
        unnamed = tuple(f"class {k}" for k in range(1, max(2, self.cfg.num_classes)))
        self.class_names: tuple[str, ...] = self.cfg.class_names or loaded[0].class_names or unnamed

    @classmethod
    def load(
        cls,
        *checkpoints: str | Path,
        device: str = "auto",
        recipes: Mapping[str, Config] | None = None,
        recipe: str | None = None,
        **settings: Any,
    ) -> "Predictor":
        """Load one checkpoint, or several whose probabilities are averaged.

        recipes, recipe: `recipes.RECIPES` and a name in it, for released weights, which hold no settings
        settings: as for `Predictor`
        raises: UserError for files that are missing, damaged or of another kind
        """
        paths = [checkpoint.find(path) for path in checkpoints]
        if not paths:
            raise UserError("Predictor.load: no checkpoint named; give the path of at least one")
        return cls([load_network(path, recipes or {}, recipe) for path in paths], device, **settings)

    def predict(self, array: np.ndarray, spacing: Sequence[float] | None = None, orientation: str = "") -> np.ndarray:
        """Segment one image.

        in:  a picture (H, W) or (H, W, 3) RGB, or a volume (D, H, W), its values as a file holds them (HU for CT)
        spacing: mm in the order of the array; networks see pixels, but a warning tells of volumes that are cut across
            thick slices
        orientation: of a volume, the patient's directions in which its axes grow, such as "SPL" for a standard axial
            CT (`utils.inference.orientation`); "" where it lies as the training data do
        out: bool for one class, else uint8 with 0 the background; of the size and the orientation of the array
        raises: UserError for what is no such image, and for values whose meaning is not known (give intensity=...)
        """
        array = np.asarray(array)
        if array.ndim not in (2, 3) or array.dtype.kind not in "buif" or array.size == 0:
            found = f"found {array.dtype} of shape {array.shape}"
            raise UserError(f"array: {found}, expected real numbers (H, W), (H, W, 3) or (D, H, W)")
        volume = array.ndim == 3 and (is_volume(array.shape) or bool(orientation))
        if array.ndim == 3 and not volume:  # without alpha
            array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
        if volume and not orientation and self.cfg.preprocess.channels == 3 == len(array):
            raise UserError(
                f"array {array.shape}: has its colours first; expected (H, W, 3), or a volume's orientation"
            )
        axes = 3 if volume else 2
        if spacing is not None and (len(spacing) != axes or not all(0 < mm < float("inf") for mm in spacing)):
            raise UserError(f"spacing {tuple(spacing)}: expected {axes} positive numbers in mm, z first")
        if orientation not in ORIENTATIONS or (orientation and array.ndim == 2):
            expected = 'three letters such as "SPL" for a volume, none for a picture'
            raise UserError(f"orientation {orientation!r}: expected {expected}")
        return segment(self, array, volume, "array", orientation, spacing).mask

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the first network as safetensors, with config.json and a model card: see `models.weights.hub`."""
        save(self, Path(folder))

    def push_to_hub(self, repository: str, token: str | None = None, **options: Any) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub; its address.

        options: of huggingface_hub's create_repo, such as private=True
        raises: UserError where the hub does not take it
        """
        try:
            return push(self, repository, token, **options)
        except (OSError, ValueError) as error:
            raise UserError(f"{repository}: not uploaded to the Hub ({error}); is `hf auth login` done?") from error

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto", revision: str | None = None, **settings: Any):
        """Load what `save_pretrained` wrote, from a folder or the Hugging Face Hub. settings: as for `Predictor`"""
        return cls([from_hub(str(name), revision)], device, **settings)
