"""Look into the network on one image: routes, gates and receptive fields as figures, their numbers as JSON.

    python -m tools.explain --checkpoint save_models/best_model.pth --image scan.png --pixel 120,96
    python -m tools.explain --img_size 224

The first command writes four files into --output_dir. routes.svg shows the regions that each block of bi-level
routing attention chose for the pixel. gates.svg shows the gates of SCSA on each skip. receptive_fields.svg shows
what the encoder sees in its three forms of SSD. explain.json holds the numbers. A network without routing attention
(--decoder conv) has no routes.svg, one without SCSA (--skips plain) no gates.svg. Without a checkpoint, as in the
second command, the network is not trained, and only its receptive fields are drawn.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from models import HeteroMedSeg, build_model
from models.build import Loaded, is_ours, load_network
from recipes import RECIPES, class_names_of, find_recipe
from tools.explain.figures import draw_fields, draw_gates, draw_routes
from tools.explain.input import Input, chosen_pixel, read_input
from tools.explain.internals import look_inside
from tools.explain.receptive_field import describe_field, receptive_fields
from tools.output import parser_of, svg_of, write_files
from utils import checkpoint
from utils.command_line import check_value
from utils.device import choose_device, choose_precision
from utils.errors import UserError, run_main
from utils.inference.forward import labels_from_logits
from utils.log import log

SEED = 1234  # of a fresh network, of noise and of the receptive fields' signs
NUM_NOISE = 4
NAMES = ("routes.svg", "gates.svg", "receptive_fields.svg", "explain.json")


def main(argv: list[str]) -> None:
    given = parser().parse_args(argv)
    check_flags(given)
    device = choose_device(given.device)
    choose_precision("auto", device, evaluating=True)  # float32: it switches TF32 off
    loaded = load(given)
    model, cfg = loaded.model.to(device), loaded.cfg
    image = read_input(given, cfg) if given.image else None
    size = f"{cfg.img_size[0]} x {cfg.img_size[1]}"
    log(f"HeteroMedSeg, explaining {given.checkpoint or 'a fresh network'} on {given.image or 'noise'} at {size}")

    found: dict[str, Any] = {"checkpoint": loaded.origin or None, "ssd": cfg.ssd, "img_size": list(cfg.img_size)}
    figures = {}
    if image is not None:
        found |= {"image": given.image, "slice": image.index, "size": list(image.size)}
    if image is not None and given.checkpoint:
        logits, routes, gates = look_inside(model, image.batch.to(device))
        place, pixel = chosen_pixel(given.pixel, logits, image)
        labels = labels_from_logits(logits[None])[0]
        names = class_names_of(cfg, loaded.class_names)
        found |= {"pixel": list(place), "input_pixel": list(pixel)}
        found["predicted"] = ("background", *names)[int(labels[pixel])]
        rows, columns = image.box
        found["foreground"] = float((labels[rows.start : rows.stop, columns.start : columns.stop] > 0).float().mean())
        found["routes"] = [one.describe(pixel) for one in routes]
        found["gates"] = [one.describe() for one in gates]
        title = f"Routes of pixel {place[0]}, {place[1]}: {found['predicted'][:24]}"
        if routes:
            figures["routes.svg"] = draw_routes(image.shown, found["routes"], pixel, title)
        if gates:
            figures["gates.svg"] = draw_gates(image.shown, gates)

    inputs = field_inputs(image, cfg.img_size)
    log(f"receptive fields over {len(inputs)} inputs, three forms of SSD")
    fields = receptive_fields(model, inputs.to(device), SEED)
    found["receptive_fields"] = [describe_field(field) for field in fields]
    figures["receptive_fields.svg"] = draw_fields(fields, f"trained {cfg.ssd}" if given.checkpoint else "not trained")
    numbers = json.dumps(rounded(found), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_files(given.output_dir, {name: svg_of(one) for name, one in figures.items()} | {"explain.json": numbers})


def parser() -> argparse.ArgumentParser:
    parser = parser_of("explain", __doc__)
    parser.add_argument("--checkpoint", "--model", help="the network to look into; without it a fresh one")
    parser.add_argument("--image", help="picture, array, NIfTI or DICOM file, as predict.py takes them")
    parser.add_argument("--pixel", metavar="Y,X", help="row and column from 0 in the image (middle of the foreground)")
    parser.add_argument(
        "--slice", type=int, help="slice of a volume as it was turned for the network, from 0 (the middle one)"
    )
    parser.add_argument("--img_size", metavar="SIZE", help="input size (the checkpoint's; 224 for a fresh network)")
    parser.add_argument("--recipe", help=f"recipe of released weights: {', '.join(RECIPES)}")
    parser.add_argument("--intensity", default="auto", help="how values become [0, 1], as predict.py has it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--output_dir", default="explanation", help="folder for figures and explain.json (explanation)")
    parser.add_argument("--force", action="store_true", help="replace what output_dir already holds")
    return parser


def check_flags(given: argparse.Namespace) -> None:
    """Raise UserError for flags that contradict each other, and for results that are there already."""
    if given.checkpoint and not given.image:
        raise UserError(f"--checkpoint {given.checkpoint}: no image to look at; name one with --image FILE")
    for flag, needed in (("pixel", "checkpoint"), ("slice", "image")):
        if getattr(given, flag) is not None and not getattr(given, needed):
            raise UserError(f"--{flag} {getattr(given, flag)}: nothing to use it on; give --{needed} FILE, too")
    given.recipe = find_recipe(given.recipe)
    given.intensity = check_value("intensity", given.intensity)
    held = [name for name in NAMES if (Path(given.output_dir) / name).exists()]
    if held and not given.force:
        raise UserError(
            f"--output_dir {given.output_dir}: already holds {', '.join(held)}; give --force, or another folder"
        )


def load(given: argparse.Namespace) -> Loaded:
    """The network of --checkpoint, or a fresh one, with --img_size in its config. raises: UserError for another one"""
    if given.checkpoint:
        loaded = load_network(checkpoint.find(given.checkpoint), RECIPES, given.recipe)
        if not isinstance(loaded.model, HeteroMedSeg):
            found = "an ONNX file" if is_ours(loaded.cfg) else f"of --network {loaded.cfg.network}"
            raise UserError(
                f"--checkpoint {given.checkpoint}: {found}, whose parts cannot be looked into; expected best_model.pth "
                "or another checkpoint of --network heteromedseg"
            )
    else:
        cfg = dataclasses.replace(RECIPES[given.recipe or "synapse"], img_size=(224, 224))
        torch.manual_seed(SEED)
        loaded = Loaded(build_model(cfg.num_classes, cfg.ssd).eval(), cfg, None, {})
    size = loaded.cfg.img_size if given.img_size is None else check_value("img_size", given.img_size)
    return dataclasses.replace(loaded, cfg=dataclasses.replace(loaded.cfg, img_size=size))


def field_inputs(image: Input | None, size: tuple[int, int]) -> torch.Tensor:
    """Inputs (M, 1 or 3, S, T) to average receptive fields over: the image and its mirror images, or noise."""
    if image is not None:
        return torch.cat([image.batch.flip(dims) for dims in ((), (-1,), (-2,), (-2, -1))])
    return torch.randn(NUM_NOISE, 3, *size, generator=torch.Generator().manual_seed(SEED))


def rounded(value: Any) -> Any:
    """Plain values for JSON with every float in them rounded to 6 significant digits."""
    return json.loads(json.dumps(value), parse_float=lambda digits: float(f"{float(digits):.6g}"))


if __name__ == "__main__":
    run_main(main)
