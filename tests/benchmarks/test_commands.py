"""The benchmarks as commands: each runs at tiny sizes, and a part that fails leaves the others their time."""

import json
from unittest import mock

import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks import gpu, measure, runtimes, scoring, speed, station, training, variants
from benchmarks.variants import NETWORKS
from datasets.memory import InMemory
from utils.errors import UserError

CPU = torch.device("cpu")
SMALL = 128  # side of the matrices in the products


def quick(builder, *arguments):
    """A network without its slow initial weights, for what looks at no figure of them."""
    with mock.patch.object(torch.nn.init, "trunc_normal_"):
        return builder(*arguments)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Networks are built quickly and in this process, and work is only done as often as it must be."""
    builders = {name: (lambda *given, build=build: quick(build, *given)) for name, build in NETWORKS.items()}
    monkeypatch.setattr(variants, "NETWORKS", builders)
    monkeypatch.setattr(station, "WARM_UP", 1)
    monkeypatch.setattr(measure, "ENOUGH", 0)
    monkeypatch.setattr(speed, "open_station", station.Station)
    monkeypatch.setattr(speed, "matrix_side", lambda _: SMALL)


@pytest.fixture
def measured(tmp_path):
    """Run a benchmark's main with --smoke; out: what it wrote."""

    def run(module, *options):
        path = tmp_path / "out.json"
        module.main(["--smoke", *options, "--output", str(path)])
        return json.loads(path.read_text(encoding="utf-8"))

    return run


def test_speed_runs_and_a_missing_package_costs_only_its_own_row(measured, monkeypatch, capsys):
    def missing(*_):
        raise UserError("needs the package smp")

    monkeypatch.setitem(variants.NETWORKS, "unet_resnet34", missing)
    words = "plain-fp32,ours-fp32-recompute,unet_resnet34"
    result = measured(speed, "--device", "cpu", "--work", "train", "--variants", words)
    plain, ours, peer = result["rows"]
    assert (plain["variant"], ours["variant"]) == ("plain-fp32", "ours-fp32-recompute")
    assert plain["ratio"]["median"] == 1
    assert ours["images_per_s"] > 0
    assert ours["fraction_of_matrix_rate"] > 0  # a time: no bound above
    assert ours["parameters"] == plain["parameters"] == 23_438_334
    assert "smp" in peer["error"]
    assert "unet_resnet34" in capsys.readouterr().out
    assert {"cpu", "threads", "torch", "commit", "command"} <= result["machine"].keys()


def test_peers_stand_beside_ours_in_one_setting():
    assert speed.with_peers("bf16-compiled").split(",")[:2] == ["ours-bf16-compiled", "unet_resnet34-bf16-compiled"]


def test_training_runs_and_extrapolates(measured):
    result = measured(training, "--device", "cpu")
    assert [row["input"] for row in result["input"]] == ["slices", "pictures"]
    for row in result["input"]:
        assert row["decode_images_per_s"] > 0
        assert row["batches_images_per_s"] / row["step_images_per_s"] == pytest.approx(row["ratio"]["median"])
        assert row["share_of_update"] == pytest.approx(1 / (1 + row["ratio"]["median"]))
    assert training.IMAGE_STEPS == 663_300
    minutes = training.IMAGE_STEPS / result["loop"]["images_per_s"] / 60
    assert result["loop"]["whole_training_minutes_extrapolated"] == pytest.approx(minutes)


def test_timed_batches_have_the_size_that_the_rate_is_given_for():
    """Of 5 images, a batch of 2 leaves one over in each epoch."""
    images, targets = torch.rand(5, 1, 32, 32), torch.zeros(5, 32, 32, dtype=torch.uint8)
    task = training.volume_task(InMemory(TensorDataset(images, targets)))
    batches = training.prepared_batches(task, 2, CPU)
    assert [len(next(batches)[0]) for _ in range(5)] == [2] * 5


def test_scoring_runs_with_medpys_figures(measured):
    result = measured(scoring)
    assert result["good"]["identical"]
    assert result["stray"]["identical"]


# --- the plan for a GPU ------------------------------------------------------------------------------


def test_gpu_plan_runs_every_kind_of_part(measured):
    steps, loop = measured(gpu, "--device", "cpu")["parts"].values()
    assert [row["size"] for row in steps["rows"]] == [32, 64]
    assert steps["exponents"]
    assert loop["images_per_s"] > 0


def test_every_part_of_the_plan_has_a_name_of_its_own_and_variants_that_exist():
    assert len({part.name for part in gpu.PLAN}) == len(gpu.PLAN)
    for part in gpu.PLAN:
        assert part.work == gpu.LOOP or [variants.parse_variant(v) for v in gpu.VARIANTS[part.variants].split(",")]


def test_only_the_parts_that_are_asked_for_run(monkeypatch, tmp_path):
    """A part's whole name, which holds commas, asks for that part alone."""
    monkeypatch.setattr(gpu, "run", lambda *_: {})
    path = tmp_path / "parts.json"
    gpu.main(["--device", "cpu", "--only", "loop, batch 128", "peers compiled", "--output", str(path)])
    parts = list(json.loads(path.read_text(encoding="utf-8"))["parts"])
    assert parts == [
        "loop, batch 128, 224",
        "infer, batch 64, 224, peers compiled",
        "train, batch 64, 224, peers compiled",
    ]


def test_a_part_without_time_or_luck_leaves_the_others_theirs(monkeypatch):
    def endless(*_):
        while True:
            pass

    def unlucky(*_):
        raise ValueError("no luck")

    part = gpu.Part(0.05, "infer", 1, "ours")
    results = []
    for behaviour in (endless, unlucky, lambda *_: {"figure": 1}):
        monkeypatch.setattr(gpu, "measure", behaviour)
        results.append(gpu.run(part, CPU, 1, left=99))
    assert "OutOfTime" in results[0]["error"]
    assert results[1]["error"] == "ValueError: no luck"
    assert results[2]["figure"] == 1
    assert "no time" in gpu.run(part, CPU, 1, left=1)["error"]


def test_runtimes_stand_beside_pytorch_with_their_differences():
    batch = runtimes.images(2, 32)
    assert batch.shape == (2, 3, 32, 32)
    first, second = runtimes.compare("toy", {"PyTorch": lambda x: x, "other": lambda x: x + x[:, :1] * 0.1}, batch, 2)
    assert (first["labels_changed"], first["largest_difference_of_logits"], first["ratio"]["median"]) == (0, 0, 1)
    assert second["largest_difference_of_logits"] == pytest.approx(0.1 * float(batch.abs().max()))
    assert (second["runtime"], second["faster_than"], second["pixels"]) == ("other", "PyTorch", 2048)
