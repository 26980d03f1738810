"""The network behind the server: settings and an image in, proposals out, given up when nobody waits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sharpmask.proposals.proposer import Proposer, pick_device
from sharpmask.proposals.pyramid import SCALE_LIMITS, scale_exponents
from sharpmask.proposals.result import Proposals
from sharpmask.web.jobs import Stop, Stopped
from sharpmask.web.schemas import ProposalSettings

# What the server needs of a model; tests have simpler ones.
Propose = Callable[[np.ndarray, ProposalSettings, Stop], Proposals]


def make_propose(network: Any, device: str | None = None) -> Propose:
    """A function that searches an image (H,W,3) uint8 with `network`, which may be prepared for a runtime.

    Raises:
        ConfigError: the device is not there.
    """
    chosen = pick_device(device)
    if isinstance(network, torch.nn.Module):
        network = network.to(chosen).eval()

    def propose(pixels: np.ndarray, settings: ProposalSettings, stop: Stop) -> Proposals:
        height, width = pixels.shape[:2]
        proposer = Proposer(
            _Stoppable(network, stop),
            scales=fitted_scales(max(height, width), settings, network.spec.patch_size),
            top=settings.top,
            threshold=settings.threshold,
            ranking=settings.ranking,
            nms=settings.nms if settings.nms < 1 else None,
            min_score=settings.min_score,
            max_pixels=height * width,  # it was checked before
        )
        return proposer.propose(pixels)

    return propose


def fitted_scales(longer_side: int, settings: ProposalSettings, patch_size: int) -> tuple[float, ...]:
    """The exponents of the pyramid for an image of this size: moved down for one that is larger than `settings.fit`."""
    scales = scale_exponents(settings.zoom, patch_size=patch_size)
    if not 0 < settings.fit < longer_side:
        return scales
    shift = math.log2(settings.fit / longer_side)
    return tuple(sorted({max(scale + shift, SCALE_LIMITS[0]) for scale in scales}))


class _Stoppable:
    """A network that asks before each piece of work whether anybody still waits for it."""

    def __init__(self, network: Any, stop: Stop) -> None:
        self._network, self._stop = network, stop

    def __getattr__(self, name: str) -> Any:  # what else there is: spec, and crop where the network has it
        return getattr(self._network, name)

    @property
    def device(self) -> torch.device:
        if isinstance(self._network, torch.nn.Module):
            return next(self._network.parameters()).device
        return self._network.device

    def dense(self, *args: Any) -> Any:
        self._check()
        return self._network.dense(*args)

    def decode(self, *args: Any) -> Any:
        self._check()
        return self._network.decode(*args)

    def decode_crops(self, *args: Any) -> Any:
        self._check()
        return self._network.decode_crops(*args)

    def _check(self) -> None:
        if self._stop():
            raise Stopped
