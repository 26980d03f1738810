"""Whole-image inference with the index arithmetic of the Torch7 release, for comparison with it.

`Torch7Proposer` does what `Proposer` does, the way the released programs did it. All that is peculiar to them is here:

1.  The pyramid is bilinear between corner pixels and not antialiased. Each rescaled image gets P/2 grey pixels on every
    side and no more, so that the last windows of a map may reach beyond the skip features; what is missing there is 0.
2.  The window of a score is taken one row above and one column right of it: with t the place of a score in its map of
    width W, counted from 1 row by row, row floor(t / W), but at least 1, and column t mod W + 1, both counted from 1.
    The score of the last column goes to the first column of its own row. Mask and place come from that window.
3.  Scores are compared as float32 probabilities. No more windows are taken than the last scale's map has cells. (The
    original fills the rest of its list with the first window of the first scale and score 1; here the list ends.)
4.  With SharpMask, row and column of the place, not of the mask, are limited to the mask's side.
5.  Masks are resized to floor(P / s) pixels, in two passes, between corner pixels when enlarging and by area when
    shrinking, and put at floor((row - 1) * 16 / s - P / 2 / s), with s the nominal and not the true scale.

A mask is where the logit is strictly greater than that of the threshold. No mask is dropped unless that is asked for,
not even an empty one. Shape letters: N windows, P patch side, M mask side, H W image, h w score map.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sharpmask.errors import ConfigError, ModelError
from sharpmask.images import MAX_PIXELS, ImageSource, read_image
from sharpmask.proposals.proposer import pick_device
from sharpmask.proposals.pyramid import GREY, scale_exponents
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import EncodedMasks, encode_windows

# Score, index of the scale, and the window's row and column, counted from 0.
WINDOW = np.dtype([("score", "f4"), ("scale", "i4"), ("row", "i4"), ("col", "i4")])


class Torch7Proposer:
    """Finds the objects of an image as the Torch7 release does.

    Args:
        network: a DeepMask or SharpMask; it is moved to `device` and set to evaluation mode.
        top: windows to take, the best over all scales.
        zoom, scales, zoom2_exponent: the pyramid, as for `Proposer`.
        coarse: for a SharpMask, the masks of the DeepMask in it (option -dm of the original).
        threshold: a pixel belongs to the mask where its probability is greater.
        nms, min_score, min_area, max_area: as for `Proposer`; the original has none of them.
        device: "cpu", "cuda", …; None takes CUDA where it is available.
        max_pixels: refuse larger images. A rescaled image is never cut into tiles.
        decode_batch: windows decoded at a time.

    Raises:
        ConfigError: a value outside its range, or a device that is not there.
    """

    def __init__(
        self,
        network: Any,
        *,
        top: int = 1000,
        zoom: int = 0,
        scales: Sequence[float] | None = None,
        zoom2_exponent: float = 1.5,
        coarse: bool = False,
        threshold: float = 0.2,
        nms: float | None = None,
        min_score: float = 0.0,
        min_area: float = 0,
        max_area: float | None = None,
        device: str | torch.device | None = None,
        max_pixels: int = MAX_PIXELS,
        decode_batch: int = 128,
    ) -> None:
        self.scales = scale_exponents(zoom, scales, zoom2_exponent)
        self.top, self.threshold, self.nms, self.min_score = top, threshold, nms, min_score
        self.min_area, self.max_area = min_area, max_area
        _check(top, threshold)
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        self.refines = self.network.spec.refinement is not None
        if coarse and not self.refines:
            raise ConfigError("coarse masks are those of the DeepMask within a SharpMask; this model is a DeepMask")
        self.coarse, self.max_pixels, self.decode_batch = coarse, max_pixels, decode_batch

    @torch.inference_mode()
    def propose(
        self,
        image: ImageSource,
        *,
        top: int | None = None,
        threshold: float | None = None,
        nms: float | None = None,
        min_score: float | None = None,
    ) -> Proposals:
        """Rank the objects of one image.

        Args:
            image: a path, PIL image or array.
            top, threshold, nms, min_score: in place of the constructor's values for this image.

        Raises:
            ImageError: the image cannot be read or is too large.
            ModelError: the network gives scores that are no numbers.
            ConfigError: a value outside its range.
        """
        top = self.top if top is None else top
        threshold = self.threshold if threshold is None else threshold
        nms = self.nms if nms is None else nms
        _check(top, threshold)
        pixels = read_image(image, max_pixels=self.max_pixels)
        outputs = [self.network.dense(self._padded(pixels, exponent)) for exponent in self.scales]
        windows = ranked_windows([output.score_logits[0] for output in outputs], top)
        windows = windows[windows["score"] >= (self.min_score if min_score is None else min_score)]
        found = self._paste(windows, self._masks(outputs, windows), (pixels.shape[0], pixels.shape[1]), threshold)
        if self.min_area > 0 or self.max_area is not None:
            found = found.filter(min_area=self.min_area, max_area=self.max_area)
        return found if nms is None else found.nms(nms)

    def _padded(self, pixels: np.ndarray, exponent: float) -> Tensor:
        """The rescaled image on its grey ground, (1,3,H',W') float32 in [0,1]."""
        image = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1)[None].float() / 255
        size = tuple(max(1, math.floor(side * 2.0**exponent + 0.5)) for side in pixels.shape[:2])
        half = self.network.spec.patch_size // 2
        return F.pad(rescale_corners(image, (size[0], size[1])), (half, half, half, half), value=GREY)

    def _masks(self, outputs: Sequence[Any], windows: np.ndarray) -> Tensor:
        """Mask logits (N,M,M) of the windows, on the CPU."""
        spec = self.network.spec
        side = spec.patch_size if self.refines and not self.coarse else spec.mask_side
        masks = torch.empty(len(windows), side, side)
        for scale, output in enumerate(outputs):
            if self.refines and not self.coarse:
                output = _zero_padded(output, spec.patch_size // spec.stride)
            chosen = np.flatnonzero(windows["scale"] == scale)
            for begin in range(0, chosen.size, self.decode_batch):
                batch = chosen[begin : begin + self.decode_batch]
                rows, cols = (
                    torch.from_numpy(windows[name][batch].astype(np.int64)).to(self.device) for name in ("row", "col")
                )
                if self.coarse:
                    logits = self.network.deepmask.mask_head(output.encodings[0][:, rows, cols].T)
                else:
                    logits = self.network.decode(output, torch.zeros_like(rows), rows, cols)
                masks[torch.from_numpy(batch)] = logits.float().cpu()
        return masks

    def _paste(self, windows: np.ndarray, masks: Tensor, image_size: tuple[int, int], threshold: float) -> Proposals:
        spec = self.network.spec
        limit = masks.shape[-1] - 1 if self.refines else None
        encoded: list[EncodedMasks] = []
        boxes = np.zeros((len(windows), 4), np.float32)
        for number, window in enumerate(windows):
            scale = 2.0 ** self.scales[window["scale"]]
            cell = [int(window["row"]), int(window["col"])]
            if limit is not None:
                cell = [min(place, limit) for place in cell]
            top, left = (mask_place(place, scale, patch_size=spec.patch_size, stride=spec.stride) for place in cell)
            mask = resize_mask(masks[number].numpy(), math.floor(spec.patch_size / scale)) > math.log(
                threshold / (1 - threshold)
            )
            boxes[number] = (left, top, left + mask.shape[1], top + mask.shape[0])
            encoded.append(_encode(mask, top, left, image_size))
        return Proposals(
            scores=windows["score"].copy(),
            boxes=np.concatenate([item.boxes for item in encoded]) if encoded else np.zeros((0, 4), np.float32),
            rles=[rle for item in encoded for rle in item.rles],
            windows=boxes,
            scales=np.array(self.scales, np.float32)[windows["scale"]],
            image_size=image_size,
            areas=np.concatenate([item.areas for item in encoded]) if encoded else np.zeros(0, np.int64),
        )


def ranked_windows(score_logits: Sequence[Tensor], top: int) -> np.ndarray:
    """The best windows of score maps (h,w), one a scale, as a WINDOW array, with the release's places (point 2 above).

    Equal scores come in the order of scale, row and column; the original leaves their order within a scale open.
    """
    parts = []
    for scale, logits in enumerate(score_logits):
        values = (1 / ((-logits.float()).exp() + 1)).cpu().numpy()
        if np.isnan(values).any():
            raise ModelError("the network gives scores that are no numbers (NaN): its weights are damaged")
        part = np.zeros(values.size, WINDOW)
        number = np.arange(1, values.size + 1)
        part["score"], part["scale"] = values.ravel(), scale
        part["row"] = np.maximum(1, number // values.shape[1]) - 1
        part["col"] = number % values.shape[1]
        parts.append(part)
    windows = np.concatenate(parts)
    order = np.argsort(-windows["score"], kind="stable")
    return windows[order[: min(top, len(parts[-1]))]]


def mask_place(cell: int, scale: float, *, patch_size: int, stride: int) -> int:
    """First image pixel, along one axis, of the mask of the window in row or column `cell`, counted from 0."""
    return math.floor(cell * (stride / scale) - patch_size / 2 / scale)


def rescale_corners(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (B,C,H,W) between corner pixels, without antialiasing, enlarging or shrinking."""
    return F.interpolate(image, size, mode="bilinear", align_corners=True)


