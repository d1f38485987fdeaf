"""A web page on this machine for trying a checkpoint: drop an image, look at its slices, take the mask.

    python -m tools.app --checkpoint save_models/best_model.pth       (pip install -r requirements-app.txt)

It takes pictures, NIfTI files, DICOM files and zipped DICOM series of one patient. Only programs on this machine reach
the page. Uploads are limited in size, lie in a folder of their own, and go when the program ends.
"""

import os
import re
import tempfile
import zipfile
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.files.dicom import is_dicom
from datasets.files.image import PICTURE_SUFFIXES, read_image, save_mask, suffix_of
from models.predictor import Predictor
from recipes import RECIPES, class_names_of, find_recipe
from tools.output import parser_of
from utils.errors import UserError, run_main
from utils.files import reading
from utils.inference.orientation import turn
from utils.inference.segment import Segmented, segment
from utils.log import log
from utils.results.overlay import LEAST_SIDE, class_color, to_rgb

HOST = "127.0.0.1"
MOST_UPLOADED = 500 * 2**20  # bytes of one file
MOST_UNPACKED, MOST_MEMBERS = 2 * 2**30, 5000  # bytes and files of a zip archive
AXIAL = "SPL"  # how a volume is shown: slices from below, the patient's right on the left
KINDS = (*PICTURE_SUFFIXES, ".nii", ".nii.gz", ".dcm", ".zip")


