"""What users would pick instead: speed, memory, parameters and operations of other networks beside HeteroMedSeg's.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.peers [--device auto] [--settings bf16,bf16-compiled] [--batch 8] [--size 224] [--repeats 7]

U-Nets with a ResNet-34 and an EfficientNet-B4 encoder and a SegFormer of B2's size (segmentation_models_pytorch),
nnU-Net's plain and residual 2-D U-Nets as it plans them for this size, without deep supervision
(dynamic_network_architectures), and SwinUNETR with 48 features in 2-D (MONAI). All start from random weights, see the
same images and train with the same loss and optimizer; the peers run in channels-last format, which suits
convolutions best. In the column `times`, HeteroMedSeg is 1: above it a peer is faster. A peer whose package is not
installed gets a line that says so.
"""

import argparse
import sys
from typing import Any

from benchmarks.machine import write_json
from benchmarks.measure import Row, compare
from benchmarks.operations import TOTAL, count_operations
from benchmarks.speed import add_options, matrix_side, settings
from benchmarks.tables import lines
from benchmarks.variants import PEERS, parse_variant
from utils.device import choose_device, describe_device


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "peers.json")
    parser.add_argument("--settings", default="bf16,bf16-compiled", help="precision and compiler, with commas")
    parser.add_argument("--networks", default=",".join(("ours", *PEERS)), help="with commas; the first is 1 in `times`")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    networks = args.networks.split(",")
    given = ["fp32"] if args.smoke else args.settings.split(",")
    results: dict[str, Any] = {"device": describe_device(device), "networks": {}, "rows": []}
    header = True
    for size in dict.fromkeys(size for _, _, size in settings(args)):
        results["networks"][size] = list_networks(networks, device, size)
    for work, batch, size in settings(args):
        for setting in given:
            variants = [parse_variant(f"{name}-{setting}") for name in networks]
            repeats, side = (1, 256) if args.smoke else (args.repeats, matrix_side(device))
            own_process = device.type == "cpu" and not args.smoke
            rows = compare(variants, work, device, batch, size, repeats, side, own_process)
            print("\n".join(lines(rows, header)), flush=True)
            header = False
            results["rows"] += rows
            write_json(args.output, results)
    print(f"written: {args.output}")


def list_networks(networks: list[str], device: Any, size: int) -> list[Row]:
    """Parameters and operations of each, printed; an "error" for those that cannot be built."""
    rows = []
    for name in networks:
        try:
            parameters, modules = count_operations(parse_variant(name), device, size)
        except ImportError as error:
            rows.append({"network": name, "error": str(error)})
            print(f"{name:<24} left out: {error} (pip install -r benchmarks/requirements.txt)")
            continue
        flop = modules[TOTAL]
        rows.append({"network": name, "parameters": parameters, "flop_per_image": flop})
        print(f"{name:<24}{parameters / 1e6:>8.2f} M parameters{flop / 1e9:>8.1f} GFLOP an image of {size} x {size}")
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
