"""Export a checkpoint for use elsewhere, and check the written file against PyTorch.

    python -m tools.export --checkpoint save_models/best_model.pth --output network.onnx --images a.png b.nii.gz
    python -m tools.export --checkpoint save_models/best_model.pth --format safetensors --output network.safetensors

onnx: the network for ONNX Runtime, OpenVINO and others; images of the checkpoint's input size, any number at a time.
With --size any their sides may be any multiples of 32 from 128. docs/segment_onnx.py segments files with it.
safetensors: the weights and their settings, without local paths; test.py, predict.py and the tools read it like a
checkpoint. Both say in their metadata how images are prepared.

The check compares logits and labels on --images, or on slices of a simulated CT where none are given.
"""

import argparse
import importlib.util
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.files.image import read_image
from datasets.phantom.generate import draw_case
from models.build import Loaded, is_ours, load_network
from models.weights.hub import portable
from models.weights.onnx import ANY, LEAST, MULTIPLE, fits_any
from recipes import RECIPES, class_names_of, find_recipe
from tools.output import parser_of
from utils import checkpoint
from utils.config import Config
from utils.errors import UserError, counted, run_main
from utils.files import replacing
from utils.inference.forward import labels_from_logits
from utils.inference.orientation import turn
from utils.log import log
from utils.preprocess.intensities import as_trained, choose_intensity, to_unit
from utils.preprocess.sizes import network_input

OPSET = 20
MOST_CHANGED = 1e-3  # share of the pixels whose label may differ from PyTorch's; rounding decides between equal classes
OTHER_SIZES = ((128, 160), (288, 352), (512, 256))  # on which a file for any size is checked, too
SLICES_OF_A_VOLUME = 4  # that the check takes of each volume
LICENCE = "Apache-2.0 (code and network); the terms of the training data may bind the weights"
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}


def main(argv: list[str]) -> None:
    given = parser().parse_args(argv)
    output = Path(given.output)
    if missing := [name for name in NEEDED[given.format] if importlib.util.find_spec(name) is None]:
        remedy = "pip install -r requirements-export.txt -c constraints.txt"
        raise UserError(f"--format {given.format}: needs {', '.join(missing)}; {remedy}")
    if output.suffix != f".{given.format}":
        raise UserError(f"--output {output}: expected a name that ends in .{given.format}")
    if output.exists() and not given.force:
        raise UserError(f"--output {output}: is there already; give --force to replace it, or another name")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: no folder {output.parent}; make it first, or give another name")
    loaded = load_network(checkpoint.find(given.checkpoint), RECIPES, find_recipe(given.recipe))
    size, any_size = loaded.cfg.img_size, given.size == "any"
    if any_size and not (given.format == "onnx" and is_ours(loaded.cfg) and fits_any(size)):
        found = f"--format {given.format}, --network {loaded.cfg.network}, images of {size[0]}x{size[1]}"
        raise UserError(f"--size any: is for onnx, heteromedseg and {ANY}; found {found}; leave it out")
    sizes = [size, *OTHER_SIZES] if any_size else [size]
    images = [check_images(replace(loaded.cfg, img_size=one), given.images) for one in sizes]
    with replacing(output) as part:
        if given.format == "onnx":
            write_onnx(part, loaded, any_size)
        else:
            write_safetensors(part, loaded)
        log(compare(loaded, load_network(part, RECIPES).model, images))
    log(f"written: {output} ({output.stat().st_size:,} bytes)")


def parser() -> argparse.ArgumentParser:
    parser = parser_of("export", __doc__)
    parser.add_argument("--checkpoint", required=True, help="the checkpoint to export")
    parser.add_argument("--format", choices=tuple(NEEDED), default="onnx", help="what to write (default: onnx)")
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument("--images", nargs="+", default=[], metavar="FILE", help="images to check the file on")
    size = "sizes of images that an ONNX file takes: the checkpoint's alone (default), or any"
    parser.add_argument("--size", choices=("checkpoint", "any"), default="checkpoint", help=size)
    parser.add_argument("--recipe", help="recipe of released weights, which hold none of their own")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    return parser


