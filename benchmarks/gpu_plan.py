"""What `benchmarks.gpu` measures, in which order and for how long at most."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.station import INFER, TRAIN

EAGER = "plain-fp32,ours-fp32,ours-bf16"
COMPILED = "plain-fp32,ours-bf16,ours-bf16-compiled"
GRAPHS = "ours-bf16,ours-bf16-compiled,ours-bf16-graphs"
WORDS = {TRAIN: "training", INFER: "inference"}


@dataclass(frozen=True)
class Part:
    """One call of the function `benchmarks.gpu.KINDS[kind]` with `given`, given up after `limit` seconds."""

    name: str
    kind: str
    limit: float
    given: dict[str, Any] = field(default_factory=dict)


def plan() -> list[Part]:
    """All parts, the most telling first; the limits are generous, the budget is what holds."""
    return [
        speed(TRAIN, 24, EAGER, 40),
        speed(INFER, 128, EAGER, 40),
        speed(TRAIN, 128, COMPILED, 150),
        recipe(24),
        speed(INFER, 128, COMPILED, 90),
        peers(TRAIN, "bf16", 90),
        peers(INFER, "bf16", 60),
        forms(TRAIN, "eager", 40),
        forms(INFER, "eager", 40),
        sides(INFER),
        sides(TRAIN),
        *(speed(work, 64, EAGER, 40) for work in WORDS),
        *(speed(work, 256, "ours-bf16", 40) for work in WORDS),
        *(speed(work, 16, EAGER, 40, size) for size in (256, 512) for work in WORDS),
        speed(INFER, 1, GRAPHS, 90),
        speed(TRAIN, 24, GRAPHS, 150),
        recipe(128),
        forms(TRAIN, "compiled", 200),
        peers(INFER, "bf16-compiled", 300),
        peers(TRAIN, "bf16-compiled", 500),
    ]


def speed(work: str, batch: int, variants: str, limit: float, size: int = 224) -> Part:
    given = {"variants": variants, "work": work, "batch": batch, "size": size}
    return Part(f"speed: {WORDS[work]}, batch {batch}, {size} x {size}, {variants}", "speed", limit, given)


def recipe(batch: int) -> Part:
    """Compiles twice, for full batches and for the last of an epoch."""
    return Part(f"recipe: Synapse training, batch {batch}", "recipe", 250, {"batch": batch, "steps": 200})


def forms(work: str, mode: str, limit: float) -> Part:
    given = {"work": work, "batch": 64, "mode": mode}
    return Part(f"forms: {WORDS[work]}, batch 64, bf16 {mode}", "forms", limit, given)


def peers(work: str, setting: str, limit: float) -> Part:
    given = {"work": work, "batch": 64, "setting": setting}
    return Part(f"peers: {WORDS[work]}, batch 64, {setting}", "peers", limit, given)


def sides(work: str) -> Part:
    given = {"variant": "ours-bf16", "work": work, "batch": 4}
    return Part(f"sides: {WORDS[work]}, batch 4, 224 to 1024", "sides", 60, given)
