"""Evaluate checkpoints: argv -> Config -> evaluate -> cases.csv, summary.json, report.html and a table.

`python test.py --help` lists every flag.
"""

from pathlib import Path

from models.build import form_notes, load_network
from recipes import RECIPES, class_names_of, family_of, resolve_dataset
from utils.command_line import parse_flags
from utils.config import TEST, describe
from utils.device import choose_device, choose_precision, describe_device
from utils.distributed import init_distributed, is_main
from utils.errors import run_main
from utils.files import allow_bytes, check_writable
from utils.inference.checkpoints import check_alike, find_checkpoints, settle
from utils.inference.forward import forward_fn
from utils.log import log
from utils.results.page.build import write_report
from utils.results.page.frames import Album
from utils.results.place import check_replaceable, result_folder, trained_on
from utils.results.summary import describe_result
from utils.training.resume import check_places


def main(argv: list[str]) -> None:
    given = resolve_dataset(parse_flags(argv, TEST, "Evaluate a checkpoint on a data set."), guess=False)
    paths = find_checkpoints(given, given.get("recipe"))
    device = choose_device(given.get("device", "auto"))
    init_distributed(device)
    loaded = [load_network(path, RECIPES, given.get("recipe")) for path in paths]
    check_alike(loaded)
    cfg = check_places(settle(loaded[0].cfg, given), given, str(paths[0]))
    allow_bytes(cfg.max_image_bytes)
    precision = choose_precision(cfg.precision, device, evaluating=True)
    family = family_of(cfg)
    classes = class_names_of(cfg, loaded[0].class_names)
    out = result_folder(Path(given.get("output_dir", paths[0].parent)), cfg, len(paths))
    origins = [one.origin for one in loaded]
    check_replaceable(out, describe_result(cfg, precision, origins, ""), cfg.force)
    check_writable(out)
    log(f"HeteroMedSeg, testing {', '.join(map(str, paths))}\n{describe(cfg, TEST)}")
    log(f"device {describe_device(device)}, precision {precision}; results in {out.resolve()}")
    for note in (*form_notes(loaded[0], device), *(note for one in loaded for note in one.notes)):
        log(note)
    forward = forward_fn([one.model for one in loaded], device, precision, cfg)
    album = Album() if cfg.report else None
    rows, split = family.evaluate(cfg, forward, device, classes, out, album)
    if not is_main():
        return
    meta = describe_result(cfg, precision, origins, split)
    meta |= trained_on(rows, [one.cases for one in loaded], cfg.split)
    write_report(out, rows, meta, album and album.cases, paths)


if __name__ == "__main__":
    run_main(main)
