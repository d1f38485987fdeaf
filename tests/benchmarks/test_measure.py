"""The benchmarks: the figures are what they say, every command runs."""

import dataclasses
import json
import subprocess
import sys
import warnings
from typing import ClassVar
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from benchmarks import (
    breakdown,
    gpu,
    gpu_plan,
    input_pipeline,
    measure,
    memory,
    peers,
    recipe,
    remote,
    side_length,
    speed,
    station,
    tables,
    variants,
)
from benchmarks.machine import ROOT
from benchmarks.operations import count_operations, of_part
from benchmarks.variants import NETWORKS, PEERS, parse_variant

CPU = torch.device("cpu")


def quick(builder, *arguments):
    """A network without its slow initial weights, for what looks at no figure of them."""
    with mock.patch.object(torch.nn.init, "trunc_normal_"):
        return builder(*arguments)


@pytest.fixture
def tiny(monkeypatch):
    """Networks are built quickly, and a kind of work is only done as often as it must be."""
    builders = {name: (lambda *given, build=build: quick(build, *given)) for name, build in NETWORKS.items()}
    monkeypatch.setattr("benchmarks.variants.NETWORKS", builders)
    monkeypatch.setattr(station, "WARM_UP", 1)
    monkeypatch.setattr(measure, "ENOUGH", 0)


def written(path):
    return json.loads(path.read_text(encoding="utf-8"))


# --- what is measured, and how ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("ours", "ours-fp32"),
        ("ours-compiled-bf16", "ours-bf16-compiled"),
        ("plain-noncausal-kept", "plain-fp32-noncausal-kept"),
        ("unet_resnet34-fp16-graphs", "unet_resnet34-fp16-graphs"),
    ],
)
def test_variants_are_words(word, name):
    assert parse_variant(word).name == name
    assert parse_variant(name) == parse_variant(word)


@pytest.mark.parametrize("word", ["theirs-fp32", "ours-fp8", "ours-fp32-eager-"])
def test_a_word_that_is_no_variant_is_refused(word):
    with pytest.raises(ValueError, match="expected"):
        parse_variant(word)


def test_calls_take_turns_and_short_ones_are_timed_several_at_once():
    seen = []

    def call(name, seconds):
        return lambda count: seen.append((name, count)) or seconds

    times = measure.in_turns({"slow": call("slow", 1.0), "fast": call("fast", 0.06)}, 3)
    assert seen == [("slow", 1), ("fast", 1), *[("slow", 1), ("fast", 4)] * 3]
    assert times == {"slow": [1.0] * 3, "fast": [0.06] * 3}


def test_ratio_is_taken_round_by_round():
    """A machine that is three times slower in one round changes both figures of that round, and no ratio."""
    assert measure.ratio([2.0, 6.0, 2.0], [1.0, 3.0, 1.0]) == {"median": 2.0, "min": 2.0, "max": 2.0, "repeats": 3}


class Clockwork:
    """A station whose steps take 2 s (plain) or 0.5 s."""

    memory: ClassVar = {"peak": 7, "network": 3}

    def __init__(self, variant, work, device, batch, size):
        if variant.precision == "fp16":
            raise torch.OutOfMemoryError("all is full\nmore")
        self.time = 2.0 if variant.network == "plain" else 0.5

    def seconds(self, count):
        return self.time

    def close(self):
        pass


@pytest.mark.parametrize(("work", "passes"), [("train", 3), ("infer", 1)])
def test_figures_of_known_times(monkeypatch, work, passes):
    """4 images of 100 operations, on a machine that multiplies 10 x 10 matrices in 10 s: 200 operations a second."""
    monkeypatch.setattr(measure, "Station", Clockwork)
    monkeypatch.setattr(measure, "matrix_product", lambda *_: lambda count: 10.0)
    monkeypatch.setattr(measure, "count_operations", lambda *_: (5, {"total": 100}))
    variants = [parse_variant(word) for word in ("ours-fp16", "plain", "ours-bf16")]
    full, plain, ours = measure.compare(variants, work, CPU, 4, 64, 3, 10, own_process=False)
    assert full["error"] == "OutOfMemoryError: all is full"
    assert plain["images_per_s"] == 2
    assert ours["images_per_s"] == 8
    assert ours["faster_than"] == plain["variant"] == "plain-fp32"
    assert (plain["ratio"]["median"], ours["ratio"]["median"]) == (1, 4)
    assert ours["matrix_flop_per_s"] == 200
    assert ours["fraction_of_matrix_rate"] == pytest.approx(passes * 400 / 0.5 / 200)
    assert ours["memory"]["peak"] == 7
    assert "all is full" in tables.lines([full, plain, ours])[1]


def test_operations_of_a_known_network(tiny):
    parameters, modules = count_operations(parse_variant("ours"), CPU, 32)
    assert parameters == 23_438_334
    assert modules["HeteroMedSeg.stem.0"] == 2 * 16 * 16 * 48 * 27
    assert of_part(modules, "stem") == 2 * 16 * 16 * 48 * 27 + 2 * 8 * 8 * 96 * 48 * 9
    assert sum(of_part(modules, part) for part in side_length.PARTS) == modules["total"]


def test_exponents_of_known_growth():
    rows = [{"side": s, "seconds": {"median": s**2}, "bytes": 7 * s**3, "flop": {"total": s**4}} for s in (2, 4, 8)]
    fitted = side_length.exponents(rows)
    assert fitted["time"] == pytest.approx({"all": 2, "largest": 2})
    assert fitted["memory"]["all"] == pytest.approx(3)
    assert fitted["operations, total"]["largest"] == pytest.approx(4)