def main(argv: list[str]) -> None:
    parser = parser_of("app", __doc__)
    parser.add_argument("--checkpoint", nargs="+", required=True, help="checkpoint; several are averaged")
    parser.add_argument("--recipe", help="recipe of released weights, which hold none of their own")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--port", type=int, default=7860, help="port on this machine (default: 7860)")
    given = parser.parse_args(argv)
    recipe = find_recipe(given.recipe)
    predictor = Predictor.load(*given.checkpoint, device=given.device, recipes=RECIPES, recipe=recipe)
    names = class_names_of(predictor.cfg, predictor.loaded[0].class_names)
    with tempfile.TemporaryDirectory(prefix="heteromedseg-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}  # read when gradio is imported
        page = build_page(predictor, names, Path(folder))
        log(f"open http://{HOST}:{given.port} in a browser on this machine; Ctrl+C ends the program")
        try:
            page.queue(default_concurrency_limit=2).launch(
                server_name=HOST, server_port=given.port, max_file_size=MOST_UPLOADED, quiet=True, share=False
            )
        except (OSError, OverflowError) as error:  # the latter for a number that is no port
            raise UserError(f"--port {given.port}: cannot be opened ({error}); give another one") from None


def build_page(predictor: Predictor, names: tuple[str, ...], folder: Path) -> Any:
    """The gradio.Blocks of the page; `folder` takes what is uploaded and written. raises: UserError without gradio"""
    try:
        import gradio as gr
    except ImportError:
        raise UserError("the page needs gradio: pip install -r requirements-app.txt -c constraints.txt") from None

    def load(path: str | None):
        if path is None:
            return None, gr.Slider(visible=False), None, "", gr.DownloadButton(visible=False)
        with tempfile.TemporaryDirectory(dir=folder) as unpacked:
            try:
                found, table, mask = segment_file(predictor, names, Path(path), Path(unpacked), folder)
            except UserError as error:
                raise gr.Error(escape(str(error).replace(f"{Path(path).parent}/", "")), duration=None) from None
        fullest = int((found.mask != 0).sum(axis=(1, 2)).argmax()) + 1
        slider = gr.Slider(1, max(2, len(found.mask)), fullest, step=1, visible=len(found.mask) > 1)
        return found, slider, show(found, fullest, 0.4), table, gr.DownloadButton(value=mask, visible=True)

    with gr.Blocks(title="HeteroMedSeg", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# HeteroMedSeg\nResearch software, not a medical device. Files stay on this machine.")
        state = gr.State()
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.File(label="A picture, NIfTI, DICOM or zipped series", elem_id="upload")
                number = gr.Slider(1, 2, 1, step=1, label="Slice", visible=False, elem_id="slice")
                opacity = gr.Slider(0, 1, 0.4, step=0.05, label="Opacity of the mask", elem_id="opacity")
                table = gr.HTML(elem_id="classes")
                mask = gr.DownloadButton("Download the mask", visible=False, elem_id="download")
            picture = gr.Image(
                show_label=False, format="png", interactive=False, buttons=["fullscreen"], scale=2, elem_id="picture"
            )
        upload.change(load, upload, [state, number, picture, table, mask], api_name="segment")
        for control in (number, opacity):
            control.change(show, [state, number, opacity], picture, show_progress="hidden", api_name=False)
    return page


def segment_file(
    predictor: Predictor, names: tuple[str, ...], path: Path, unpacked: Path, folder: Path
) -> tuple[Segmented, str, str]:
    """Segment one uploaded file: what is shown, the table of its classes as HTML, and the file of its mask.

    What is shown are slices: image (D, H, W) or (D, H, W, 3) and labels (D, H, W); D is 1 for a picture.
    raises: UserError for what is no image of KINDS, or too large
    """
    if suffix_of(path) not in KINDS and path.suffix.lower() != ".zip":
        raise UserError(f"{path.name}: expected one of {', '.join(KINDS)}")
    zipped = path.suffix.lower() == ".zip"
    members = unpack_series(path, unpacked) if zipped else {}
    try:
        image = read_image(unpacked if zipped else path, upright=True)
    except UserError as error:
        given = re.sub(r"\d{5}\.dcm", lambda found: members.get(found[0], found[0]), str(error))
        raise UserError(given.replace(str(unpacked), path.name)) from None
    volume = image.kind == "volume"
    found = segment(predictor, image.array, volume, path.name, image.orientation, image.spacing)
    target = Path(tempfile.mkdtemp(dir=folder)) / f"{path.name[: -len(suffix_of(path)) or -4]}_mask"
    written = save_mask(target, found.mask, image)
    unit, mask = (turn(part, image.orientation, AXIAL) if volume else part[None] for part in (found.unit, found.mask))
    table = class_table(mask, names, image.spacing if volume else None)
    return Segmented(mask.astype(np.uint8), unit, None), table, str(written)


def unpack_series(path: Path, folder: Path) -> dict[str, str]:
    """Write the DICOM files of an archive, but no DICOMDIR, to `folder` under names of our own; own -> given names.

    raises: UserError for an archive that is damaged, holds no DICOM file, or more than MOST_MEMBERS or MOST_UNPACKED
    """
    with reading(path, "zip the files again"), zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if not one.is_dir()]
        size = sum(one.file_size for one in members)  # no more than this is read of a member, whatever it holds
        if len(members) > MOST_MEMBERS or size > MOST_UNPACKED:
            found = f"found {len(members):,} files of {size / 2**20:,.0f} MB"
            raise UserError(f"{path}: {found}, expected at most {MOST_MEMBERS:,} of {MOST_UNPACKED / 2**20:,.0f} MB")
        names = {}
        for number, member in enumerate(members):
            if re.split(r"[/\\]", member.filename)[-1].upper() == "DICOMDIR":  # an index of the files, no image
                continue
            target = folder / f"{number:05}.dcm"
            target.write_bytes(archive.read(member))
            names[target.name] = member.filename
            if not is_dicom(target):
                target.unlink()
    if not any(folder.iterdir()):
        raise UserError(f"{path}: found no DICOM file in it, expected those of one series")
    return names


def class_table(mask: np.ndarray, names: tuple[str, ...], spacing: tuple[float, ...] | None) -> str:
    """Classes with their colours and sizes as HTML: ml where the spacing (z, y, x) in mm is known, else pixels."""
    counts = np.bincount(mask.ravel().astype(np.uint8), minlength=len(names) + 1)
    rows = []
    for label, name in enumerate(names, 1):
        size = f"{counts[label] * np.prod(spacing) / 1000:,.1f} ml" if spacing else f"{counts[label]:,} pixels"
        dot = f'<span style="color: rgb{class_color(label)}">⬤</span>'
        rows.append(f"<tr><td>{dot}</td><td>{escape(name)}</td><td>{size}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def show(found: Segmented | None, number: int, opacity: float) -> Any:
    """Slice `number` (from 1) with its labels in colour: uint8 (H', W', 3), enlarged if small; None without image."""
    if found is None:
        return None
    number = min(max(int(number), 1), len(found.mask)) - 1
    picture, labels = to_rgb(found.unit[number]).astype(np.float32), found.mask[number]
    for label in np.unique(labels[labels > 0]):
        area = labels == label
        picture[area] += opacity * (np.array(class_color(int(label))) - picture[area])
    factor = max(1, LEAST_SIDE // min(labels.shape))
    size = (labels.shape[1] * factor, labels.shape[0] * factor)
    return cv2.resize(np.rint(picture).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)


if __name__ == "__main__":
    run_main(main)
