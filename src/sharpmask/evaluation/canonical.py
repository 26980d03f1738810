"""`sharpmask evaluate-patches` without the command line: a model measured on canonical patches of a COCO dataset."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset

from sharpmask.checkpoints import load_network
from sharpmask.data.coco import read_coco
from sharpmask.data.examples import ExampleDataset
from sharpmask.data.geometry import CanonicalGeometry
from sharpmask.errors import ConfigError
from sharpmask.evaluation.patches import PatchMetrics, evaluate_patches


def evaluate_canonical(
    model: str | Path,
    *,
    annotations: str | Path,
    image_dir: str | Path,
    count: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
    batch_size: int = 32,
    device: str = "cpu",
    resamples: int = 1000,
    progress: bool = True,
) -> tuple[PatchMetrics, list[str]]:
    """Measure a model (bundled name or .safetensors file) on up to `count` objects (0: all) and as many negatives.

    The objects are drawn once from the usable annotations by `seed`, so that two models see the same objects. Every
    mask is compared at the side of the window in pixels (160 x 160), whatever the side of the network's masks. A
    negative counts to the image of the object before it in the bootstrap. Without an exhaustively annotated image there
    are no negatives and no score figures, and a note says so. Raises ConfigError, DataError or ModelError naming the
    option or file at fault.
    """
    if count < 0:
        raise ConfigError(f"--count must be 0 (all) or more, not {count}")
    if seed < 0:
        raise ConfigError(f"--seed must not be negative, it is {seed}")
    if batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {batch_size}")
    if not 0 < threshold < 1:
        raise ConfigError(f"--threshold is a probability between 0 and 1, not {threshold}")
    try:
        target = torch.device(device)
        torch.zeros(1, device=target)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    network = load_network(model)
    coco = read_coco(annotations)
    notes = []
    exhaustive = any(record.exhaustive for record in coco.images)
    if not exhaustive:
        notes.append("no image is annotated exhaustively, so there are no negatives and no figures of the score")
    dataset = ExampleDataset(
        dataset=coco,
        image_dir=image_dir,
        seed=seed,
        batch_size=2,
        batches="joint" if exhaustive else "mask",
        mask_side=network.spec.patch_size,
        geometry=CanonicalGeometry(patch_size=network.spec.patch_size, context=network.spec.context),
        training=False,
    )
    objects = np.arange(len(dataset.positives))
    if 0 < count < len(objects):
        objects = np.sort(np.random.default_rng(seed).choice(objects, count, replace=False))
    elif count > len(objects):
        notes.append(f"the annotations have {len(objects)} usable objects, all of them are measured")
    # With negatives even numbers are objects, each followed by a negative.
    indices = (objects if not exhaustive else np.stack([2 * objects, 2 * objects + 1], axis=1).reshape(-1)).tolist()
    images = [dataset.positives[index // (2 if exhaustive else 1)].image_id for index in indices]
    metrics = evaluate_patches(
        network.to(target),
        Subset(dataset, indices),
        batch_size=batch_size,
        device=target,
        threshold=threshold,
        groups=images,
        resamples=resamples,
        seed=seed,
        progress=progress,
    )
    return metrics, notes
