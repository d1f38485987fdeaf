"""Measure speed, training loop and memory on a GPU in under ten minutes.

    python -m benchmarks.gpu [--budget 540] [--only peers forms] [--output results/gpu.json]

Parts in the order of their worth, each with a limit of its own. A part that runs out of time, memory or luck leaves an
error, and the next one starts. The result file is written again after every part, so that a run cut short leaves all
that it had measured.
"""

import contextlib
import signal
import sys
import traceback
from collections.abc import Iterator
from time import monotonic
from typing import Any, NamedTuple

import torch

from benchmarks import speed, training
from benchmarks.machine import new_parser, write_json
from benchmarks.station import INFER, TRAIN
from models.ssd import mamba_kernel
from utils.device import choose_device, describe_device

LEAST = 10.0  # seconds that must be left for a part to start
LOOP = "loop"  # the work of `benchmarks.training.run_loop`
FORMS = "ours-bf16{0}-products,ours-bf16{0}-noncausal,ours-bf16{0}-bidirectional"
VARIANTS = {
    "ours": "ours-bf16",
    "eager": "plain-fp32,ours-fp32,ours-bf16",
    "compiled": "plain-fp32,ours-bf16,ours-bf16-compiled",
    "graphs": "ours-bf16,ours-bf16-compiled,ours-bf16-graphs",
    "forms": FORMS.format("") + ",ours-bf16",  # the last with mamba_ssm's kernel, where that is installed
    "forms compiled": FORMS.format("-compiled"),
    "peers": speed.with_peers("bf16"),
    "peers compiled": speed.with_peers("bf16-compiled"),
}
SIDES = (224, 320, 416, 512, 640, 768, 896, 1024)


class Part(NamedTuple):
    limit: float  # seconds
    work: str
    batch: int
    variants: str = ""  # a key of VARIANTS
    sides: tuple[int, ...] = (224,)

    @property
    def name(self) -> str:
        sides = ", ".join(map(str, dict.fromkeys((self.sides[0], self.sides[-1]))))
        return f"{self.work}, batch {self.batch}, {sides}" + (f", {self.variants}" if self.variants else "")


PLAN = (
    Part(40, TRAIN, 24, "eager"),
    Part(40, INFER, 128, "eager"),
    Part(150, TRAIN, 128, "compiled"),
    Part(250, LOOP, 24),
    Part(90, INFER, 128, "compiled"),
    Part(90, TRAIN, 64, "peers"),
    Part(60, INFER, 64, "peers"),
    Part(40, TRAIN, 64, "forms"),
    Part(40, INFER, 64, "forms"),
    Part(60, INFER, 4, "ours", SIDES),
    Part(60, TRAIN, 4, "ours", SIDES),
    *(Part(40, work, 64, "eager") for work in (TRAIN, INFER)),
    *(Part(40, work, 256, "ours") for work in (TRAIN, INFER)),
    *(Part(40, work, 16, "eager", (size,)) for size in (256, 512) for work in (TRAIN, INFER)),
    Part(90, INFER, 1, "graphs"),
    Part(150, TRAIN, 24, "graphs"),
    Part(250, LOOP, 128),
    Part(200, TRAIN, 64, "forms compiled"),
    Part(300, INFER, 64, "peers compiled"),
    Part(500, TRAIN, 64, "peers compiled"),
)


class OutOfTime(BaseException):
    """Not an Exception, so that no library takes it for one of its own on the way up."""


def main(argv: list[str]) -> None:
    parser = new_parser(__doc__, "gpu.json")
    parser.set_defaults(repeats=5)
    parser.add_argument("--budget", type=float, default=540, help="seconds for everything")
    parser.add_argument("--only", nargs="+", default=[""], help="parts whose name holds one of these texts")
    args = parser.parse_args(argv)
    began = monotonic()
    device = choose_device(args.device)
    parts = [part for part in PLAN if any(text in part.name for text in args.only)]
    if args.smoke:
        parts, args.repeats = [Part(300, INFER, 1, "ours", (32, 64)), Part(300, LOOP, 2, "", (32,))], 1
    settings = {"tf32": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.version()}
    settings["mamba_ssm"] = mamba_kernel() is not None
    results: dict[str, Any] = {"device": describe_device(device), "settings": settings, "parts": {}}
    for number, part in enumerate(parts, 1):
        spent = monotonic() - began
        print(f"[{spent:4.0f} s] {number}/{len(parts)} {part.name}", flush=True)
        results["parts"][part.name] = run(part, device, args.repeats, args.budget - spent, args.smoke)
        results["seconds"] = monotonic() - began
        write_json(args.output, results)
    print(f"[{monotonic() - began:4.0f} s] written: {args.output}")


def run(part: Part, device: torch.device, repeats: int, left: float, smoke: bool = False) -> dict[str, Any]:
    """The part's result, or its "error"; seconds it took."""
    if left < LEAST:
        print("  left out: no time left")
        return {"error": "left out: no time left"}
    result: dict[str, Any] = {}
    began = monotonic()
    try:
        with limit(min(part.limit, left)):
            result = measure(part, device, repeats, smoke)
    except (Exception, OutOfTime) as error:  # whatever it is: the other parts are still worth their time
        result["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc(limit=0 if isinstance(error, OutOfTime) else None)
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return result | {"part_seconds": monotonic() - began}


def measure(part: Part, device: torch.device, repeats: int, smoke: bool) -> dict[str, Any]:
    if part.work == LOOP:
        slices, updates, compiled = (3, 1, False) if smoke else (training.SLICES, 200, True)
        return training.run_loop(device, part.batch, updates, compiled, part.sides[0], slices)
    rows = []
    for side in part.sides:
        rows += speed.compare(VARIANTS[part.variants], part.work, device, part.batch, side, repeats)
    speed.print_rows(rows)
    return {"rows": rows, "exponents": speed.exponents(rows)}


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


if __name__ == "__main__":
    main(sys.argv[1:])
