"""The stages of the road from a file to masks: their order, their clock, and the operations that each must do."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.clock import Clock
from sharpmask.proposals.pyramid import iterate_tiles

# "dense" stands for trunk, score and horizontal where a runtime does them in one piece.
STAGES = (
    "decode",
    "pyramid",
    "trunk",
    "score",
    "horizontal",
    "dense",
    "top-N",
    "refinement",
    "paste + RLE",
    "result",
)
_DENSE = ("trunk", "score", "horizontal")


@contextmanager
def split_dense(network: Any, clock: Clock) -> Iterator[Callable[[dict[str, float]], dict[str, float]]]:
    """Let the clock tell trunk, score and horizontal nets apart, where `network` is made of PyTorch modules.

    Yields a function that gives the names of STAGES to the clock's seconds.
    """
    deepmask = getattr(network, "deepmask", None)
    if deepmask is None:
        yield dict
        return
    handles = [
        module.register_forward_hook(lambda *_, stage=stage: clock.lap(stage))
        for stage, module in (("trunk", deepmask.trunk), ("score", deepmask.score_head))
    ]
    # What is left of the dense run after the score are the horizontal nets.
    rest = "score" if network.spec.refinement is None else "horizontal"

    def named(seconds: dict[str, float]) -> dict[str, float]:
        found: Counter[str] = Counter()
        for stage, value in seconds.items():
            found[rest if stage == "dense" else stage] += value  # type: ignore[assignment]
        return dict(found)

    try:
        yield named
    finally:
        for handle in handles:
            handle.remove()


def stage_flops(
    spec: ModelSpec,
    image_size: tuple[int, int],
    scales: Sequence[float],
    *,
    windows: int,
    border: int = 0,
    tile_pixels: int,
) -> dict[str, float]:
    """Operations (two for each multiply-add) of the convolutions and matrix products by stage, for one photo.

    Counted on tensors without memory, padding and tiles included.

    Args:
        image_size: (H, W).
        windows: whose masks are made.
        border, tile_pixels: as for `Proposer`.
    """
    pixels = np.zeros((*image_size, 3), np.uint8)
    tiles = iterate_tiles(
        pixels,
        scales,
        patch_size=spec.patch_size,
        stride=spec.stride,
        device=torch.device("cpu"),
        tile_pixels=tile_pixels,
        border=border,
    )
    shapes = Counter(tuple(tile.images.shape) for tile in tiles)
    total = dict.fromkeys((*_DENSE, "refinement"), 0.0)
    with torch.device("meta"), torch.inference_mode():
        network = build_network(spec).eval()
        deepmask = network.deepmask
        for shape, count in shapes.items():
            images = torch.empty(shape)
            features = deepmask.features(images)
            total["trunk"] += count * _flops(deepmask.features, images)
            total["score"] += count * _flops(deepmask.dense_from_features, features)
            if isinstance(network, SharpMask):
                total["horizontal"] += count * _flops(network.refinement.skips, features)
        dense = network.dense(torch.empty(1, 3, 2 * spec.patch_size, 2 * spec.patch_size))
        places = [torch.empty(windows, dtype=torch.int64) for _ in range(3)]
        total["refinement"] = _flops(network.decode, dense, *places)
    return total


def dense_total(by_stage: dict[str, float]) -> dict[str, float]:
    """The same with trunk, score and horizontal taken together."""
    rest = {stage: value for stage, value in by_stage.items() if stage not in _DENSE}
    return {"dense": sum(by_stage.get(stage, 0.0) for stage in _DENSE), **rest}


def _flops(function: Callable[..., object], *arguments: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        function(*arguments)
    return float(counter.get_total_flops())
