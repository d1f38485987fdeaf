"""The benchmarks as commands: each runs at tiny sizes, and a part that fails leaves the others their time."""

import json
import warnings
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from benchmarks import breakdown, gpu, measure, scoring, speed, station, training, variants
from benchmarks.variants import NETWORKS, PEERS

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
        raise ImportError("No module named 'smp'")

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
    assert all(row["decode_images_per_s"] > 0 and 0 < row["share_of_update"] < 1 for row in result["input"])
    assert training.IMAGE_STEPS == 663_300
    minutes = training.IMAGE_STEPS / result["loop"]["images_per_s"] / 60
    assert result["loop"]["whole_training_minutes_extrapolated"] == pytest.approx(minutes)


def test_timed_batches_have_the_size_that_the_rate_is_given_for(monkeypatch):
    sizes = set()

    def prepare(images, *_):
        sizes.add(len(images))
        return images

    monkeypatch.setattr(training, "prepare", prepare)
    training.measure_input("pictures", CPU, batch=4, size=32, images=2, compiled=False, repeats=1)
    assert sizes == {4}


def test_scoring_runs_with_medpys_figures(measured):
    result = measured(scoring)
    assert result["good"]["identical"]
    assert result["stray"]["identical"]


def test_breakdown_runs(measured):
    train, infer = measured(breakdown, "--device", "cpu")["rows"]
    assert train["calls"]["optimizer"] >= 1
    assert "optimizer" not in infer["calls"]
    assert infer["parts_ms"]["matrix products"] > 0


def test_breakdown_sorts_operations_and_leaves_none_out():
    image, kernel = torch.rand(1, 4, 6, 6, requires_grad=True), torch.rand(4, 1, 3, 3, requires_grad=True)
    dense = torch.rand(2, 4, 3, 3, requires_grad=True)
    with breakdown.Stopwatch(CPU) as watch:
        y = F.conv2d(F.conv2d(image, kernel, groups=4), dense)
        y = F.layer_norm(y.flatten(2) @ torch.rand(4, 3), (3,)).clone()
        y.sum().backward()
    calls = dict(watch.calls)
    assert calls["depthwise convolutions"] == calls["dense convolutions"] == 2  # forward and backward
    assert calls["matrix products"] == 2
    assert calls["norms"] == 2
    assert calls["copies and gathers"] >= 1
    assert all(seconds > 0 for seconds in watch.seconds.values())


# --- the plan for a GPU ------------------------------------------------------------------------------


def test_gpu_plan_runs_every_kind_of_part(measured):
    steps, loop = measured(gpu, "--device", "cpu")["parts"].values()
    assert [row["size"] for row in steps["rows"]] == [32, 64]
    assert steps["exponents"]
    assert loop["images_per_s"] > 0


def test_every_part_of_the_plan_has_a_name_of_its_own_and_variants_that_exist():
    assert len({part.name for part in gpu.PLAN}) == len(gpu.PLAN)
    for part in gpu.PLAN:
        assert part.work == gpu.LOOP or variants.parse_variants(gpu.VARIANTS[part.variants])


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


@pytest.mark.parametrize("name", PEERS)
def test_peers_segment(name):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of packages that are not ours
        try:
            logits = variants.NETWORKS[name](64, "causal").eval()(torch.rand(1, 3, 64, 64))
        except ImportError as error:
            pytest.skip(f"not installed: {error.name}")
    assert logits.shape == (1, 9, 64, 64)
