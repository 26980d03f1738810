"""From a network and an image to ranked masks: pyramid, dense run, best windows of all scales, their masks.

Most of the work is the dense run, once per scale. Only the best `top` windows are decoded. Their features are kept
until all scales have been seen; where an image is so large that these would not fit into `feature_bytes`, the windows
that are best so far are decoded early, which gives the same result with some windows decoded in vain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sharpmask.errors import ConfigError, ModelError
from sharpmask.images import MAX_PIXELS, ImageSource, read_image
from sharpmask.proposals.pyramid import TILE_PIXELS, Tile, iterate_tiles, scale_exponents
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import EncodedMasks
from sharpmask.proposals.validity import hide_invalid, valid_cells
from sharpmask.proposals.windows import CANDIDATE, Grid, paste_windows, rescaled_grid, select_top


@dataclass
class _Waiting:
    """The features of one tile (see `pyramid.Tile`) some of whose windows may be decoded later."""

    grid: Grid
    first_cell: tuple[int, int]
    dense: Any
    valid: torch.Tensor | None


class Proposer:
    """Finds the objects in images with one network; `propose` does the work.

    Args:
        network: a DeepMask or SharpMask (see `sharpmask.networks`); it is moved to `device` and set to evaluation mode.
        top: windows to decode, the best over all scales; an upper limit for the number of proposals.
        zoom: 0, 1 or 2 further scales for small objects: 2^1, and 2^`zoom2_exponent`.
        scales: exponents of two in place of -2.5 … 0.5 in half steps; `zoom` adds to them. For windows of another size
            than 160 pixels all but the given ones move (see `pyramid.scale_exponents`).
        zoom2_exponent: the scale that zoom 2 adds.
        threshold: a pixel belongs to the mask where its probability is greater (paper: 0.2 on COCO, 0.1 on Pascal).
        nms: drop masks whose IoU with a better one is greater than this; None keeps all, as the paper does.
        min_score: drop windows whose score (probability) is smaller; they are not decoded.
        min_area, max_area: drop masks of fewer or more pixels of the image. Empty masks are always dropped.
        stability_offset: compute each mask's stability: the IoU of the masks at `threshold` with this much added to
            and taken from its logit, such as 1; None leaves it out.
        device: "cpu", "cuda", "cuda:1", …; None takes CUDA where it is available.
        max_pixels: refuse larger images.
        tile_pixels: rescaled images with more pixels, padding included, are processed in overlapping tiles.
        feature_bytes: memory for the features of windows that are waiting to be decoded.
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
        threshold: float = 0.2,
        nms: float | None = None,
        min_score: float = 0.0,
        min_area: float = 0,
        max_area: float | None = None,
        stability_offset: float | None = None,
        device: str | torch.device | None = None,
        max_pixels: int = MAX_PIXELS,
        tile_pixels: int = TILE_PIXELS,
        feature_bytes: int = 512_000_000,
        decode_batch: int = 128,
    ) -> None:
        self.scales = scale_exponents(zoom, scales, zoom2_exponent, patch_size=network.spec.patch_size)
        self.top, self.threshold, self.nms, self.min_score = _checked(top, threshold, nms, min_score)
        if max_area is not None and max_area < min_area:
            raise ConfigError(f"max_area {max_area:g} is smaller than min_area {min_area:g}: nothing would be left")
        if stability_offset is not None and not stability_offset > 0:
            raise ConfigError(f"stability_offset {stability_offset:g}: must be greater than 0")
        self.min_area, self.max_area, self.stability_offset = min_area, max_area, stability_offset
        if tile_pixels < 512 * 512:
            raise ConfigError(f"tile_pixels {tile_pixels}: must be at least {512 * 512}")
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        self.max_pixels, self.tile_pixels = max_pixels, tile_pixels
        self.feature_bytes, self.decode_batch = feature_bytes, decode_batch

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
        """Rank the objects of one image; the same image gives the same result.

        Args:
            image: a path, PIL image or array (see `sharpmask.images.read_image`).
            top, threshold, nms, min_score: in place of the constructor's values for this image; `nms` 1 keeps all.

        Raises:
            ImageError: the image cannot be read or is too large.
            ModelError: the network gives scores that are no numbers.
            ConfigError: a value outside its range.
        """
        top, threshold, nms, min_score = _checked(
            self.top if top is None else top,
            self.threshold if threshold is None else threshold,
            self.nms if nms is None else nms,
            self.min_score if min_score is None else min_score,
        )
        pixels = read_image(image, max_pixels=self.max_pixels)
        tiles = iterate_tiles(
            pixels,
            self.scales,
            patch_size=self.network.spec.patch_size,
            stride=self.network.spec.stride,
            device=self.device,
            tile_pixels=self.tile_pixels,
        )
        pool, finished = self.search(tiles, top=top, threshold=threshold, min_score=min_score)
        found = self._result(pool, finished, (pixels.shape[0], pixels.shape[1]))
        found = found.filter(min_area=max(1, self.min_area), max_area=self.max_area)
        return found if nms is None else found.nms(nms)

    @torch.inference_mode()
    def search(
        self, tiles: Iterable[Tile], *, top: int, threshold: float, min_score: float
    ) -> tuple[np.ndarray, EncodedMasks]:
        """The best windows of all tiles, decoded: a CANDIDATE array, best first, whose `mask` are places in the masks.

        A tile is needed only until the next one is asked for. Masks are those of the tiles' grids, which may belong to
        images of several sizes.
        """
        threshold_logit, min_logit = _logit(threshold), _logit(min_score)
        pool = np.empty(0, CANDIDATE)
        finished = EncodedMasks([], np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
        waiting: dict[int, _Waiting] = {}
        for number, tile in enumerate(tiles):
            dense = self.network.dense(tile.images)
            pool = select_top(np.concatenate([pool, _candidates(tile, number, dense.score_logits, min_logit)]), top)
            waiting[number] = _Waiting(tile.grid, tile.first_cell, dense, tile.valid)
            wanted = set(pool["tile"][pool["mask"] < 0].tolist())
            waiting = {key: value for key, value in waiting.items() if key in wanted}
            if sum(_dense_bytes(item.dense) for item in waiting.values()) > self.feature_bytes:
                finished = self._decode(pool, finished, waiting, threshold_logit)
                waiting = {}
        return pool, self._decode(pool, finished, waiting, threshold_logit)

    def _decode(
        self, pool: np.ndarray, finished: EncodedMasks, waiting: dict[int, _Waiting], threshold_logit: float
    ) -> EncodedMasks:
        """Decode the windows of `pool` that have no mask yet and note in `pool` where their masks are.

        Masks of windows that are no longer in the pool are forgotten.
        """
        old = np.flatnonzero(pool["mask"] >= 0)
        places = pool["mask"][old]
        rles = [finished.rles[i] for i in places]
        boxes, areas, stability = [finished.boxes[places]], [finished.areas[places]], [_stability(finished)[places]]
        pool["mask"][old] = np.arange(old.size)
        for number, item in waiting.items():
            chosen = np.flatnonzero((pool["tile"] == number) & (pool["mask"] < 0))
            for begin in range(0, chosen.size, self.decode_batch):
                batch = chosen[begin : begin + self.decode_batch]
                rows, cols = pool["row"][batch], pool["col"][batch]
                local = [
                    torch.from_numpy((cells - first).astype(np.int64)).to(self.device)
                    for cells, first in zip((rows, cols), item.first_cell, strict=True)
                ]
                mask_logits = self.network.decode(item.dense, torch.zeros_like(local[0]), *local)
                if item.valid is not None:
                    mask_logits = hide_invalid(mask_logits, item.valid, item.grid, local[0], local[1], threshold_logit)
                encoded = paste_windows(
                    mask_logits, item.grid, rows, cols, threshold_logit, stability_offset=self.stability_offset
                )
                pool["mask"][batch] = len(rles) + np.arange(batch.size)
                rles += encoded.rles
                boxes.append(encoded.boxes)
                areas.append(encoded.areas)
                stability.append(_stability(encoded))
        return EncodedMasks(rles, np.concatenate(boxes), np.concatenate(areas), np.concatenate(stability))

    def _result(self, pool: np.ndarray, finished: EncodedMasks, image_size: tuple[int, int]) -> Proposals:
        """Candidates and their masks as proposals, in the order of the candidates."""
        windows = np.zeros((len(pool), 4), np.float32)
        spec = self.network.spec
        for scale, exponent in enumerate(self.scales):
            grid = rescaled_grid(image_size, exponent, patch_size=spec.patch_size, stride=spec.stride)
            at_scale = pool["scale"] == scale
            windows[at_scale] = grid.windows(pool["row"][at_scale], pool["col"][at_scale])
        return Proposals(
            scores=torch.from_numpy(pool["logit"].copy()).double().sigmoid().float().numpy(),
            boxes=finished.boxes[pool["mask"]],
            rles=[finished.rles[i] for i in pool["mask"]],
            windows=windows,
            scales=np.array(self.scales, np.float32)[pool["scale"]],
            image_size=image_size,
            areas=finished.areas[pool["mask"]],
            stability=None if self.stability_offset is None else _stability(finished)[pool["mask"]],
        )


def pick_device(device: str | torch.device | None) -> torch.device:
    """The named device, or for None CUDA where available and otherwise the CPU; ConfigError when it is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device '{device}' is not available here ({reason}); 'cpu' always is") from error
    return chosen


def _candidates(tile: Tile, number: int, score_logits: torch.Tensor, min_logit: float) -> np.ndarray:
    """The tile's own windows that score at least `min_logit`, as a CANDIDATE array; `score_logits` is (1,h,w)."""
    logits = score_logits[0, tile.rows, tile.cols].float().cpu().numpy()
    if tile.valid is not None:
        seen = valid_cells(tile.valid, tile.grid)[tile.rows, tile.cols].cpu().numpy()
        logits = np.where(seen, logits, -np.inf)
    if np.isnan(logits).any():
        raise ModelError("the network gives scores that are no numbers (NaN): its weights are damaged")
    rows, cols = np.nonzero((logits >= min_logit) & (logits > -np.inf))
    candidates = np.zeros(rows.size, CANDIDATE)
    candidates["logit"] = logits[rows, cols]
    candidates["scale"], candidates["tile"], candidates["mask"] = tile.scale, number, -1
    candidates["row"] = rows + tile.rows.start + tile.first_cell[0]
    candidates["col"] = cols + tile.cols.start + tile.first_cell[1]
    return candidates


def _stability(masks: EncodedMasks) -> np.ndarray:
    return np.zeros(len(masks.rles), np.float32) if masks.stability is None else masks.stability


def _dense_bytes(dense: Any) -> int:
    """Memory of the features that decoding needs."""
    return sum(part.numel() * part.element_size() for part in (dense.encodings, *dense.skips))


def _logit(probability: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(probability) - np.log1p(-probability))


def _checked(top: int, threshold: float, nms: float | None, min_score: float) -> tuple[int, float, float | None, float]:
    """The values, or ConfigError that names the first one outside its range."""
    if top < 1:
        raise ConfigError(f"top {top}: must be at least 1")
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold {threshold:g}: must lie between 0 and 1, both excluded")
    if nms is not None and not 0 <= nms <= 1:
        raise ConfigError(f"nms {nms:g}: must lie between 0 and 1")
    if not 0 <= min_score <= 1:
        raise ConfigError(f"min_score {min_score:g}: must lie between 0 and 1")
    return top, threshold, nms, min_score