def check_images(cfg: Config, names: Sequence[str]) -> Tensor:
    """The images of `names`, some slices of each volume, as the network sees them: (N, C, S, T).

    Without names: slices of a simulated CT.
    """
    pre, units = cfg.preprocess, []
    if not names:
        volume = draw_case("phantom", (0,), max(cfg.img_size), 8)
        units = [as_trained(one, pre, colour=False) for one in volume.image[2:6]]
    for name in names:
        image = read_image(name, upright=True)
        array = turn(image.array, image.orientation, pre.orientation) if image.kind == "volume" else image.array
        whole = to_unit(array, choose_intensity(array, cfg.intensity, pre, name), name)
        if image.kind == "picture":
            units.append(as_trained(whole, pre, colour=image.array.ndim == 3))
        else:
            chosen = np.unique(np.linspace(0, len(whole) - 1, SLICES_OF_A_VOLUME + 2).round().astype(int)[1:-1])
            units += [as_trained(one, pre, colour=False) for one in whole[chosen]]
    batches = [network_input([unit], cfg.img_size, pre, torch.device("cpu")) for unit in units]
    return torch.cat([batch[..., : cfg.img_size[0], : cfg.img_size[1]] for batch in batches])  # under slide a window


def metadata(loaded: Loaded, any_size: bool = False) -> dict[str, str]:
    """What a program without this repository must know of the network; JSON where it is not one word or sentence."""
    cfg = loaded.cfg
    return {
        "network": f"HeteroMedSeg, SSD form {cfg.ssd}" if is_ours(cfg) else cfg.network,
        "img_size": json.dumps(cfg.img_size),
        "sizes": f"{ANY}; trained at img_size" if any_size else "img_size alone",
        "num_classes": json.dumps(cfg.num_classes),
        "class_names": json.dumps(class_names_of(cfg, loaded.class_names)),
        "preprocess": json.dumps(asdict(cfg.preprocess)),
        "intensity": json.dumps(cfg.intensity),
        "checkpoint_sha256": loaded.origin["sha256"],
        "licence": LICENCE,
        "use": "research only, not a medical device",
    }


def write_onnx(path: Path, loaded: Loaded, any_size: bool) -> None:
    """Write the network with its metadata."""
    program = to_onnx(loaded.model, loaded.cfg.preprocess.channels, None if any_size else loaded.cfg.img_size)
    words = metadata(loaded, any_size)
    state = portable(loaded, json.loads(words["class_names"]))
    settings = {name: value for name, value in state.items() if name != "model"}
    program.model.metadata_props.update(words | {checkpoint.SETTINGS: json.dumps(settings)})
    program.save(path)


def to_onnx(model: nn.Module, channels: int, size: tuple[int, int] | None) -> torch.onnx.ONNXProgram:
    """The network in evaluation mode for any number of images of one size, or of any size where `size` is None.

    The graph has the input `image` (B, C, S, T) and the output `logits` (B, K, S, T).
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # its notes are for those who convert operators
    shapes = {0: torch.export.Dim("batch")}
    if size is None:
        rows, columns = (torch.export.Dim(name, min=LEAST // MULTIPLE) for name in ("rows", "columns"))
        shapes |= {2: MULTIPLE * rows, 3: MULTIPLE * columns}
    try:
        return torch.onnx.export(
            model,
            # what is 1 here would be taken for a constant: the batch, and the maps that SCSA pools
            (torch.zeros(2, channels, *(size or (288, 352))),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=(shapes,),
            verbose=False,
        )
    except Exception as error:  # of PyTorch's exporter; 2.6 to 2.9 know no batch of any size here
        remedy = "pip install -r requirements-export.txt -c constraints.txt brings versions that can"
        raise UserError(f"PyTorch {torch.__version__} cannot export the network; {remedy}") from error


def write_safetensors(path: Path, loaded: Loaded) -> None:
    """Write weights and settings with the metadata."""
    words = metadata(loaded)
    checkpoint.save_safetensors(path, portable(loaded, json.loads(words["class_names"])), words)


def compare(loaded: Loaded, run: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> str:
    """One line on how the exported network differs from PyTorch in float32. in: (N, C, S, T) for each size S x T

    raises: UserError where more than MOST_CHANGED of the labels differ
    """
    with torch.inference_mode():
        pairs = [(loaded.model(one), run(one)) for batch in images for one in batch.split(2)]
    largest = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    changed = sum(int((labels_from_logits(ours) != labels_from_logits(theirs)).sum()) for ours, theirs in pairs)
    pixels = sum(len(batch) * batch.shape[-2] * batch.shape[-1] for batch in images)
    found = f"logits differ from PyTorch's by at most {largest:.1e}, labels in {changed} of {pixels} pixels"
    if not changed <= MOST_CHANGED * pixels or not largest < float("inf"):
        raise UserError(f"the exported network is not that of the checkpoint: {found}; expected equal labels")
    return f"checked on {counted(sum(map(len, images)), 'image')}: {found}"


if __name__ == "__main__":
    run_main(main)
