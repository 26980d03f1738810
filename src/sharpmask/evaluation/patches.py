"""How good a network is on canonical patches: its masks' IoU, and how well its score tells objects from the rest.

Letters: N examples, M mask side of the truth (160), m side of the network's logits (56 for DeepMask, 160 for
SharpMask). A patch's mask is what the network gives a probability above `threshold`; .5 by default, which is the sign
of the logits. (Whole-image inference thresholds at .2; that constant belongs to the proposals and is not what is
measured here.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.bootstrap import Estimate, estimates, resample_counts
from sharpmask.evaluation.tables import layout, percent

MASK_METRICS = ("mean IoU", "median IoU", "share IoU >= .5", "share IoU >= .7")
SCORE_METRICS = ("accuracy", "average precision", "AUROC")


@dataclass(frozen=True)
class PatchMetrics:
    """The figures on one set of patches, as fractions; nan where there was nothing to measure (no masks, one class)."""

    masks: int  # examples with a mask
    scores: int  # examples with a score label
    positives: int  # of these, those that are objects
    threshold: float  # probability from which a pixel counts as object
    estimates: dict[
        str, Estimate
    ]  # by the names of MASK_METRICS and SCORE_METRICS; intervals are nan without a bootstrap
    ious: np.ndarray  # (masks,) in the order of the examples
    resamples: int = 0
    seed: int = 0

    @property
    def mean_iou(self) -> float:
        return self.estimates["mean IoU"].value

    @property
    def median_iou(self) -> float:
        return self.estimates["median IoU"].value

    @property
    def share_50(self) -> float:
        """Share of patches with IoU >= .5."""
        return self.estimates["share IoU >= .5"].value

    @property
    def share_70(self) -> float:
        """Share of patches with IoU >= .7, by which the best model of a training is chosen."""
        return self.estimates["share IoU >= .7"].value

    @property
    def score_accuracy(self) -> float:
        return self.estimates["accuracy"].value

    @property
    def score_average_precision(self) -> float:
        return self.estimates["average precision"].value

    @property
    def score_auroc(self) -> float:
        return self.estimates["AUROC"].value

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single IoUs as plain JSON types; missing figures are None."""
        return {
            "patches_with_mask": self.masks,
            "patches_with_score": self.scores,
            "positives": self.positives,
            "mask_threshold": self.threshold,
            "interval": {"level": 0.95, "resamples": self.resamples, "over": "images", "seed": self.seed},
            "figures": {name: estimate.to_dict() for name, estimate in self.estimates.items()},
        }

    def text(self, name: str = "") -> str:
        """The table, in percent."""
        rows = [[f"masks of {self.masks} patches (probability > {self.threshold:g})", name]]
        rows += [[metric, percent(self.estimates[metric])] for metric in MASK_METRICS]
        rows.append([f"scores of {self.positives} objects, {self.scores - self.positives} others", name])
        rows += [[metric, percent(self.estimates[metric])] for metric in SCORE_METRICS]
        lines = layout(rows)
        lines.insert(1 + len(MASK_METRICS), "")
        if self.resamples:
            lines.append(
                f"percent [95 % interval: bootstrap over images, {self.resamples:,} resamples, seed {self.seed}]"
            )
        return "\n".join(lines)


