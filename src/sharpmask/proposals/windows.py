"""Where the windows of a rescaled image lie in the original one, which of them are best, and their masks put there.

Two pixel systems: those of the image (H,W) as given, and those of the rescaled image the network sees. Coordinates are
continuous, pixel i spans [i, i + 1] and has its centre at i + 0.5. The rescaled size is a whole number, so the true
factor rescaled/original differs a little from 2^exponent and between the axes; all geometry uses the true factors,
since with the nominal one masks would drift by up to half a rescaled pixel's worth towards the far edges.

Shape letters: N windows, P patch side, M mask side, H W image, h w the pixels
a window covers.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from sharpmask.proposals.rle import EncodedMasks, encode_windows

# One window each: score logit, scale index, grid cell, number of the tile that holds its features (see pyramid.py) and
# place of its finished mask (-1: not decoded yet).
CANDIDATE = np.dtype([("logit", "f4"), ("scale", "i4"), ("row", "i4"), ("col", "i4"), ("tile", "i4"), ("mask", "i4")])


@dataclass(frozen=True)
class Grid:
    """The windows of one rescaled image: cell (row, col) is the P x P window centred at rescaled pixel
    (stride * row, stride * col).

    Attributes:
        image_size: (H, W) of the original.
        rescaled_size: (H, W) after rescaling, without padding.
        patch_size: P in rescaled pixels.
        stride: rescaled pixels between neighbouring windows.
    """

    image_size: tuple[int, int]
    rescaled_size: tuple[int, int]
    patch_size: int
    stride: int

    @property
    def factors(self) -> tuple[float, float]:
        """True scale factors (vertical, horizontal): rescaled pixels for one pixel of the image."""
        return self.rescaled_size[0] / self.image_size[0], self.rescaled_size[1] / self.image_size[1]

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells whose centre lies within the rescaled image or on its edge."""
        return self.rescaled_size[0] // self.stride + 1, self.rescaled_size[1] // self.stride + 1

    @property
    def padded_cells(self) -> tuple[int, int]:
        """Rows and columns after padding by P/2 on every side and then up to a multiple of the stride."""
        return -(-self.rescaled_size[0] // self.stride) + 1, -(-self.rescaled_size[1] // self.stride) + 1

    def windows(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Boxes (N,4) float64 xyxy in image pixels of the whole windows; they may reach beyond the image."""
        tops, bottoms = self._spans(rows, 0)
        lefts, rights = self._spans(cols, 1)
        return np.stack([lefts, tops, rights, bottoms], axis=1)

    def _spans(self, cells: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end of windows along one axis (0 vertical), in image pixels."""
        middle, half = self.stride * np.asarray(cells, np.float64), self.patch_size / 2
        return (middle - half) / self.factors[axis], (middle + half) / self.factors[axis]

    def covered_pixels(self, cells: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """First and one past the last image pixel whose centre lies in the windows, clipped to the image: int64."""
        begin, end = self._spans(cells, axis)
        size = self.image_size[axis]
        first = np.clip(np.ceil(begin - 0.5), 0, size).astype(np.int64)
        last = np.clip(np.ceil(end - 0.5), first, size).astype(np.int64)
        return first, last

    def resampling(
        self, cells: np.ndarray, axis: int, mask_side: int, device: torch.device
    ) -> tuple[np.ndarray, torch.Tensor]:
        """Matrices that resample mask logits onto image pixels along one axis.

        Row i of a matrix gives the weights of the M mask pixels for image pixel first + i: a triangle around the
        pixel's centre, one mask pixel wide to either side when enlarging (bilinear interpolation, constant beyond the
        outermost centres) and one image pixel wide when shrinking (so that no mask pixel is skipped). Rows for pixels
        outside the window or the image are zero.

        Returns: first (N,) int64, weights (N, n, M) float32 with n the largest number of covered pixels.
        """
        first, last = self.covered_pixels(cells, axis)
        step = self.factors[axis] * mask_side / self.patch_size  # mask pixels for one image pixel
        reach = max(1.0, step)
        pixel = first[:, None] + np.arange(int((last - first).max(initial=0)))
        centre = (pixel + 0.5 - self._spans(cells, axis)[0][:, None]) * step
        # Only few weights of a row are not zero: those of the mask pixels next to the centre.
        near = np.floor(centre - 0.5 - reach).astype(np.int64)[:, :, None] + np.arange(1, 2 * int(np.ceil(reach)) + 2)
        weight = (1 - np.abs(near + 0.5 - centre[:, :, None]) / reach).clip(min=0)
        weight *= (near >= 0) & (near < mask_side)
        weight *= ((pixel < last[:, None]) / weight.sum(axis=2).clip(min=1e-6))[:, :, None]
        index = torch.from_numpy(near.clip(0, mask_side - 1)).to(device)
        matrix = torch.zeros((*pixel.shape, mask_side), device=device)
        return first, matrix.scatter_add_(2, index, torch.from_numpy(weight.astype(np.float32)).to(device))


def rescaled_grid(image_size: tuple[int, int], exponent: float, *, patch_size: int, stride: int) -> Grid:
    """The grid of an image rescaled by 2^exponent, each side rounded to whole pixels and at least 1."""
    height, width = (max(1, int(side * 2.0**exponent + 0.5)) for side in image_size)
    return Grid(image_size, (height, width), patch_size, stride)


def select_top(candidates: np.ndarray, count: int) -> np.ndarray:
    """The `count` best of a CANDIDATE array, best first; equal scores in the order of scale, row and column."""
    if len(candidates) > count:
        cut = np.partition(candidates["logit"], len(candidates) - count)[len(candidates) - count]
        candidates = candidates[candidates["logit"] >= cut]
    order = np.lexsort((candidates["col"], candidates["row"], candidates["scale"], -candidates["logit"]))
    return candidates[order[:count]]


def paste_windows(
    mask_logits: torch.Tensor,
    grid: Grid,
    rows: np.ndarray,
    cols: np.ndarray,
    threshold_logit: float,
    *,
    stability_offset: float | None = None,
    chunk_bytes: int = 32_000_000,
) -> EncodedMasks:
    """Resample window masks onto the image's pixels, threshold and encode them; no full-size mask is ever built.

    Args:
        mask_logits: (N,M,M), covering the whole window of each cell.
        grid: the grid of the rescaled image the windows belong to.
        rows, cols: (N,) cells.
        threshold_logit: a pixel is set where its logit is strictly greater.
        stability_offset: compute `stability`, the IoU of the masks at `threshold_logit` plus and minus this (greater
            than 0); one of them lies within the other, so it is the ratio of their areas. 0 where both are empty.
        chunk_bytes: memory for the work on several windows at a time; a single window may need more when it covers
            tens of megapixels.
    """
    side, device = mask_logits.shape[-1], mask_logits.device
    above = (mask_logits.float() - threshold_logit).clamp_(-1e4, 1e4)  # zero weights must not meet infinities
    spans = [grid.covered_pixels(cells, axis) for axis, cells in ((0, rows), (1, cols))]
    h, w = (int((last - first).max(initial=0)) for first, last in spans)
    each = 4 * (2 * (w + h + 1) * side + side * side) + 6 * w * (h + 1)
    step = max(1, chunk_bytes // each)
    parts = []
    for begin in range(0, len(rows), step):
        chunk = slice(begin, begin + step)
        tops, down = grid.resampling(rows[chunk], 0, side, device)  # down (n, h, M)
        lefts, across = grid.resampling(cols[chunk], 1, side, device)  # across (n, w, M)
        down = torch.nn.functional.pad(down, (0, 0, 0, 1))  # a row of zeros, which encode_windows wants
        columns = across @ above[chunk].mT @ down.mT  # (n, w, h + 1)
        part = encode_windows(columns > 0, lefts, tops, grid.image_size)
        if stability_offset is not None:
            pixels = np.prod([(last - first)[chunk] for first, last in spans], axis=0)
            part = replace(part, stability=_stability(columns, stability_offset, pixels))
        parts.append(part)
    return EncodedMasks(
        [rle for part in parts for rle in part.rles],
        np.concatenate([part.boxes for part in parts]) if parts else np.zeros((0, 4), np.float32),
        np.concatenate([part.areas for part in parts]) if parts else np.zeros(0, np.int64),
        None if stability_offset is None else np.concatenate([np.zeros(0, np.float32), *(p.stability for p in parts)]),
    )


def _stability(columns: torch.Tensor, offset: float, pixels: np.ndarray) -> np.ndarray:
    """Area above `offset` by area above its negative, (n,) float32, of logits (n,w,h) of which `pixels` (n,) lie in
    window and image; the others are exactly 0."""
    high = (columns > offset).sum(dim=(1, 2)).cpu().numpy()
    low = (columns > -offset).sum(dim=(1, 2)).cpu().numpy() - (columns[0].numel() - pixels)
    return (high / np.maximum(low, 1)).astype(np.float32)
