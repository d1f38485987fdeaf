"""Everything that is to be known on a GPU, in one command of under ten minutes.

    python -m benchmarks.gpu [--device cuda] [--budget 540] [--only recipe,speed] [--output results/gpu.json]
    python -m benchmarks.gpu --smoke              # tiny sizes, on the CPU too: does it run?

Parts in the order of their worth, each with a limit of its own: what runs out of time, memory or luck is recorded as an
error and the next part starts; the result file is rewritten after every part, so that a run cut short leaves all it
had measured. Kinds of part: speed (a), recipe (the whole Synapse training extrapolated), forms (causal,
noncausal, bidirectional, with and without mamba_ssm), peers (b), sides (e).
"""

import argparse
import contextlib
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import torch

from benchmarks import peers, recipe, side_length
from benchmarks.gpu_plan import Part, plan
from benchmarks.machine import ROOT, write_json
from benchmarks.measure import compare
from benchmarks.speed import matrix_side
from benchmarks.tables import lines
from benchmarks.variants import PEERS, parse_variant, parse_variants
from models.ssd import mamba_kernel
from utils.device import choose_device, describe_device

LEAST = 10.0  # seconds that must be left for a part to start


class OutOfTime(BaseException):
    """Not an Exception, so that no library takes it for one of its own on the way up."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--budget", type=float, default=540, help="seconds for everything")
    parser.add_argument("--only", help="kinds of part, with commas")
    parser.add_argument("--output", default=ROOT / "results" / "gpu.json")
    parser.add_argument("--smoke", action="store_true", help="one tiny part of every kind: does it run?")
    args = parser.parse_args(argv)
    began = monotonic()
    device = choose_device(args.device)
    parts = [part for part in plan() if args.only is None or part.kind in args.only.split(",")]
    if args.smoke:
        parts = list({part.kind: part for part in reversed(parts)}.values())
    results = {"device": describe_device(device), "settings": describe_settings(), "parts": {}}
    for number, part in enumerate(parts, 1):
        left = args.budget - (monotonic() - began)
        print(f"[{monotonic() - began:4.0f} s] {number}/{len(parts)} {part.name}", flush=True)
        results["parts"][part.name] = run(part, device, args.smoke, left)
        results["seconds"] = monotonic() - began
        write_json(args.output, results)
    print(f"[{monotonic() - began:4.0f} s] written: {args.output}")


def run(part: Part, device: torch.device, smoke: bool, left: float) -> dict[str, Any]:
    """The part's result, or its "error"; seconds it took."""
    if left < LEAST:
        print("  left out: no time left")
        return {"kind": part.kind, "error": "left out: no time left"}
    result: dict[str, Any] = {"kind": part.kind}
    began = monotonic()
    try:
        with limit(min(part.limit, left)):
            result |= KINDS[part.kind](device, smoke, **part.given)
    except (Exception, OutOfTime) as error:  # whatever it is: the other parts are still worth their time
        result["error"] = f"{type(error).__name__}: {error}"
        print(f"  {result['error'].splitlines()[0]}", flush=True)
        if not isinstance(error, OutOfTime):
            traceback.print_exc()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return result | {"part_seconds": monotonic() - began}


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after `seconds`, even inside the compiler; a kernel is waited for."""

    def stop(*_: Any) -> None:
        raise OutOfTime(f"more than its {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def describe_settings() -> dict[str, Any]:
    return {
        "matrix products in TF32": torch.backends.cuda.matmul.allow_tf32,
        "convolutions in TF32": torch.backends.cudnn.allow_tf32,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "mamba_ssm": mamba_kernel() is not None,
    }


# --- kinds of part -------------------------------------------------------------------------------


def speed(device: torch.device, smoke: bool, variants: str, work: str, batch: int, size: int = 224) -> dict[str, Any]:
    chosen, repeats, side = parse_variants(variants), 5, matrix_side(device)
    if smoke:
        chosen, batch, size, repeats, side = chosen[:1], 2, 32, 1, 128
    rows = compare(chosen, work, device, batch, size, repeats, side, own_process=False)
    print("\n".join(lines(rows)), flush=True)
    return {"rows": rows}


def forms(device: torch.device, smoke: bool, work: str, batch: int, mode: str) -> dict[str, Any]:
    words = [f"ours-bf16-{mode}-causal-products", f"ours-bf16-{mode}-noncausal", f"ours-bf16-{mode}-bidirectional"]
    if mode == "eager" and mamba_kernel() is not None:
        words.append("ours-bf16-eager-causal")
    return speed(device, smoke, ",".join(words), work, batch)


def others(device: torch.device, smoke: bool, work: str, batch: int, setting: str) -> dict[str, Any]:
    names = ["ours"] if smoke else ["ours", *PEERS]
    networks = peers.list_networks(names, device, 32 if smoke else 224)
    return {"networks": networks} | speed(device, smoke, ",".join(f"{n}-{setting}" for n in names), work, batch)


def whole_training(device: torch.device, smoke: bool, batch: int, steps: int) -> dict[str, Any]:
    small = {"batch": 2, "steps": 1, "compiled": False, "side": 32, "slices": 3}
    full = {"batch": batch, "steps": steps, "compiled": True, "side": 224, "slices": recipe.SLICES}
    result = recipe.simulate(device, **(small if smoke else full))
    print(f"  {recipe.sentence(result)}", flush=True)
    return result


def sides(device: torch.device, smoke: bool, variant: str, work: str, batch: int) -> dict[str, Any]:
    lengths, repeats = ([32, 64], 1) if smoke else ([int(s) for s in side_length.SIDES.split(",")], 5)
    chosen = parse_variant(variant)
    rows = side_length.measure(chosen, work, device, 1 if smoke else batch, lengths, repeats, own_process=False)
    fitted = side_length.exponents(rows)
    print("\n".join(side_length.report(rows, fitted)), flush=True)
    return {"variant": variant, "work": work, "batch": batch, "rows": rows, "exponents": fitted}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "speed": speed,
    "recipe": whole_training,
    "forms": forms,
    "peers": others,
    "sides": sides,
}


if __name__ == "__main__":
    main(sys.argv[1:])
