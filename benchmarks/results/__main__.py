"""Write docs/results.md, its figures and the table of the README from the files in results/.

    python -m benchmarks.results

Every figure on the page comes from a file; what explains it stands in page.md.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.results.figures import Study, draw
from benchmarks.study.text import as_markdown
from tools.compare.statistics import ALL_CLASSES
from tools.output import fill
from utils.errors import run_main
from utils.files import parse_csv, write_atomically
from utils.log import log

TEMPLATES = Path(__file__).parent
README_TABLE = re.compile(r"(<!-- made by python -m benchmarks\.results -->\n).*?(<!-- end -->)", re.DOTALL)


def main(argv: list[str]) -> None:
    argparse.ArgumentParser(
        "python -m benchmarks.results", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(argv)
    files, studies = read_json(ROOT / "results"), read_json(ROOT / "results" / "study")
    for study in all_studies(files, studies):
        draw(study, ROOT / "docs" / f"results_{study.name}.svg")
    write_atomically(ROOT / "docs" / "results.md", page(files, studies))
    readme = ROOT / "README.md"
    write_atomically(readme, with_table(readme.read_text(encoding="utf-8"), files, studies))
    log("written: docs/results.md, its figures, the table of README.md")


def read_json(folder: Path) -> dict[str, Any]:
    """The JSON files in `folder` by their names without ending."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def page(files: dict[str, Any], studies: dict[str, Any]) -> str:
    """The text of docs/results.md."""
    facts = {
        "files": files,
        "accuracy": list(accuracy(files, studies)),
        "studies": {name: as_markdown(study) for name, study in studies.items()},
        "figures": {study.name for study in all_studies(files, studies)},
        "speeds": {name: rows for name in files if (rows := list(found_in(files[name], "variant", "ratio")))},
        "found_in": found_in,
        "by": lambda rows, key: {row[key]: row for row in rows},
        "percent": percent,
    }
    return re.sub(" +\n", "\n", fill(TEMPLATES / "page.md", facts)) + "\n"


def with_table(readme: str, files: dict[str, Any], studies: dict[str, Any]) -> str:
    """The README with its table of accuracy made anew."""
    table = fill(TEMPLATES / "readme_table.md", {"accuracy": list(accuracy(files, studies))})
    return README_TABLE.sub(lambda found: found[1] + table + found[2], readme)


def accuracy(files: dict[str, Any], studies: dict[str, Any]) -> Iterator[dict[str, str]]:
    """A row of text for each network that was trained and tested: single runs, then the settings of comparisons."""
    for name, run in files.items():
        if "overall" in run:
            epochs, metrics = len(run["training_images_per_s"]), run["overall"]["metrics"]
            facts = {"setting": run["ssd"], "epochs": epochs, "seeds": 1, "cases": run["num_cases"]}
            facts |= {"data": described(name.rpartition("_")[0], run), "file": f"{name}.json"}
            yield as_row(facts, run["img_size"], metrics)
    for name, comparison in comparisons(files, studies).items():
        for setting in comparison["settings"]:
            if name in studies:
                cost, file = studies[name]["costs"][setting["name"]], f"study/{name}.json"
            else:
                epochs = files[name]["runs"][0]["epoch"]
                cost, file = {"img_size": comparison["img_size"], "epochs": epochs}, f"{name}.json"
            seeds, cases = setting["num_seeds"], comparison["cases"]
            facts = {"setting": setting["name"], "epochs": cost["epochs"], "seeds": seeds, "cases": cases}
            facts |= {"data": described(comparison["dataset"] or comparison["recipe"], comparison), "file": file}
            yield as_row(facts, cost["img_size"], setting["means"][ALL_CLASSES])


def as_row(facts: dict[str, Any], img_size: list[int], metrics: dict[str, Any]) -> dict[str, str]:
    """The facts as text, with input size, Dice and HD95."""
    distance, dice = next(metric for metric in metrics if metric.startswith("hd95")), metrics["dice"]
    far, spread = metrics[distance]["mean"], f" ± {100 * dice['sd']:.1f}" if facts["seeds"] > 1 else ""
    return {name: str(fact) for name, fact in facts.items()} | {
        "input": "x".join(map(str, img_size)),
        "dice": f"{100 * dice['mean']:.1f}{spread} % {interval(dice['ci95'])}",
        "hd95": "–" if far is None else f"{far:.1f} {distance.rpartition('_')[2]}",
    }


def described(data: str, result: dict[str, Any]) -> str:
    """`cvc_clinicdb, polyp, split by image`."""
    classes = list(result["classes"])
    listed = ", ".join(classes) if len(classes) < 4 else f"{len(classes)} classes"
    split = re.search(r"split by \w+", result["split"])
    return ", ".join([data, listed, *([split[0]] if split else [])])


def comparisons(files: dict[str, Any], studies: dict[str, Any]) -> dict[str, Any]:
    """The comparisons of tested networks: those of files, then those of studies on the test part."""
    found = {name: file["comparison"] for name, file in files.items() if "comparison" in file}
    return found | {name: study["comparison"] for name, study in studies.items() if study["part"] == "test"}


def all_studies(files: dict[str, Any], studies: dict[str, Any]) -> Iterator[Study]:
    """What is drawn: every comparison, with the validation Dice of its runs by epoch."""
    for name, file in files.items():
        if "comparison" in file:
            curves: dict[str, list[list[tuple[int, float]]]] = {}
            for run in file["runs"]:
                curves.setdefault(run["ssd"], []).append(list(enumerate(run["validation_dice"], 1)))
            yield Study(name, file["comparison"], curves)
    for name, study in studies.items():
        folder = ROOT / "results" / "study" / name.removesuffix("_val")
        curves = {}
        for arm in study["costs"]:
            seeds = [seed for seed in study["plan"]["seeds"] if seed not in study["missing"].get(arm, ())]
            curves[arm] = [read_curve(folder / arm / f"seed_{seed}" / "history.csv") for seed in seeds]
        yield Study(name, study["comparison"], curves)


def read_curve(history: Path) -> list[tuple[int, float]]:
    """(epoch, mean Dice on the validation part) of the epochs that were validated."""
    header, *lines = parse_csv(history.read_text(encoding="utf-8"))
    rows = [dict(zip(header, line)) for line in lines]
    return [(int(row["epoch"]), float(row["mean_dice"])) for row in rows if row.get("mean_dice")]


def found_in(value: Any, *keys: str) -> Iterator[dict[str, Any]]:
    """Every dict in a JSON value, however deep, that has all of `keys`."""
    if isinstance(value, dict) and all(key in value for key in keys):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from found_in(part, *keys)


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def interval(ci95: list[float]) -> str:
    return "" if None in ci95 else f"[{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]"


if __name__ == "__main__":
    run_main(main)