@pytest.mark.skipif(not memory.STATUS.exists(), reason="other systems count no peak that can be restarted")
def test_peak_memory_sees_what_is_freed_again():
    """In a process of its own: here the allocator may reuse memory that other tests have freed."""
    code = """
import numpy as np
from benchmarks import memory
memory.restart_peak()
before = memory.resident()
np.ones(64 << 20, np.uint8)
assert memory.peak() - before > 60 << 20
memory.restart_peak()
assert memory.peak() - before < 60 << 20
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


# --- networks that cannot run, and parts that fail ---------------------------------------------------


def test_a_missing_package_costs_only_its_own_row(tiny, monkeypatch, capsys, tmp_path):
    def missing(*_):
        raise ImportError("No module named 'monai'")

    monkeypatch.setitem(variants.NETWORKS, "swin_unetr", missing)
    out = tmp_path / "peers.json"
    peers.main(["--smoke", "--device", "cpu", "--work", "infer", "--networks", "ours,swin_unetr", "--output", str(out)])
    ours, swin = written(out)["rows"]
    assert ours["images_per_s"] > 0
    assert "monai" in swin["error"]
    assert "swin_unetr" in capsys.readouterr().out


def test_a_failing_child_is_an_error_with_its_name():
    unknown = dataclasses.replace(parse_variant("ours-bf16"), network="nothing")
    with pytest.raises(RuntimeError, match="nothing-bf16: its process ended with code 1"):
        remote.Remote(unknown, "infer", CPU, 1, 32)


def test_a_part_without_time_or_luck_leaves_the_others_theirs():
    def slow(*_, **__):
        while True:
            pass

    def broken(*_, **__):
        raise ValueError("no luck")

    with mock.patch.dict(gpu.KINDS, {"slow": slow, "broken": broken, "good": lambda *_: {"figure": 1}}):
        results = [gpu.run(gpu_plan.Part(k, k, 0.05), CPU, True, 99) for k in ("slow", "broken", "good")]
        late = gpu.run(gpu_plan.Part("good", "good", 9), CPU, True, 1)
    assert "OutOfTime" in results[0]["error"]
    assert results[1]["error"] == "ValueError: no luck"
    assert results[2]["figure"] == 1
    assert "no time" in late["error"]


# --- the commands ------------------------------------------------------------------------------------


def test_speed_runs_in_a_process_of_its_own(tmp_path, capsys):
    out = tmp_path / "speed.json"
    command = ["--smoke", "--device", "cpu", "--work", "train", "--variants", "ours-fp32-allocator"]
    speed.main([*command, "--output", str(out)])
    (row,) = written(out)["rows"]
    assert row["variant"] == "ours-fp32-allocator"
    assert row["memory"]["peak"] >= row["memory"]["network"] > row["memory"]["start"] > 0
    assert row["fraction_of_matrix_rate"] > 0  # a time: no bound above
    assert row["ratio"]["median"] == 1
    assert "ours-fp32-allocator" in capsys.readouterr().out


def test_input_pipeline_runs(tiny, tmp_path):
    out = tmp_path / "input.json"
    input_pipeline.main(["--smoke", "--device", "cpu", "--output", str(out)])
    rows = written(out)["rows"]
    assert [row["input"] for row in rows] == ["slices", "pictures"]
    assert all(row["decode_images_per_s"] > 0 and row["share_of_update"] > 0 for row in rows)


def test_gpu_script_runs_every_kind_of_part(tiny, tmp_path):
    out = tmp_path / "gpu.json"
    gpu.main(["--smoke", "--device", "cpu", "--output", str(out)])
    parts = written(out)["parts"]
    assert {part["kind"] for part in parts.values()} == set(gpu.KINDS)
    assert not [part["error"] for part in parts.values() if "error" in part]
    training = next(part for part in parts.values() if part["kind"] == "recipe")
    minutes = recipe.IMAGE_STEPS / training["images_per_s"] / 60
    assert recipe.IMAGE_STEPS == 663_300
    assert training["whole_training_minutes_extrapolated"] == pytest.approx(minutes)


@pytest.mark.parametrize("name", PEERS)
def test_peers_segment(name):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of packages that are not ours
        try:
            logits = NETWORKS[name](9, 64, "causal").eval()(torch.rand(1, 3, 64, 64))
        except ImportError as error:
            pytest.skip(f"not installed: {error.name}")
    assert logits.shape == (1, 9, 64, 64)


def test_breakdown_sorts_operations_and_leaves_none_out():
    image, kernel = torch.rand(1, 4, 6, 6, requires_grad=True), torch.rand(4, 1, 3, 3, requires_grad=True)
    dense = torch.rand(2, 4, 3, 3, requires_grad=True)
    with breakdown.Stopwatch(torch.device("cpu")) as watch:
        y = F.conv2d(F.conv2d(image, kernel, groups=4), dense)
        y = F.layer_norm(y.flatten(2) @ torch.rand(4, 3), (3,)).clone()
        y.sum().backward()
    calls = dict(watch.calls)
    assert calls["depthwise convolutions"] == calls["dense convolutions"] == 2  # forward and backward
    assert calls["matrix products"] == 2
    assert calls["norms"] == 2
    assert calls["copies and gathers"] >= 1
    assert all(seconds > 0 for seconds in watch.seconds.values())
    assert set(breakdown.KERNELS) <= {*calls, "attention"}, "the names are those of the parts"
