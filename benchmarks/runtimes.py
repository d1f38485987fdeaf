"""Inference on the CPU by PyTorch (eager), ONNX Runtime and OpenVINO: times in paired rounds, labels compared.

    OMP_NUM_THREADS=2 python -m benchmarks.runtimes [--batch 1,8] [--size 224] [--checkpoint save_models/best_model.pth]

Ours, with the weights of --checkpoint if given, and a U-Net with a ResNet-34 (segmentation_models_pytorch), both
in float32. Both runtimes read the file that tools/export.py writes. The images are slices of a simulated CT. The column
`times` is how many times faster a runtime is than eager PyTorch, `labels` the share of pixels whose label differs.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import new_parser, numbers, print_table, write_json
from benchmarks.measure import in_turns, ratio, spread, timer
from benchmarks.variants import NETWORKS
from datasets.phantom.generate import draw_case
from models.build import load_network
from recipes import RECIPES
from tools.export import to_onnx
from utils.errors import UserError
from utils.inference.forward import labels_from_logits

CPU = torch.device("cpu")
WARM_UP = 3
HEADER = ("network", "batch", "runtime", "s/batch", "spread", "times", "logits", "labels")
Runtime = Callable[[Tensor], Tensor]


def main(argv: list[str]) -> None:
    parser = new_parser(__doc__, "runtimes_cpu.json", device=False)
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--batch", type=numbers, default=[1, 8], help="batch sizes with commas")
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument("--checkpoint", type=Path, help="weights of our network (default: fresh ones)")
    args = parser.parse_args(argv)
    if args.smoke:
        args.batch, args.size, args.repeats = [1, 2], 32, 1
    networks: dict[str, nn.Module] = {}
    results: dict[str, Any] = {"load_average_at_start": os.getloadavg()[0], "rows": []}
    for name in ("ours", "unet_resnet34"):
        try:
            networks[name] = NETWORKS[name](args.size, "causal")
        except UserError as error:
            print(error)
    if args.checkpoint:
        networks["ours"] = load_network(args.checkpoint, RECIPES).model
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks.items():
            path = Path(folder) / f"{name}.onnx"
            to_onnx(network.eval(), 3, (args.size, args.size)).save(path)
            runtimes = {"PyTorch": torch.inference_mode()(network)} | open_runtimes(path, results)
            for batch in args.batch:
                results["rows"] += compare(name, runtimes, images(batch, args.size), args.repeats)
    results["load_average_at_end"] = os.getloadavg()[0]
    print_rows(results["rows"])
    write_json(args.output, results)
    print(f"written: {args.output}")


def images(batch: int, size: int) -> Tensor:
    """Different slices of a simulated CT as the network sees them: (B, 3, size, size) in [-1, 1]."""
    volume = draw_case("phantom", (0,), size, max(8, batch)).image[:batch]
    return torch.from_numpy(2 * volume[:, None] - 1).repeat(1, 3, 1, 1).contiguous()


def open_runtimes(path: Path, results: dict[str, Any]) -> dict[str, Runtime]:
    """What runs the ONNX file with PyTorch's number of threads in float32; notes the versions in `results`."""
    import onnxruntime
    import openvino

    threads = torch.get_num_threads()
    results["versions"] = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return {
        "ONNX Runtime": lambda batch: torch.from_numpy(session.run(None, {"image": batch.numpy()})[0]),
        "OpenVINO": lambda batch: torch.from_numpy(compiled(batch.numpy())[0]),
    }


def compare(network: str, runtimes: dict[str, Runtime], batch: Tensor, repeats: int) -> list[dict[str, Any]]:
    """Time the runtimes in turns on one batch: one row each, with how far logits and labels are from PyTorch's."""
    outputs = {name: [run(batch) for _ in range(WARM_UP)][-1].clone() for name, run in runtimes.items()}
    times = in_turns({name: timer(lambda run=run: run(batch), CPU) for name, run in runtimes.items()}, repeats)
    first, *_ = runtimes
    rows = []
    for name, own in times.items():
        changed = labels_from_logits(outputs[name]) != labels_from_logits(outputs[first])
        row = {"network": network, "batch": len(batch), "size": batch.shape[-1], "runtime": name}
        row |= {"seconds": spread(own), "faster_than": first, "ratio": ratio(times[first], own)}
        row["largest_difference_of_logits"] = float((outputs[name] - outputs[first]).abs().max())
        row["labels_changed"], row["pixels"] = int(changed.sum()), changed.numel()
        rows.append(row)
    return rows


def print_rows(rows: list[dict[str, Any]]) -> None:
    table = []
    for row in rows:
        t = row["seconds"]
        cells = [row["network"], str(row["batch"]), row["runtime"], f"{t['median']:.3g}"]
        cells += [f"{(t['max'] - t['min']) / t['median']:.0%}", f"{row['ratio']['median']:.2f}"]
        cells += [f"{row['largest_difference_of_logits']:.1e}", f"{row['labels_changed'] / row['pixels']:.4%}"]
        table.append(cells)
    print_table(HEADER, table)


if __name__ == "__main__":
    main(sys.argv[1:])
