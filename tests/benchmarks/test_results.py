"""docs/results.md, its figures and the README's table say what the files in results/ say."""

import copy
import json

import pytest

from benchmarks.results import __main__ as results
from benchmarks.results.figures import draw
from benchmarks.study.plans import Plan
from benchmarks.study.table import summarise
from tests.benchmarks.test_study import finish
from tests.support.places import ROOT

AGAIN = "run python -m benchmarks.results"


@pytest.fixture(scope="module")
def found():
    return results.read_json(ROOT / "results"), results.read_json(ROOT / "results" / "study")


def test_the_page_is_made_from_the_files(found):
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results.page(*found), AGAIN


def test_the_table_of_the_readme_is_made_from_the_files(found):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == results.with_table(text, *found), AGAIN
    assert text.count("acdc, RV, Myo, LV") == 1


def test_the_figures_are_of_these_data_and_none_is_left_over(found):
    studies = {study.name: study for study in results.all_studies(*found)}
    drawn = {path.stem.removeprefix("results_"): path for path in (ROOT / "docs").glob("results_*.svg")}
    assert drawn.keys() == studies.keys(), AGAIN
    for name, path in drawn.items():
        assert studies[name].digest in path.read_text(encoding="utf-8"), AGAIN


def test_every_file_of_results_is_on_the_page_or_named_beside(found):
    text = results.page(*found) + (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert [name for name in (*found[0], *found[1]) if name not in text] == []


def test_the_times_of_the_synapse_training_are_those_of_the_files(found):
    """2,211 slices in 300 epochs, on paper on a GPU, by the measured step on a CPU."""
    text = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    images = 2211 * 300
    assert f"{images:,} images" in text
    (step,) = (r for r in found[0]["roofline"]["results"] if (r["work"], r["batch"], r["size"]) == ("train", 24, 224))
    for gpu in ("H100", "H200"):
        minutes = [images / step[gpu][form]["images_per_s"] / 60 for form in ("eager", "compiled, estimate")]
        assert f"| {gpu} | {minutes[0]:.0f} minutes | {minutes[1]:.0f} minutes |" in text
    step = found[0]["breakdown_cpu"]["rows"][0]
    assert (step["work"], step["size"]) == ("train", 224)
    assert f"\n{images * step['step_ms'] / 1000 / 86400:.0f} days for the training steps" in text


def test_a_page_without_a_file_of_a_section(found):
    for name in set(found[0]) - {"cvc_seeds_96"}:
        results.page({other: file for other, file in found[0].items() if other != name}, found[1])


def test_a_figure_that_changes_in_a_file_changes_on_the_page(found):
    files, studies = copy.deepcopy(found)
    files["acdc_128"]["overall"]["metrics"]["dice"]["mean"] = 0.1234
    row = next(results.accuracy(files, studies))
    assert row["dice"].startswith("12.3 % [")
    files["acdc_128"]["overall"]["metrics"]["hd95_px"]["mean"] = None  # every structure was missed
    assert next(results.accuracy(files, studies))["hd95"] == "–"
    assert row["dice"] in results.page(files, studies)
    assert row["dice"] in results.with_table((ROOT / "README.md").read_text(encoding="utf-8"), files, studies)


def test_files_that_a_gpu_will_give_are_shown_as_they_are(found):
    """`benchmarks.gpu` and `benchmarks.training` write the same rows, deeper in their files."""
    files = copy.deepcopy(found[0])
    (row,) = (r for r in files["speed_infer_cpu"]["rows"] if r["variant"] == "ours-fp32")
    loop = {"batch": 128, "precision": "bf16", "compiled": True, "images_per_s": 2001.0}
    loop["whole_training_minutes_extrapolated"] = 5.5
    machine = files["speed_infer_cpu"]["machine"] | {"gpu": "NVIDIA H100"}
    parts = {
        "infer": {"rows": [row | {"batch": 77}]},
        "train": {"error": "OutOfTime: more than its 90 s"},
        "loop": loop,
    }
    files["gpu"] = {"machine": machine, "parts": parts}
    files["training_gpu"] = {"input": [files["input_pipeline_cpu"]["rows"][0] | {"batch": 99}], "loop": loop}
    text = results.page(files, {})
    assert "### gpu\n\nIntel(R) Xeon(R) Processor, 2 cores, NVIDIA H100, PyTorch" in text
    assert "| infer | ours-fp32 | 77 | 224 |" in text
    assert "* not measured: OutOfTime" in text
    assert "EXTRAPOLATED: 5.5 minutes" in text
    assert "| `training_gpu.json` | slices | 224 | 99 |" in text


def test_a_study_has_a_row_an_arm_a_table_and_a_figure(found, tmp_path, monkeypatch):
    plan = Plan(("--dataset", "nowhere"), ("--epochs", "2"), {"one": (), "two": ()}, seeds=(1, 2))
    folder = tmp_path / "results" / "study" / "toy"
    for number, (arm, seed) in enumerate([("one", 1), ("one", 2), ("two", 1)]):
        finish(folder / arm / f"seed_{seed}", number, img_size=[32, 32])
        text = f"epoch,loss,mean_dice\n1,0.5,0.25\n2,0.4,\n3,0.3,0.{5 + number}\n"
        (folder / arm / f"seed_{seed}" / "history.csv").write_text(text, encoding="utf-8")
    (folder / "two" / "seed_2").mkdir()
    (folder / "two" / "seed_2" / "history.csv").write_text("epoch,loss,mean_dice\n1,0.5,0.9\n", encoding="utf-8")
    study = json.loads(json.dumps(summarise(plan, folder, "test")))
    monkeypatch.setattr(results, "ROOT", tmp_path)
    files, studies = found[0], {"toy": study}
    rows = [row for row in results.accuracy(files, studies) if row["file"] == "study/toy.json"]
    assert [(row["setting"], row["seeds"], row["epochs"], row["input"]) for row in rows] == [
        ("one", "2", "2", "32x32"),
        ("two", "1", "2", "32x32"),
    ]
    text = results.page(files, studies)
    assert "### Study toy" in text
    assert "not in the table: two (2) (seeds)" in text
    *_, drawn = results.all_studies(files, studies)
    assert drawn.curves == {"one": [[(1, 0.25), (3, 0.5)], [(1, 0.25), (3, 0.6)]], "two": [[(1, 0.25), (3, 0.7)]]}
    draw(drawn, tmp_path / "toy.svg")
    assert drawn.digest in (tmp_path / "toy.svg").read_text(encoding="utf-8")
    changed = json.loads(json.dumps(study["comparison"]))
    changed["settings"][0]["means"]["all classes"]["dice"]["mean"] += 0.01
    assert drawn._replace(comparison=changed).digest != drawn.digest
    pairs = [pair | {"difference": 0.5} for pair in changed["pairs"]]
    assert drawn._replace(comparison=study["comparison"] | {"pairs": pairs}).digest != drawn.digest
    changed["settings"][0]["means"]["all classes"]["dice"]["ci95"] = [None, None]  # of a single case
    draw(drawn._replace(comparison=changed), tmp_path / "one_case.svg")
    assert "study/toy.json" not in {row["file"] for row in results.accuracy(files, {"toy": study | {"part": "val"}})}
