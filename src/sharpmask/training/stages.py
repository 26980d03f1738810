"""What differs between the two stages: which weights are trained, on which targets, with which loss.

A DeepMask is trained by stage 1 alone; every other network by both.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from sharpmask.networks.deepmask import DeepMask, PatchOutput
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.training.config import StageConfig
from sharpmask.training.distributed import World, sum_over_world
from sharpmask.training.losses import mask_loss_sum, score_loss_sum

Batch = Mapping[str, Tensor]


class Stage(Protocol):
    """One stage of training."""

    name: str
    mask_side: int
    config: StageConfig

    def forward(self, network: DeepMask | SharpMask, patches: Tensor) -> PatchOutput: ...
    def trained(self, network: DeepMask | SharpMask) -> Iterator[tuple[nn.Parameter, float]]: ...
    def result(self, network: DeepMask | SharpMask) -> DeepMask | SharpMask: ...


class DeepMaskStage:
    """Stage 1: trunk, encoder, mask and score heads; targets of twice the mask's side (112 x 112)."""

    name = "deepmask"

    def __init__(self, config: StageConfig, spec: ModelSpec) -> None:
        self.config = config
        self.mask_side = 2 * spec.mask_side

    def forward(self, network: DeepMask | SharpMask, patches: Tensor) -> PatchOutput:
        """Coarse masks and scores of patches."""
        return network.deepmask(patches)

    def trained(self, network: DeepMask | SharpMask) -> Iterator[tuple[nn.Parameter, float]]:
        """Parameters with the factor of their learning rate."""
        for name, parameter in network.deepmask.named_parameters():
            factor = self.config.trunk_factor if name.startswith("trunk.") else 1.0
            if factor > 0:
                yield parameter, factor

    def result(self, network: DeepMask | SharpMask) -> DeepMask:
        """The network that this stage makes."""
        return network.deepmask


class SharpMaskStage:
    """Stage 2: the refinement only, on full-resolution targets; the forward path is frozen, without gradients."""

    name = "sharpmask"

    def __init__(self, config: StageConfig, spec: ModelSpec) -> None:
        self.config = config
        self.mask_side = spec.patch_size

    def forward(self, network: DeepMask | SharpMask, patches: Tensor) -> PatchOutput:
        """Refined masks of patches, and their scores."""
        assert isinstance(network, SharpMask)
        network.deepmask.eval()  # no dropout on the frozen path
        with torch.no_grad():
            features = network.deepmask.features(patches)
            encoding, scores = network.deepmask.patch_windows(features)
        return PatchOutput(network.refine_patches(encoding, features), scores)

    def trained(self, network: DeepMask | SharpMask) -> Iterator[tuple[nn.Parameter, float]]:
        """Parameters with the factor of their learning rate."""
        assert isinstance(network, SharpMask)
        for parameter in network.refinement.parameters():
            yield parameter, 1.0

    def result(self, network: DeepMask | SharpMask) -> DeepMask | SharpMask:
        """The network that this stage makes."""
        return network


def batch_loss(output: PatchOutput, batch: Batch, mask_weight: float, world: World) -> tuple[Tensor, dict[str, float]]:
    """This process's share of the loss, to derive, and the whole batch's loss, mask loss and score loss for the log.

    All losses are means over the batch of all processes, so that gradients summed over processes are those of a single
    one.
    """
    counts = torch.stack([batch["has_mask"].sum(), batch["has_score"].sum()])
    mask_count, score_count = (max(1.0, c) for c in sum_over_world(counts, world).tolist())
    mask = mask_loss_sum(output.mask_logits, batch["mask"], batch["has_mask"]) / mask_count
    score = score_loss_sum(output.score_logits, batch["label"], batch["has_score"]) / score_count
    whole = sum_over_world(torch.stack([mask.detach(), score.detach()]), world).tolist()
    logged = {"loss": 0.0}
    for name, weight, value, count in zip(("mask", "score"), (mask_weight, 1.0), whole, counts, strict=True):
        if count > 0:
            logged["loss"] += weight * value
            logged[f"{name}_loss"] = value
    # A part without examples is left out altogether: its weights get no gradient, hence no momentum step and no decay.
    parts = [part for part, count in ((mask * mask_weight, counts[0]), (score, counts[1])) if count > 0]
    return torch.stack(parts).sum(), logged
