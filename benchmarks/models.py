"""What every model of the table costs: parameters, and multiply-accumulates for one photo at one scale.

    python benchmarks/models.py [--size 480 640] [--proposals 1000] [MODEL ...]

Prints a Markdown table. Nothing is computed: tensors without memory go through the networks and their products are
counted. Multiply-accumulates are in billions and split into trunk; mask: encodings of all windows, and DeepMask's masks
of the chosen proposals; score of all windows; refinement: horizontal nets over the photo and masks of the proposals.
"""

import argparse
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from sharpmask.networks.layers import count_parameters
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.proposals.windows import rescaled_grid

PARTS = ("trunk", "mask", "score", "refinement")


def macs(function: Callable[[], object]) -> float:
    """Billions of multiply-accumulates of convolutions and matrix products that a call makes."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 2e9


@torch.inference_mode()
def cost(spec: ModelSpec, size: tuple[int, int], proposals: int) -> dict[str, float]:
    """Multiply-accumulates of each part for a photo of `size` (H, W), padded as the proposer does."""
    with torch.device("meta"):
        network = build_network(spec).eval()
        grid = rescaled_grid(size, 0, patch_size=spec.patch_size, stride=spec.stride)
        sides = (spec.stride * (cells - 1) + spec.patch_size for cells in grid.padded_cells)
        image = torch.empty(1, 3, *sides)
        chosen = [torch.empty(proposals, dtype=torch.int64) for _ in range(3)]
        deepmask = network.deepmask
        features = deepmask.features(image)
        dense = network.dense(image)
        found = {
            "trunk": macs(lambda: deepmask.features(image)),
            "mask": macs(lambda: deepmask.encoder(features[-1])),
            "refinement": 0.0,
        }
        found["score"] = macs(lambda: deepmask.dense_from_features(features)) - found["mask"]
        decoding = macs(lambda: network.decode(dense, *chosen))
        if isinstance(network, SharpMask):
            found["refinement"] = macs(lambda: network.refinement.skips(features)) + decoding
        else:
            found["mask"] += decoding
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of the table; all by default")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--proposals", type=int, default=1000, help="windows whose masks are decoded")
    args = parser.parse_args()
    unknown = [name for name in args.models if name not in SPECS]
    if unknown:
        parser.error(f"no model named {', '.join(unknown)}; there are: {', '.join(SPECS)}")
    print("| model | parameters, millions | " + " | ".join(PARTS) + " | total, billions |")
    print("|---|" + "---:|" * (len(PARTS) + 2))
    for name in args.models or SPECS:
        with torch.device("meta"):
            parameters = count_parameters(build_network(SPECS[name])) / 1e6
        found = cost(SPECS[name], tuple(args.size), args.proposals)
        numbers = " | ".join(f"{found[part]:.2f}" for part in PARTS)
        print(f"| {name} | {parameters:.2f} | {numbers} | {sum(found.values()):.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
