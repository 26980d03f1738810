"""What a run measures of itself: IoU on canonical patches, AR on whole photos, and pictures of a few masks."""

import json
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
from sharpmask.errors import DataError, ImageError
from sharpmask.evaluation.patches import evaluate_patches
from sharpmask.evaluation.recall import evaluate_recall
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.proposer import Proposer
from sharpmask.training.config import TrainConfig

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
        # Evenly spread pairs of a positive and the negative after it: files are often ordered by image or category.
        group = 2 if exhaustive else 1
        pairs = len(examples) // group
        wanted = min(pairs, max(1, config.validation_patches // group))
        chosen = [pair * pairs // wanted for pair in range(wanted)]
        numbers = [pair * group + i for pair in chosen for i in range(group)]
        self.patches = Subset(examples, [number for number in numbers if _is_readable(examples, number)])
        for fault in examples.photos.unreadable.values():
            print(f"{fault}; it is left out of the validation", file=sys.stderr)
        if len(self.patches) == 0:
            raise DataError(f"{config.val_annotations}: none of the photos to validate on can be read")

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
        if self.config.validation_photos == 0:
            return {}
        assert self.config.val_annotations is not None and self.config.val_images is not None
        truth = json.loads(Path(self.config.val_annotations).read_text())
        photos = truth["images"][:: max(1, len(truth["images"]) // self.config.validation_photos)]
        truth["images"] = photos[: self.config.validation_photos]
        measured = {photo["id"] for photo in truth["images"]}
        truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in measured]
        proposer = Proposer(network, top=1000, device=device)
        records = []
        for photo in truth["images"]:
            try:
                found = proposer.propose(Path(self.config.val_images) / photo["file_name"])
            except ImageError as error:
                print(f"{error}; nothing is found in it", file=sys.stderr)
                continue
            records += found.to_coco(photo["id"])
        recall = evaluate_recall(truth, records, iou_types=["segm"], resamples=1, progress=False)
        return {f"mask_ar_{n}": recall.value(f"AR@{n}") for n in (10, 100, 1000)}

    @torch.inference_mode()
    def picture(self, network: DeepMask | SharpMask, device: torch.device) -> Tensor:
        """A strip of patches above their predicted masks above their true masks, (3, 3 P, 8 P) in [0, 1]."""
        items = [self.patches[i] for i in range(0, len(self.patches), max(1, len(self.patches) // 16))]
        items = [item for item in items if item["has_mask"] > 0][:_PICTURES]
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
