"""What the tools share: their flags, and how they write figures as SVG, filled templates, files in a folder."""

import argparse
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.log import log
from utils.results.summary import write_atomically

if TYPE_CHECKING:  # matplotlib is imported where a figure is made
    from matplotlib.figure import Figure


def parser_of(tool: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m tools.TOOL`, without flags yet; its help keeps the lines of the description."""
    kept = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"python -m tools.{tool}", description=description, formatter_class=kept)


def svg_of(figure: "Figure") -> str:
    """The figure as SVG. Words stay text, and the same figure gives the same SVG."""
    from matplotlib import rc_context

    svg = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "0"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # matplotlib's font lacks some letters; a browser finds another font
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return svg.getvalue()


def fill(template: Path, facts: dict[str, Any], **options: Any) -> str:
    """The Jinja2 template with `facts` filled in; `options` are those of jinja2.Environment."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options |= {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=FileSystemLoader(template.parent), **options).get_template(template.name).render(facts)


def write_files(folder: str | Path, texts: dict[str, str]) -> None:
    """Write each text into the file of its name; raises UserError where `folder` (--output_dir) cannot be written."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot be written ({error.strerror}); give another folder") from None
    log(f"written: {', '.join(texts)} in {folder.resolve()}")