def resize_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Resize (M,M) to (side, side) float32: along the rows, then along the columns."""
    return _resize_rows(_resize_rows(mask.astype(np.float32), side).T, side).T


def _resize_rows(values: np.ndarray, size: int) -> np.ndarray:
    """(n, M) to (n, size): linear between the end pixels when enlarging, mean over the covered span when shrinking."""
    length = values.shape[1]
    if size == length:
        return values
    place = np.arange(size, dtype=np.float32)
    if size > length:
        place = place * np.float32((length - 1) / (size - 1))
        low = np.minimum(place.astype(np.int64), max(length - 2, 0))
        high = np.minimum(low + 1, length - 1)
        part = place - low
        out = (1 - part) * values[:, low] + part * values[:, high]
        out[:, -1] = values[:, -1]
        return out.astype(np.float32)
    step = np.float32(length / size)
    begin, end = place * step, (place + 1) * step
    first, last = begin.astype(np.int64), end.astype(np.int64)
    pixel = np.arange(length)
    weights = ((pixel > first[:, None]) & (pixel < last[:, None])).astype(np.float32)  # (size, M)
    rows = np.arange(size)
    weights[rows, first] = 1 - (begin - first)
    inside = last < length
    weights[rows[inside], last[inside]] += (end - last)[inside]
    return (values @ (weights / weights.sum(axis=1, keepdims=True)).T).astype(np.float32)


def _zero_padded(dense: Any, grid_side: int) -> Any:
    """Skip features with zeros after their last row and column, so that every window lies inside."""
    height, width = dense.score_logits.shape[-2:]
    skips = []
    for stage, skip in enumerate(dense.skips):
        wanted = [(cells - 1 + grid_side) * 2**stage for cells in (height, width)]
        missing = [max(0, want - have) for want, have in zip(wanted, skip.shape[-2:], strict=True)]
        skips.append(F.pad(skip, (0, missing[1], 0, missing[0])))
    return dense._replace(skips=tuple(skips))


def _encode(mask: np.ndarray, top: int, left: int, image_size: tuple[int, int]) -> EncodedMasks:
    """A mask (h,w) bool whose first pixel is at (top, left), clipped to the image."""
    rows = slice(max(0, -top), max(0, min(mask.shape[0], image_size[0] - top)))
    cols = slice(max(0, -left), max(0, min(mask.shape[1], image_size[1] - left)))
    part = np.ascontiguousarray(mask[rows, cols].T)[None]
    return encode_windows(part, np.array([left + cols.start]), np.array([top + rows.start]), image_size)


def _check(top: int, threshold: float) -> None:
    if top < 1:
        raise ConfigError(f"top {top}: must be at least 1")
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold {threshold:g}: must lie between 0 and 1, both excluded")
