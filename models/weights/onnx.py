"""A network in an ONNX file that tools.export wrote, run by ONNX Runtime on the CPU, for test.py and predict.py."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.checkpoint import SETTINGS, first_line
from utils.errors import UserError


class OnnxNetwork(nn.Module):
    """settings: what a checkpoint holds besides its weights

    in:  image (B, C, S, T) of the size that the file was exported for
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
        self.size = tuple(self.session.get_inputs()[0].shape[-2:])

    def forward(self, image: Tensor) -> Tensor:
        if tuple(image.shape[-2:]) != self.size:
            found, size = ("x".join(map(str, one)) for one in (image.shape[-2:], self.size))
            raise UserError(
                f"the ONNX file takes images of {size}, not of {found}; leave out --tta_scales and --img_size"
            )
        (logits,) = self.session.run(None, {"image": image.float().cpu().numpy()})
        return torch.from_numpy(logits).to(image.device)
