"""What a model costs before it is run: its parameters, and its multiply-accumulates for one photo at one scale.

Nothing is computed: tensors without memory go through the networks and their products are counted. The parts: trunk;
mask: encodings of all windows, and DeepMask's masks of the chosen proposals; score of all windows; refinement:
horizontal nets over the photo and masks of the proposals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from sharpmask.networks.layers import count_parameters
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.windows import rescaled_grid

T = TypeVar("T")

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
        features, trunk = _counted(lambda: deepmask.features(image))
        _, mask = _counted(lambda: deepmask.encoder(features[-1]))
        dense, windows = _counted(lambda: deepmask.dense_from_features(features))
        skips, horizontal = _counted(lambda: network.skips(features))
        _, decoding = _counted(lambda: network.decode(dense._replace(skips=skips), *chosen))
    found = {"trunk": trunk, "mask": mask, "score": windows - mask, "refinement": horizontal}
    found["refinement" if isinstance(network, SharpMask) else "mask"] += decoding
    return Cost(count_parameters(network), found)


def _counted(function: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and the billions of multiply-accumulates of convolutions and matrix products that it makes."""
    with FlopCounterMode(display=False) as counter:
        result = function()
    return result, counter.get_total_flops() / 2e9
