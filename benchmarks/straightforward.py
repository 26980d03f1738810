"""SharpMask over a photo the way one writes it first: the yardstick that the proposer's speed is measured against.

    python benchmarks/straightforward.py [--model MODEL] [--top 1000] [--zoom 0] PHOTO …

The same network in eager PyTorch: one forward pass a scale, every affine as an operation of its own after its
convolution, a Python loop over the proposals that refines each mask, resizes it, thresholds it and puts it into an
array of the photo's size, and pycocotools to encode these. Prints its time beside the proposer's and how well the masks
agree; exits with status 1 where they do not. `sharpmask bench --yardstick benchmarks/straightforward.py` calls
`prepare`, `propose` and `agreement`.
"""

import argparse
import copy
import time
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from sharpmask.checkpoints import DEFAULT_MODEL, load_network
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import FrozenAffineConv2d, symmetric_pad
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.proposer import Proposer

# Mean IoU with the proposer's masks. Whole pixels for the windows' places and sizes cost some of it.
AGREEMENT = 0.95


def prepare(network: DeepMask | SharpMask) -> DeepMask | SharpMask:
    """A copy of the network whose affines (its folded BatchNorms) are unfolded again."""
    network = copy.deepcopy(network).cpu().eval()
    for module in network.modules():
        if isinstance(module, FrozenAffineConv2d):
            module.forward = partial(_convolve_then_scale, module)
    return network


def _convolve_then_scale(conv: FrozenAffineConv2d, x: Tensor) -> Tensor:
    x = F.conv2d(symmetric_pad(x, *conv.pad), conv.weight, None, conv.stride, 0, conv.dilation, conv.groups)
    return x * conv.scale.view(-1, 1, 1) + conv.shift.view(-1, 1, 1)


@torch.no_grad()
def propose(
    network: DeepMask | SharpMask, path: str, scales: tuple[float, ...], top: int, threshold: float = 0.2
) -> list[dict[str, Any]]:
    """The best `top` proposals of a photo as COCO results with `segmentation`, `score` and `window` (xyxy)."""
    photo = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    height, width = photo.shape[2:]
    patch, stride = network.spec.patch_size, network.spec.stride
    outputs, candidates = [], []
    for index, exponent in enumerate(scales):
        h, w = (max(1, int(side * 2**exponent + 0.5)) for side in (height, width))
        rescaled = F.interpolate(photo, size=(h, w), mode="bilinear", antialias=True)
        padding = (patch // 2, patch // 2 + -w % stride, patch // 2, patch // 2 + -h % stride)
        outputs.append(network.dense(F.pad(rescaled, padding, value=0.5)))
        scores = outputs[-1].score_logits[0, : h // stride + 1, : w // stride + 1].sigmoid()
        for row in range(scores.shape[0]):
            for col in range(scores.shape[1]):
                candidates.append((float(scores[row, col]), index, row, col, h / height, w / width))
    candidates.sort(key=lambda candidate: -candidate[0])
    results = []
    for score, index, row, col, factor_y, factor_x in candidates[:top]:
        place = (torch.tensor([number]) for number in (0, row, col))
        logits = network.decode(outputs[index], *place)
        size = (max(1, round(patch / factor_y)), max(1, round(patch / factor_x)))
        logits = F.interpolate(logits[None], size=size, mode="bilinear", antialias=True)[0, 0]
        y, x = round((row * stride - patch / 2) / factor_y), round((col * stride - patch / 2) / factor_x)
        mask = np.zeros((height, width), np.uint8)
        inside = logits[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
        inside = inside[: height - max(0, y), : width - max(0, x)].sigmoid() > threshold
        mask[max(0, y) : max(0, y) + inside.shape[0], max(0, x) : max(0, x) + inside.shape[1]] = inside.numpy()
        rle = coco_mask.encode(np.asfortranarray(mask))
        middle = np.array([col * stride / factor_x, row * stride / factor_y])
        half = np.array([patch / 2 / factor_x, patch / 2 / factor_y])
        window = np.concatenate([middle - half, middle + half])
        results.append({"segmentation": rle, "score": score, "window": window})
    return results


def agreement(ours: list[dict[str, Any]], expected: Any) -> float:
    """Mean IoU of the masks with those of `Proposals` of the same window; windows that only one of them has count 0,
    empty masks not at all."""
    theirs = {_key(window): rle for window, rle in zip(expected.windows, expected.rles, strict=True)}
    ious = []
    for result in ours:
        if coco_mask.area(result["segmentation"]):
            rle = theirs.get(_key(result["window"]))
            ious.append(0.0 if rle is None else float(coco_mask.iou([result["segmentation"]], [rle], [0])[0, 0]))
    return float(np.mean(ious))


def _key(window: np.ndarray) -> tuple[int, ...]:
    return tuple(np.round(100 * window).astype(int).tolist())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--top", type=int, default=1000)
    parser.add_argument("--zoom", type=int, default=0)
    args = parser.parse_args()
    network = load_network(args.model)
    proposer = Proposer(network, top=args.top, zoom=args.zoom, device="cpu")
    plain = prepare(network)
    worst = 1.0
    for path in args.photos:
        begin = time.perf_counter()
        ours = propose(plain, path, proposer.scales, args.top)
        middle = time.perf_counter()
        expected = proposer.propose(path)
        end = time.perf_counter()
        same = agreement(ours, expected)
        worst = min(worst, same)
        print(
            f"{path}: straightforward {middle - begin:.2f} s, proposer {end - middle:.2f} s, "
            f"{(middle - begin) / (end - middle):.1f} times; mean IoU of the masks {same:.3f}"
        )
    if worst < AGREEMENT:
        print(f"the masks do not agree: the mean IoU should be at least {AGREEMENT}")
    return int(worst < AGREEMENT)


if __name__ == "__main__":
    raise SystemExit(main())
