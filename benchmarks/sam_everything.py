"""The work of Segment Anything's "everything" mode on a photo, as a peer in time: `tradeoff.py --peers` calls it.

    pip install transformers
    python benchmarks/sam_everything.py PHOTO …

ViT-B as transformers builds it, with random weights, so that the masks mean nothing and only the time does: the encoder
on the photo at 1,024 pixels, a grid of 32 x 32 points in batches of 64 with three masks each, every mask enlarged as
the original does, the best by predicted quality kept, their stability measured, and COCO run lengths of them.
Thresholds cannot choose among random masks, so `KEPT` are kept, about as many as the thresholds leave in ordinary
photos. Duplicates are not removed, which favours the peer. The time without the encoder is what no smaller encoder with
the same decoder (such as MobileSAM's) can fall below.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from sharpmask.allocator import keep_freed_memory
from sharpmask.images import read_image

SIDE, POINTS, BATCH = 1024, 32, 64
KEPT = 128
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def load() -> Any:
    """SAM ViT-B with random weights."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    return SamModel(SamConfig()).eval()


@torch.inference_mode()
def everything(model: Any, path: str | Path) -> tuple[list[Any], dict[str, float]]:
    """Run lengths of the kept masks of a photo, and the seconds of its "encoder" and in "total"."""
    began = time.perf_counter()
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    h, w = int(height * scale + 0.5), int(width * scale + 0.5)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    image = F.interpolate(image, (h, w), mode="bilinear", antialias=True)
    image = (image - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)
    read = time.perf_counter()
    embedding = model.get_image_embeddings(F.pad(image, (0, SIDE - w, 0, SIDE - h)))
    encoded = time.perf_counter()
    places = (torch.arange(POINTS) + 0.5) / POINTS
    y, x = torch.meshgrid(places * h, places * w, indexing="ij")
    codes: list[Any] = []
    for points in torch.stack([x, y], dim=2).reshape(-1, 2).split(BATCH):
        found = model(image_embeddings=embedding, input_points=points[None, :, None], multimask_output=True)
        codes += _codes(found.pred_masks.flatten(0, 2), found.iou_scores.flatten(), (h, w), (height, width))
    return codes, {"encoder": encoded - read, "total": time.perf_counter() - began}


def _codes(logits: Tensor, quality: Tensor, scaled: tuple[int, int], size: tuple[int, int]) -> list[Any]:
    large = F.interpolate(logits[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)
    large = F.interpolate(large[..., : scaled[0], : scaled[1]], size, mode="bilinear", align_corners=False)[:, 0]
    large = large[quality.argsort(descending=True)[: KEPT * BATCH // POINTS**2]]
    (large > 1).sum(dim=(1, 2)) / (large > -1).sum(dim=(1, 2)).clamp(min=1)  # stability
    masks = (large > 0).numpy().astype(np.uint8)
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+")
    arguments = parser.parse_args()
    keep_freed_memory()
    model = load()
    for photo in arguments.photos:
        codes, seconds = everything(model, photo)
        print(f"{photo}: {len(codes)} masks; " + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))


if __name__ == "__main__":
    main()