def patch_ious(mask_logits: Tensor, targets: Tensor, *, threshold: float = 0.5) -> Tensor:
    """IoU of each predicted mask with its target, (N,) float32.

    mask_logits: (N, m, m); where m is not M they are upsampled bilinearly to the target's side first.
    targets: (N, M, M), object where > .5. threshold: probability above which a pixel is object, in (0, 1).
    An empty prediction of an empty target counts as 1.
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"the threshold is a probability between 0 and 1, not {threshold}")
    logits = mask_logits.float()
    if logits.shape[-2:] != targets.shape[-2:]:
        logits = F.interpolate(logits[:, None], size=targets.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    found = (logits > float(np.log(threshold / (1 - threshold)))).flatten(1)  # (N, M*M)
    truth = (targets > 0.5).flatten(1)
    union = (found | truth).sum(1)
    return torch.where(
        union > 0, (found & truth).sum(1) / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32)
    )


def patch_metrics(
    ious: Tensor | np.ndarray,
    score_logits: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    mask_groups: Sequence[Any] | None = None,
    score_groups: Sequence[Any] | None = None,
    threshold: float = 0.5,
    resamples: int = 0,
    seed: int = 0,
) -> PatchMetrics:
    """Summarise IoUs (N1,) and score logits with labels 0/1 (N2,) each.

    mask_groups, score_groups: what each example belongs to (its image), resampled as a whole; by default each stands
    alone. threshold: only recorded. resamples: of the bootstrap; 0 leaves the intervals nan.
    Accuracy: a logit above 0 says "object". Average precision: the mean precision at each object, not interpolated.
    """
    values = np.asarray(ious, np.float64).reshape(-1)
    logits, truth = np.asarray(score_logits, np.float64).reshape(-1), np.asarray(labels, np.float64).reshape(-1) > 0.5
    if len(logits) != len(truth):
        raise ConfigError(f"{len(logits)} scores but {len(truth)} labels")
    found = {
        **_with_intervals(MASK_METRICS, _mask_figures(values), len(values), mask_groups, resamples, seed),
        **_with_intervals(SCORE_METRICS, _score_figures(logits, truth), len(logits), score_groups, resamples, seed),
    }
    return PatchMetrics(len(values), len(truth), int(truth.sum()), threshold, found, values, resamples, seed)


def evaluate_patches(
    network: torch.nn.Module,
    dataset: Dataset[dict[str, Tensor]],
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    threshold: float = 0.5,
    groups: Sequence[Any] | None = None,
    workers: int = 0,
    resamples: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> PatchMetrics:
    """Run a network over a dataset of canonical examples and measure it; its mode (train or eval) is restored.

    network: `network(patches)` gives mask_logits (B, m, m) and score_logits (B,) for RGB patches in [0, 1]; it is on
    `device`. dataset: `sharpmask.data.examples.ExampleDataset` with `training=False`, or a part of one; `has_mask` and
    `has_score`
        say what of an example counts. groups: an image id for each example, for the bootstrap.
    Raises DataError for a dataset without examples.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if not size:
        raise DataError("there are no patches to evaluate")
    if groups is not None and len(groups) != size:
        raise ConfigError(f"{len(groups)} groups for {size} examples")
    was_training = network.training
    network.eval()
    ious, logits, labels, has_mask, has_score = [], [], [], [], []
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers)
    try:
        with torch.inference_mode():
            for batch in tqdm(loader, desc="patches", unit="batch", disable=None if progress else True, leave=False):
                masked, scored = batch["has_mask"] > 0, batch["has_score"] > 0
                output = network(batch["patch"].to(device).float() / 255)
                targets = batch["mask"].to(device)[masked]
                ious.append(patch_ious(output.mask_logits[masked.to(device)], targets, threshold=threshold).cpu())
                logits.append(output.score_logits.float().cpu()[scored])
                labels.append(batch["label"][scored])
                has_mask.append(masked)
                has_score.append(scored)
    finally:
        network.train(was_training)
    members = list(range(size)) if groups is None else list(groups)
    return patch_metrics(
        torch.cat(ious),
        torch.cat(logits),
        torch.cat(labels),
        mask_groups=[members[index] for index in torch.cat(has_mask).nonzero()[:, 0].tolist()],
        score_groups=[members[index] for index in torch.cat(has_score).nonzero()[:, 0].tolist()],
        threshold=threshold,
        resamples=resamples,
        seed=seed,
    )


Figures = Callable[[np.ndarray], list[float]]  # weights (N,) of the examples -> the figures


def _with_intervals(
    names: Sequence[str], figures: Figures, size: int, groups: Sequence[Any] | None, resamples: int, seed: int
) -> dict[str, Estimate]:
    values = np.array(figures(np.ones(size)))
    if not resamples or not size:
        return {
            name: Estimate(float(value), float("nan"), float("nan")) for name, value in zip(names, values, strict=True)
        }
    ids = {group: number for number, group in enumerate(dict.fromkeys(groups))} if groups is not None else None
    member = np.array([ids[group] for group in groups]) if ids is not None and groups is not None else np.arange(size)
    counts = resample_counts(int(member.max()) + 1, resamples, seed)
    return estimates(names, values, np.array([figures(row[member].astype(np.float64)) for row in counts]))


def _mask_figures(ious: np.ndarray) -> Figures:
    order = np.argsort(ious)
    ordered = ious[order]

    def figures(weights: np.ndarray) -> list[float]:
        total = weights.sum()
        if not total:
            return [float("nan")] * len(MASK_METRICS)
        passed = np.cumsum(weights[order])
        # the mean of the lower and the upper median, as numpy has it
        low, high = np.searchsorted(passed, total / 2), np.searchsorted(passed, total / 2, side="right")
        return [
            float(weights @ ious / total),
            float(ordered[low] + ordered[min(high, len(ordered) - 1)]) / 2,
            float(weights @ (ious >= 0.5) / total),
            float(weights @ (ious >= 0.7) / total),
        ]

    return figures


def _score_figures(logits: np.ndarray, truth: np.ndarray) -> Figures:
    order = np.argsort(-logits, kind="stable")
    ranked = truth[order]
    last_of_equals = np.append(np.diff(logits[order]) != 0, True)[: len(logits)]
    correct = (logits > 0) == truth

    def figures(weights: np.ndarray) -> list[float]:
        total = weights.sum()
        accuracy = float(weights @ correct / total) if total else float("nan")
        objects = np.cumsum(weights[order] * ranked)[last_of_equals]
        others = np.cumsum(weights[order] * ~ranked)[last_of_equals]
        if not total or not objects[-1] or not others[-1]:
            return [accuracy, float("nan"), float("nan")]
        gained = np.diff(objects, prepend=0.0)
        precision = objects / np.maximum(objects + others, 1e-12)
        passed = np.diff(others, prepend=0.0)
        area = float((passed * (objects - gained / 2)).sum() / (objects[-1] * others[-1]))
        return [accuracy, float((gained * precision).sum() / objects[-1]), area]

    return figures
