"""What differs between the two stages: which weights are trained, on which targets, with which loss.

A DeepMask is trained by stage 1 alone; every other network by both, and by the third, end to end, where one is asked
for.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.deepmask import DeepMask, PatchOutput
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.training.config import StageConfig
from sharpmask.training.distributed import World, sum_over_world
from sharpmask.training.losses import mask_ious, mask_loss_sum, score_loss_sum

Batch = Mapping[str, Tensor]


class Trained(NamedTuple):
    """A parameter to train, with the `factor` of its learning rate and the step from which it changes."""

    parameter: nn.Parameter
    factor: float
    start: int = 0


class Stage(Protocol):
    """One stage of training."""

    name: str
    mask_side: int
    config: StageConfig

    def forward(self, network: DeepMask | SharpMask, patches: Tensor) -> PatchOutput: ...
    def trained(self, network: DeepMask | SharpMask) -> Iterator[Trained]: ...
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

    def trained(self, network: DeepMask | SharpMask) -> Iterator[Trained]:
        """DeepMask's parameters, the trunk with a factor and start of its own."""
        return _with_trunk(network.deepmask, "trunk.", self.config)

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

    def trained(self, network: DeepMask | SharpMask) -> Iterator[Trained]:
        """The refinement's parameters."""
        assert isinstance(network, SharpMask)
        for parameter in network.refinement.parameters():
            yield Trained(parameter, 1.0)

    def result(self, network: DeepMask | SharpMask) -> DeepMask | SharpMask:
        """The network that this stage makes."""
        return network


class EndToEndStage:
    """Stage 3: everything together, on full-resolution targets and scores; the paper trains stage by stage only."""

    name = "endtoend"

    def __init__(self, config: StageConfig, spec: ModelSpec) -> None:
        self.config = config
        self.mask_side = spec.patch_size

    def forward(self, network: DeepMask | SharpMask, patches: Tensor) -> PatchOutput:
        """Refined masks and scores of patches."""
        assert isinstance(network, SharpMask)
        return network(patches)  # type: ignore[no-any-return]

    def trained(self, network: DeepMask | SharpMask) -> Iterator[Trained]:
        """All parameters that a mask or a score needs, the trunk with a factor and start of its own."""
        assert isinstance(network, SharpMask)
        # The coarse mask has no loss here: where the refinement begins from the encoding, its head is not used.
        return _with_trunk(network, "deepmask.trunk.", self.config, leave_out="deepmask.mask_head.")

    def result(self, network: DeepMask | SharpMask) -> DeepMask | SharpMask:
        """The network that this stage makes."""
        return network


def _with_trunk(
    network: nn.Module, trunk: str, config: StageConfig, *, leave_out: str | None = None
) -> Iterator[Trained]:
    for name, parameter in network.named_parameters():
        of_trunk = name.startswith(trunk)
        factor = config.trunk_factor if of_trunk else 1.0
        if factor > 0 and not (leave_out and name.startswith(leave_out)):
            yield Trained(parameter, factor, config.trunk_start if of_trunk else 0)


def score_targets(output: PatchOutput, batch: Batch, kind: str) -> Tensor:
    """What the scores (B,) are to become; see `StageConfig.score_target`."""
    if kind == "label":
        return batch["label"]
    iou = batch["label"] * mask_ious(output.mask_logits, batch["mask"])
    return iou if kind == "iou" else (iou + batch["label"]) / 2


@torch.no_grad()
def taught(batch: Batch, teacher: nn.Module, patches: Tensor, share: float) -> dict[str, Tensor]:
    """The batch with targets that are to a `share` the teacher's probabilities; the logistic loss of a mixture is the
    mixture of the losses. The teacher must be in evaluation mode."""
    output = teacher(patches)
    logits = output.mask_logits.float()
    side = batch["mask"].shape[-2:]
    if logits.shape[-2:] != side:
        logits = F.interpolate(logits[:, None], size=side, mode="bilinear", antialias=True)[:, 0]
    mask, label = logits.sigmoid(), output.score_logits.float().sigmoid()
    return {
        **batch,
        "mask": (1 - share) * batch["mask"].float() + share * mask,
        "label": (1 - share) * batch["label"] + share * label,
    }


def batch_loss(
    output: PatchOutput, batch: Batch, mask_weight: float, world: World, boundary_weight: float = 0.0
) -> tuple[Tensor, dict[str, float]]:
    """This process's share of the loss, to derive, and the whole batch's loss, mask loss and score loss for the log.

    All losses are means over the batch of all processes, so that gradients summed over processes are those of a single
    one.
    """
    counts = torch.stack([batch["has_mask"].sum(), batch["has_score"].sum()])
    mask_count, score_count = (max(1.0, c) for c in sum_over_world(counts, world).tolist())
    mask = mask_loss_sum(output.mask_logits, batch["mask"], batch["has_mask"], boundary_weight) / mask_count
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
