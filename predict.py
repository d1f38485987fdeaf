"""Segment images with a trained network: argv -> checkpoint and files -> masks of the files' own size.

`python predict.py --help` lists every flag.
"""

from pathlib import Path

from datasets.files.find import find_inputs, mask_paths
from datasets.files.image import read_image, save_mask
from models.build import load_network
from recipes import RECIPES, find_recipe
from utils import checkpoint
from utils.command_line import apply, parse_flags
from utils.config import PREDICT, describe
from utils.device import choose_device, choose_precision, describe_device
from utils.distributed import barrier, init_distributed
from utils.errors import UserError, run_main
from utils.inference.checkpoints import check_alike
from utils.inference.files import predict_files
from utils.inference.forward import forward_fn
from utils.log import log


def main(argv: list[str]) -> None:
    given = parse_flags(argv, PREDICT, "Segment images: files or folders in, masks of the same size and geometry out.")
    if not given.get("checkpoint"):
        raise UserError("--checkpoint: nothing given; name the checkpoint to use, e.g. save_models/best_model.pth")
    inputs = find_inputs(given.get("input", ()))
    paths = [checkpoint.find(name) for name in given["checkpoint"]]
    device = choose_device(given.get("device", "auto"))
    init_distributed(device)
    recipe = find_recipe(given.get("recipe"))
    loaded = [load_network(path, RECIPES, recipe) for path in paths]
    check_alike({str(path): one.cfg for path, one in zip(paths, loaded)})
    given = {"output_dir": "predictions"} | given
    cfg = apply(loaded[0].cfg, {k: v for k, v in given.items() if k != "recipe"})
    precision = choose_precision(cfg.precision, device)
    log(f"HeteroMedSeg, segmenting {len(inputs)} inputs\n{describe(cfg, PREDICT)}")
    log(f"device {describe_device(device)}, precision {precision}")
    classes = cfg.class_names or loaded[0].class_names
    if classes:
        log("labels: " + ", ".join(f"{k} {name}" for k, name in enumerate(classes, 1)))
    for note in (note for one in loaded for note in one.notes):
        log(note)
    forward = forward_fn([one.model for one in loaded], device, precision, cfg)
    targets = mask_paths(Path(cfg.output_dir), inputs, cfg.force)
    barrier()  # no rank writes before all have looked at what is there
    written = predict_files(cfg, forward, device, list(zip(inputs, targets)), read_image, save_mask)
    log(f"{len(written)} masks in {Path(cfg.output_dir).resolve()}")


if __name__ == "__main__":
    run_main(main)
