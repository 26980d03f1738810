"""What a run measures of itself: IoU on canonical patches, AR on whole photos, and pictures of a few masks."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset

from sharpmask.data.coco import read_coco
from sharpmask.data.examples import ExampleDataset
from sharpmask.data.geometry import CanonicalGeometry
from sharpmask.data.photos import UnreadablePhoto
from sharpmask.errors import DataError
from sharpmask.evaluation.patches import evaluate_patches
from sharpmask.evaluation.recall import evaluate_recall
from sharpmask.indexing import evenly
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.training.config import TrainConfig
from sharpmask.training.measure import Part, measured_truth, propose_for

_PICTURES = 8


class Validator:
    """Measures networks on the validation data of a run."""

    def __init__(self, config: TrainConfig, spec: ModelSpec) -> None:
        assert config.val_annotations is not None and config.val_images is not None
        self.config = config
        dataset = read_coco(config.val_annotations)
        exhaustive = any(image.exhaustive for image in dataset.images)
        examples = ExampleDataset(
            dataset=dataset,
            image_dir=config.val_images,
            seed=config.seed,
            batches="joint" if exhaustive else "mask",
            mask_side=spec.patch_size,
            geometry=CanonicalGeometry(patch_size=spec.patch_size, context=spec.context),
            training=False,
        )
        # Pairs of a positive and the negative after it.
        group = 2 if exhaustive else 1
        chosen = evenly(range(len(examples) // group), max(1, config.validation_patches // group))
        numbers = [pair * group + i for pair in chosen for i in range(group)]
        self.patches = Subset(examples, [number for number in numbers if _is_readable(examples, number)])
        for fault in examples.photos.unreadable.values():
            print(f"{fault}; it is left out of the validation", file=sys.stderr)
        masks = [place for place, number in enumerate(self.patches.indices) if number % group == 0]
        if not masks:
            raise DataError(f"{config.val_annotations}: none of the photos to validate on can be read")
        self._shown = evenly(masks, _PICTURES)
        self._measured: Part | None = None
        if config.validation_photos:
            truth = measured_truth(config.val_annotations, config.validation_photos)
            self._measured = Part(truth, dataset.image_by_id, Path(config.val_images))

    def patches_scalars(self, network: DeepMask | SharpMask, device: torch.device) -> dict[str, float]:
        """Patch IoU and score figures, by name."""
        metrics = evaluate_patches(network, self.patches, device=device)
        found = {
            "mean_iou": metrics.mean_iou,
            "median_iou": metrics.median_iou,
            "share_iou_50": metrics.share_50,
            "share_iou_70": metrics.share_70,
        }
        if metrics.scores:
            found |= {"score_auroc": metrics.score_auroc, "score_average_precision": metrics.score_average_precision}
        return found

    def recall_scalars(self, network: DeepMask | SharpMask, device: torch.device) -> dict[str, float]:
        """Mask AR@10/100/1000 on some photos of the validation data, evenly spread; empty where none are asked for."""
        if self._measured is None:
            return {}
        records = propose_for(network, self._measured, device)
        recall = evaluate_recall(self._measured.truth, records, iou_types=["segm"], resamples=1, progress=False)
        return {f"mask_ar_{n}": recall.value(f"AR@{n}") for n in (10, 100, 1000)}

    @torch.inference_mode()
    def picture(self, network: DeepMask | SharpMask, device: torch.device) -> Tensor:
        """A strip of patches above their predicted masks above their true masks, (3, 3 P, N P) in [0, 1], N up to 8."""
        items = [self.patches[i] for i in self._shown]
        patches = torch.stack([item["patch"] for item in items]).to(device).float() / 255
        truth = torch.stack([item["mask"] for item in items]).float()
        was_training = network.training
        predicted = torch.sigmoid(network.eval()(patches).mask_logits.float()).cpu()
        network.train(was_training)
        side = truth.shape[-1]
        predicted = F.interpolate(predicted[:, None], size=(side, side), mode="bilinear")
        context = (patches.shape[-1] - side) // 2
        inner = patches.cpu()[..., context : context + side, context : context + side]
        rows = torch.stack([inner, predicted.expand(-1, 3, -1, -1), truth[:, None].expand(-1, 3, -1, -1)])
        return rows.permute(2, 0, 3, 1, 4).reshape(3, 3 * side, -1)  # (3, row, y, patch, x)


def _is_readable(examples: ExampleDataset, number: int) -> bool:
    """Whether an example can be made; what is found broken now does not stop a run days later."""
    try:
        examples[number]
    except UnreadablePhoto:
        return False
    return True
