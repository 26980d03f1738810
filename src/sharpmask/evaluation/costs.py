"""What a model costs before it is run: its parameters, and its multiply-accumulates for one photo at one scale.

Nothing is computed: tensors without memory go through the networks and their products are counted. The parts: trunk;
mask: encodings of all windows, and DeepMask's masks of the chosen proposals; score of all windows; refinement:
horizontal nets over the photo and masks of the proposals.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from sharpmask.networks.layers import count_parameters
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.windows import rescaled_grid

PARTS = ("trunk", "mask", "score", "refinement")


@dataclass(frozen=True)
class Cost:
    """`parameters` counts weights, biases and frozen affine pairs; `macs` has billions for each of PARTS."""

    parameters: int
    macs: dict[str, float]

    @property
    def total(self) -> float:
        """Billions of multiply-accumulates."""
        return sum(self.macs.values())


@torch.inference_mode()
def model_cost(spec: ModelSpec, size: tuple[int, int] = (480, 640), proposals: int = 1000) -> Cost:
    """The cost of a photo of `size` (H, W) at its own scale, padded as the proposer does, with the masks of so many
    proposals.
    """
    with torch.device("meta"):
        network = build_network(spec).eval()
        grid = rescaled_grid(size, 0, patch_size=spec.patch_size, stride=spec.stride)
        image = torch.empty(1, 3, *(spec.stride * (cells - 1) + spec.patch_size for cells in grid.padded_cells))
        chosen = [torch.zeros(proposals, dtype=torch.int64) for _ in range(3)]
        deepmask = network.deepmask
        features = deepmask.features(image)
        dense = network.dense(image)
        found = {
            "trunk": _macs(lambda: deepmask.features(image)),
            "mask": _macs(lambda: deepmask.encoder(features[-1])),
            "score": 0.0,
            "refinement": 0.0,
        }
        found["score"] = _macs(lambda: deepmask.dense_from_features(features)) - found["mask"]
        decoding = _macs(lambda: network.decode(dense, *chosen))
        if isinstance(network, SharpMask):
            found["refinement"] = _macs(lambda: network.skips(features)) + decoding
        else:
            found["mask"] += decoding
    return Cost(count_parameters(network), found)


def _macs(function: Callable[[], object]) -> float:
    """Billions of multiply-accumulates of convolutions and matrix products that a call makes."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 2e9
