"""Segment images with a trained network: argv -> checkpoint and files -> masks of the files' own size.

`python predict.py --help` lists every flag.
"""

from functools import partial
from pathlib import Path

from datasets.files.find import find_inputs, mask_paths
from datasets.files.image import read_image, save_mask
from models.build import form_notes, load_network
from models.predictor import Predictor
from recipes import RECIPES, class_names_of, find_recipe
from utils import checkpoint
from utils.command_line import parse_flags
from utils.config import PREDICT, describe
from utils.device import choose_device, describe_device
from utils.distributed import barrier, init_distributed
from utils.errors import UserError, join_listed, run_main
from utils.files import allow_bytes
from utils.inference.files import predict_files
from utils.log import log


def main(argv: list[str]) -> None:
    given = parse_flags(argv, PREDICT, "Segment images: files or folders in, masks of the same size and geometry out.")
    if not given.get("checkpoint"):
        raise UserError("--checkpoint: nothing given; name the checkpoint to use, e.g. save_models/best_model.pth")
    out = Path(given.get("output_dir", "predictions"))
    inputs = find_inputs(given.get("input", ()), given.get("recursive", False), out)
    paths = [checkpoint.find(name) for name in given["checkpoint"]]
    device = given.pop("device", "auto")
    init_distributed(choose_device(device))
    recipe = find_recipe(given.pop("recipe", None))
    loaded = [load_network(path, RECIPES, recipe) for path in paths]
    predictor = Predictor(loaded, device, **{**given, "output_dir": str(out)})
    cfg = predictor.cfg
    allow_bytes(cfg.max_image_bytes)
    log(f"HeteroMedSeg, inputs to segment: {len(inputs.places)}\n{describe(cfg, PREDICT)}")
    log(f"device {describe_device(predictor.device)}, precision {predictor.precision}")
    classes = class_names_of(cfg, loaded[0].class_names)
    log("labels: " + ", ".join(f"{k} {name}" for k, name in enumerate(classes, 1)))
    notes = *form_notes(loaded[0], predictor.device), *(note for one in loaded for note in one.notes), *inputs.notes
    for note in notes:
        log(note)
    if inputs.skipped:
        log(f"skipped:\n  {join_listed(inputs.skipped)}")
    files = list(zip(inputs.places, mask_paths(out, inputs.places, cfg.force)))
    barrier()  # no rank writes before all have looked at what is there
    written = predict_files(predictor, files, classes, partial(read_image, upright=True), save_mask)
    log(f"masks written to {out.resolve()}: {len(written)}")


if __name__ == "__main__":
    run_main(main)
