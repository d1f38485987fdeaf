"""Figures of known times: a clock that only the timed steps move."""

import pytest
import torch
from torch import nn

from benchmarks import measure, speed
from benchmarks.station import Remote, process_memory
from benchmarks.variants import NETWORKS, Variant, parse_variant

CPU = torch.device("cpu")


class Clock:
    """Stands still but for the steps made by `step`."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(measure, "perf_counter", lambda: self.now)

    def step(self, name, *seconds):
        """A timer of a step that takes the given seconds, one after another, the last of them ever after."""
        left = list(seconds)

        def run():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return measure.timer(run, CPU)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_timer_gives_the_seconds_of_one_step(clock):
    assert clock.step("a", 1.0, 2.0, 6.0)(3) == 3


def test_short_steps_are_timed_several_at_once_in_turns(clock):
    times = measure.in_turns({"slow": clock.step("slow", 1.0), "fast": clock.step("fast", 0.06)}, 3)
    assert clock.log == ["slow", "fast", *["slow", *["fast"] * 4] * 3]
    assert times == {"slow": pytest.approx([1.0] * 3), "fast": pytest.approx([0.06] * 3)}


def test_a_slow_spell_of_the_machine_changes_no_ratio(clock):
    """In the second of three rounds everything takes three times as long; the first call only counts steps."""
    base, other = clock.step("base", 2.0, 2.0, 6.0, 2.0), clock.step("other", 1.0, 1.0, 3.0, 1.0)
    times = measure.in_turns({"base": base, "other": other}, 3)
    assert times["base"] == [2.0, 6.0, 2.0]
    assert measure.ratio(times["base"], times["other"]) == {"median": 2.0, "min": 2.0, "max": 2.0, "repeats": 3}


@pytest.fixture
def stations(monkeypatch, clock):
    """Steps take 2 s (plain) or 0.5 s; one variant does not fit; a product of 10 x 10 matrices takes 10 s."""

    class Station:
        def __init__(self, variant, work, device, batch, size):
            if variant.activations == "recompute":
                raise torch.OutOfMemoryError("\nall is full\nmore")
            self.seconds = clock.step(variant.name, 2.0 if variant.network == "plain" else 0.5)
            self.memory = {"peak": 7 * size**3, "network": 3}

        def close(self):
            clock.log.append("closed")

    monkeypatch.setattr(speed, "open_station", Station)
    monkeypatch.setattr(speed, "matrix_side", lambda _: 10)
    monkeypatch.setattr(speed, "matrix_product", lambda *_: clock.step("product", 10.0))
    monkeypatch.setattr(speed, "count_operations", lambda _, __, size: (5, 100 * size**2))


@pytest.mark.parametrize(("work", "passes"), [("train", 3), ("infer", 1)])
def test_figures_of_known_times(stations, clock, capsys, work, passes):
    """4 images of 100 operations, on a machine that does 2 * 10^3 operations in 10 s: 200 a second."""
    full, plain, ours = speed.compare("ours-recompute,plain,ours-bf16", work, CPU, 4, 1, 3)
    assert full["error"] == "OutOfMemoryError: all is full"
    assert plain["images_per_s"] == 2
    assert ours["images_per_s"] == 8
    assert ours["faster_than"] == plain["variant"] == "plain-fp32"
    assert (plain["ratio"]["median"], ours["ratio"]["median"]) == (1, 4)
    assert ours["matrix_flop_per_s"] == 200
    assert ours["fraction_of_matrix_rate"] == pytest.approx(passes * 400 / 0.5 / 200)
    assert clock.log.count("closed") == 2
    speed.print_rows([full, plain, ours])
    assert "ours-fp32-recompute: OutOfMemoryError: all is full\n" in capsys.readouterr().out


def test_exponents_of_known_growth(stations):
    chosen = "ours-bf16,ours-recompute"
    rows = [row for side in (2, 4, 8) for row in speed.compare(chosen, "infer", CPU, 1, side, 1)]
    fitted = speed.exponents(rows)["infer ours-bf16, batch 1"]
    assert fitted == pytest.approx({"time": 0, "memory": 3, "operations": 2}, abs=1e-9)
    assert len(speed.exponents(rows)) == 1  # what could not run grows not at all
    assert speed.exponents(rows[:2]) == {}


def test_operations_of_a_known_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "convolution", lambda size, ssd: nn.Conv2d(3, 9, 3, padding=1))
    found = speed.count_operations(Variant("convolution"), CPU, 8)
    assert found == (9 * 27 + 9, 2 * 8 * 8 * 9 * 27)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("ours", "ours-fp32"),
        ("ours-compiled-bf16", "ours-bf16-compiled"),
        ("plain-noncausal-allocator", "plain-fp32-noncausal-allocator"),
        ("unet_resnet34-bf16-graphs", "unet_resnet34-bf16-graphs"),
    ],
)
def test_variants_are_words(word, name):
    assert parse_variant(word).name == name
    assert parse_variant(name) == parse_variant(word)


@pytest.mark.parametrize("word", ["theirs-fp32", "ours-fp8", "ours-fp32-eager-"])
def test_a_word_that_is_no_variant_is_refused(word):
    with pytest.raises(ValueError, match="expected"):
        parse_variant(word)


# --- processes of their own ------------------------------------------------------------------------


def test_a_process_counts_its_own_memory_and_ends_when_closed():
    remote = Remote(parse_variant("ours-fp32-allocator"), "infer", CPU, 1, 32)
    memory, seconds = remote.memory, remote.seconds(1)
    remote.close()
    assert seconds > 0
    with pytest.raises(RuntimeError, match="after shutdown"):
        remote.seconds(1)
    if process_memory("VmRSS"):  # other systems do not say
        assert memory["peak"] >= memory["network"] > memory["start"] > 0


def test_a_failing_child_raises_here_what_it_raised():
    with pytest.raises(RuntimeError, match="negative"):
        Remote(parse_variant("ours-bf16"), "infer", CPU, -1, 32)
