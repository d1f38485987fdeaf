"""A network in an ONNX file that tools.export wrote, run by ONNX Runtime on the CPU, for test.py and predict.py."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.checkpoint import SETTINGS, first_line
from utils.errors import UserError

MULTIPLE, LEAST = 32, 128  # sides of images that a file for any size takes; SCSA pools smaller maps another way
ANY = f"multiples of {MULTIPLE} from {LEAST}"


def fits_any(size: Sequence[int]) -> bool:
    """Whether an ONNX file for any size takes images of this height and width."""
    return all(side >= LEAST and side % MULTIPLE == 0 for side in size)


class OnnxNetwork(nn.Module):
    """settings: what a checkpoint holds besides its weights

    in:  image (B, C, S, T) of the size that the file was exported for; of a file for any size multiples of MULTIPLE,
        at least LEAST
    out: logits (B, K, S, T), float32
    """

    def __init__(self, path: Path) -> None:
        """raises: UserError for a file that is damaged or was not written by tools.export"""
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"{path}: needs ONNX Runtime; pip install -r requirements-export.txt") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            words = self.session.get_modelmeta().custom_metadata_map
            self.settings: dict[str, Any] = json.loads(words.get(SETTINGS, "null"))
        except Exception as error:  # the runtime has a dozen kinds of its own
            raise UserError(f"{path}: damaged, or no ONNX file ({first_line(error)}); export it again") from error
        if not isinstance(self.settings, dict):
            raise UserError(f"{path}: holds no settings of this project; expected a file that tools.export wrote")
        self.size = tuple(self.session.get_inputs()[0].shape[-2:])  # names in place of numbers: any size

    def forward(self, image: Tensor) -> Tensor:
        if torch.is_autocast_enabled(image.device.type):
            raise UserError("the ONNX file computes in float32; give --precision fp32")
        found = tuple(image.shape[-2:])
        if not (fits_any(found) if isinstance(self.size[0], str) else found == self.size):
            size = f"{self.size[0]}x{self.size[1]}" if isinstance(self.size[0], int) else ANY
            remedy = "leave out --tta_scales and --img_size"
            raise UserError(f"the ONNX file takes images of {size}, not of {found[0]}x{found[1]}; {remedy}")
        (logits,) = self.session.run(None, {"image": image.float().cpu().numpy()})
        return torch.from_numpy(logits).to(image.device)
