"""The words of a model card, as Markdown. Facts come from the checkpoint and the results; the rest holds for all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.config import FIELDS, TRAIN, Config
from utils.results.page.words import augmentation_in_words
from utils.results.reading import Result
from utils.results.table import format_table
from utils.training.engine import RULES

Facts = dict[str, Any]
UNKNOWN = "unknown (the file does not say)"
# Fields of a Config that say where a run ran and what it was called, not what it was
ELSEWHERE = (
    *("dataset", "root_path", "list_dir", "csvfile", "class_names", "num_classes", "img_size", "ssd", "recipe"),
    *("output_dir", "resume", "force", "device", "compile", "cache", "workers", "log_every", "eval_every"),
)


def card(facts: Facts, results: Sequence[Result]) -> str:
    """The whole card; a section is a function of what is known."""
    what = ", ".join(facts["classes"])
    sections = [
        f"# Model card: HeteroMedSeg, {facts['dataset'] or facts['recipe']}",
        f"A network that marks {what} in {images_of(facts)}.\n\n"
        "**For research. Not a medical device: it must not be used to diagnose, treat or screen anyone.**",
        section("The checkpoint", table(checkpoint_rows(facts))),
        section("Data", data_text(facts)),
        section("Training", training_text(facts)),
        section("Results", results_text(facts, results)),
        section("Intended use", intended_text(facts)),
        section("Out of scope", out_of_scope_text(facts)),
        section("Limits", limits_text(facts, results)),
        section("How to use it", usage_text(facts)),
    ]
    return "\n\n".join(sections) + "\n"


def checkpoint_rows(facts: Facts) -> list[tuple[str, str]]:
    binary = facts["outputs"] == 1
    outputs = "1, a probability for each pixel" if binary else f"{facts['outputs']}, the background included"
    return [
        ("file", f"`{facts['file']}`, {facts['size']:,} bytes"),
        ("SHA-256", f"`{facts['sha256']}`"),
        ("network", f"HeteroMedSeg, {facts['parameters']:,} parameters, SSD form {facts['ssd']}"),
        ("input", f"{images_of(facts)}, resized to {'x'.join(map(str, facts['img_size']))} (height x width)"),
        ("outputs", outputs),
        ("classes", ", ".join(f"{k} {name}" for k, name in enumerate(facts["classes"], 1))),
        ("weights chosen by", selection_words(facts["selection"])),
        ("trained for", length_words(facts)),
    ]


def images_of(facts: Facts) -> str:
    return "single-channel slices of volumes" if facts["grey"] else "RGB images"


def selection_words(selection: str | None) -> str:
    """`validation; best of 5 folds ...` as written by the run, its first word explained."""
    rule, *more = (selection or "").split(";")
    return "; ".join([RULES.get(rule, rule or UNKNOWN), *(words.strip() for words in more)])


def length_words(facts: Facts) -> str:
    if facts["epoch"] is None:
        return UNKNOWN
    text = f"{facts['epoch']} epochs when these weights were kept"
    if facts["iteration"] is not None:
        text += f", {facts['iteration']:,} updates"
    return f"{text}; the run was set to {facts['config'].epochs} epochs"


def data_text(facts: Facts) -> str:
    return "\n".join(
        [
            f"- data set: {facts['dataset'] or UNKNOWN}",
            f"- split: {facts['split'] or UNKNOWN}",
            "- where the images come from, their licence and consent, patients (age, sex, ethnicity, disease), "
            "scanners, sites and annotators: unknown to the checkpoint; see the documentation of the data set",
        ]
    )


def training_text(facts: Facts) -> str:
    cfg: Config | None = facts["config"]
    if cfg is None:
        return (
            f"Released weights: the file holds no settings. This repository's recipe `{facts['recipe']}` follows the "
            "published description; whether it is how these weights were made is unknown."
        )
    names = [name for name, field in FIELDS.items() if TRAIN in field.metadata["verbs"] and name not in ELSEWHERE]
    rows = [(f"`--{name}`", setting_words(name, getattr(cfg, name))) for name in names]
    text = f"Recipe `{cfg.recipe}`, with these settings:\n\n{table(rows)}"
    if "auto" in (cfg.pretrained, cfg.pretrained_vssd):
        text += (
            "\n\n`auto` takes pretrained weights where their file is found; whether it was is unknown to the "
            "checkpoint. The run's `log.txt` says."
        )
    return text


def setting_words(name: str, value: Any) -> str:
    """A weights file is known by its name; where it lay says nothing."""
    return Path(value).name if name in ("pretrained", "pretrained_vssd") else str(value)


def results_text(facts: Facts, results: Sequence[Result]) -> str:
    if not results:
        return "None were given. `python test.py` measures them, `--results` puts them here."
    parts = []
    for result in results:
        summary = result.summary
        size = "x".join(map(str, summary["img_size"]))
        data = str(summary.get("dataset") or UNKNOWN).rstrip("/").split("/")[-1]
        more = [f"data set {data}", f"input {size}", f"precision {summary.get('precision', UNKNOWN)}"]
        more.append(f"test-time augmentation {augmentation_in_words(summary)}")
        if summary["protocol"] == "standard" and "tolerance" in summary:
            more.append(f"surface tolerance {summary['tolerance']:g}")
        head = f"### {summary['split']}, protocol {summary['protocol']}\n\n{', '.join(more)}; {summary['interval']}"
        parts.append(f"{head}\n\n```text\n{format_table(summary)}\n```")
        if facts["dataset"] and data != facts["dataset"]:
            parts.append(f"Measured on another data set ({data}) than it was trained on ({facts['dataset']}).")
    return "\n\n".join(parts)


def intended_text(facts: Facts) -> str:
    return (
        f"Research on segmentation: comparing methods, reproducing results, a starting point for training on other "
        f"data. The images should be made and prepared like those of the training set; what is sought in them is "
        f"{', '.join(facts['classes'])}."
    )


def out_of_scope_text(facts: Facts) -> str:
    lines = [
        "- any decision about a patient, whoever makes it: neither a clinical study nor an approval stands behind it",
        "- other kinds of images, structures, scanners or preparations than those of the training set",
        "- use without someone qualified who checks every mask",
    ]
    if facts["grey"]:
        lines.append("- measurements that need neighbouring slices to agree: each slice is segmented on its own")
    return "\n".join(lines)


def limits_text(facts: Facts, results: Sequence[Result]) -> str:
    size = "x".join(map(str, facts["img_size"]))
    lines = [
        f"- Images are resized to {size}: what is only a pixel or two wide at that size is easily lost.",
        "- How well it does for single groups of patients, scanners or sites is unknown.",
        "- A probability of the network is not one of being right: its calibration is unknown.",
    ]
    if facts["config"] is not None:
        lines.append(f"- One training run, seed {facts['config'].seed}: how much another would differ is unknown.")
    if results:
        lines.append("- The intervals are over the cases tested; they know nothing of other hospitals or trainings.")
    if any(result.summary["protocol"] == "legacy" for result in results):
        lines.append("- Protocol legacy: in volumes a missed class has distance 0, which flatters HD95.")
    if "may be in both parts" in (facts["split"] or "") or "groups are in both parts" in (facts["split"] or ""):
        lines.append("- Split by image: images of one patient or video may be in both parts, which flatters figures.")
    if (facts["selection"] or "").startswith("test"):
        lines.append("- **The weights were chosen by their result on the test part: figures on it are optimistic.**")
    return "\n".join(lines)


def usage_text(facts: Facts) -> str:
    recipe = f" --recipe {facts['recipe']}" if facts["released"] else ""
    argument = f', "{facts["recipe"]}"' if facts["released"] else ""
    binary = facts["outputs"] == 1
    values = f"True marks {facts['classes'][0]}" if binary else "its values are the classes above, 0 elsewhere"
    return f"""From the repository's folder, on the command line:

```sh
python predict.py --checkpoint {facts["file"]}{recipe} --input IMAGE_OR_FOLDER --output_dir masks
python test.py --checkpoint {facts["file"]}{recipe} --root_path DATA
```

or in Python:

```python
from pathlib import Path

import torch

from datasets.files.image import read_image
from models.build import load_network
from recipes import RECIPES
from utils.inference.files import predict_mask
from utils.inference.forward import forward_fn

loaded = load_network(Path("{facts["file"]}"), RECIPES{argument})
device = torch.device("cpu")
forward = forward_fn([loaded.model], device)
image = read_image("IMAGE")
mask = predict_mask(loaded.cfg, forward, device, image.array, image.kind == "volume", "IMAGE")
```

The mask has the image's own size; {values}."""


# --- Markdown ------------------------------------------------------------------------------------


def section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def table(rows: Sequence[tuple[str, str]]) -> str:
    cells = [(a.replace("|", "\\|"), b.replace("|", "\\|")) for a, b in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in cells)])
