"""Where the time of a photo goes: trunk, mask, score, refinement, and the rest of what the proposer does.

The parts are those of `costs.py`. The proposer itself is run, with a network that reads the clock between its parts, so
that the sum is what a user waits for. Models that are to be compared take turns on every photo.
"""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharpmask.evaluation.costs import PARTS
from sharpmask.networks.deepmask import DeepMask, DenseOutput
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.proposer import Proposer, pick_device

# The rest: reading from memory, rescaling, choosing windows, pasting and encoding masks.
TIMES = (*PARTS, "rest", "total")


class TimedNetwork:
    """A network as the proposer takes it, which adds up the seconds of each part in `seconds`."""

    def __init__(self, network: DeepMask | SharpMask) -> None:
        self.network, self.spec = network, network.spec
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._decoding = "refinement" if isinstance(network, SharpMask) else "mask"

    @property
    def device(self) -> torch.device:
        """Where the network is, on which it must be put before."""
        return next(self.network.parameters()).device

    def dense(self, images: Tensor) -> DenseOutput:
        """As the network's own, part by part."""
        deepmask = self.network.deepmask
        features = self._timed("trunk", lambda: deepmask.features(images))
        reduced = self._timed("mask", lambda: deepmask.encoder.reduced(features[-1]))
        encodings = self._timed("mask", lambda: deepmask.encoder.encode_reduced(reduced))
        scores = self._timed("score", lambda: deepmask.scores(reduced, encodings))
        skips = self._timed("refinement", lambda: self.network.skips(features))
        return DenseOutput(scores, encodings, skips)

    def decode(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        return self._timed(self._decoding, lambda: self.network.decode(dense, batch_index, rows, cols))

    def _timed(self, part: str, function: Callable[[], Any]) -> Any:
        began = clock()
        result = function()
        self.seconds[part] += clock() - began
        return result


def clock() -> float:
    """Seconds, after a GPU has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return perf_counter()


def photo_times(network: DeepMask | SharpMask, pixels: np.ndarray, **options: Any) -> dict[str, float]:
    """Seconds of each of TIMES for one photo (H, W, 3) uint8; `options` are the proposer's."""
    timed = TimedNetwork(network.to(pick_device(options.get("device"))).eval())
    proposer = Proposer(timed, **options)
    began = clock()
    proposer.propose(pixels)
    total = clock() - began
    return {**timed.seconds, "rest": total - sum(timed.seconds.values()), "total": total}


def interleaved_times(
    calls: Mapping[str, Callable[[Any], dict[str, float]]], photos: Sequence[Any]
) -> dict[str, list[dict[str, float]]]:
    """What each method's call returns for each photo, name -> one record a photo.

    The methods take turns on every photo, so that what else the machine does hits all of them alike. Before the first
    photo each is called once in vain, and before every other one the first of them: PyTorch prepares its convolutions
    for each new size, and who comes first pays for all. Give photos several times to see how much the times vary.
    """
    first = next(iter(calls.values()))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for place, photo in enumerate(photos):
        for call in [first] if place else calls.values():
            call(photo)
        for name, call in calls.items():
            found[name].append(call(photo))
    return found
