"""From a network and an image to ranked masks: pyramid, dense run, best windows of all scales, their masks.

Most of the work is the dense run, once per scale. Only the best `top` windows are decoded, those of all scales in
common batches. Their features are kept until all scales have been seen; where an image is so large that these would not
fit into `feature_bytes`, the windows that are best so far are decoded early, which gives the same result with some
windows decoded in vain.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sharpmask.errors import ConfigError, ModelError
from sharpmask.images import MAX_PIXELS, ImageSource, read_image
from sharpmask.proposals.clock import Clock
from sharpmask.proposals.pyramid import TILE_PIXELS, Tile, iterate_tiles, level_offsets, scale_exponents
from sharpmask.proposals.ranking import DEFAULT_RANKING, STABILITY_OFFSET, check_ranking
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import EncodedMasks, join_encoded
from sharpmask.proposals.validity import hide_invalid, valid_cells
from sharpmask.proposals.windows import CANDIDATE, Grid, paste_windows, rescaled_grid, select_top


@dataclass
class _Waiting:
    """The network's output for one tile (see `pyramid.Tile`), some of whose windows may be decoded later."""

    scale: int
    grid: Grid
    first_cell: tuple[int, int]
    rows: slice
    cols: slice
    valid: torch.Tensor | None
    dense: Any
    ranked: bool = False


class Proposer:
    """Finds the objects in images with one network; `propose` does the work.

    Args:
        network: a DeepMask or SharpMask (see `sharpmask.networks`), which is moved to `device` and set to evaluation
            mode; or one prepared for a runtime, with `spec`, `dense` and `decode` like theirs and its `device`.
        top: windows to decode, the best over all scales; an upper limit for the number of proposals.
        zoom: 0, 1 or 2 further scales for small objects: 2^1, and 2^`zoom2_exponent`.
        scales: exponents of two in place of -2.5 … 0.5 in half steps; `zoom` adds to them. For windows of another size
            than 160 pixels all but the given ones move (see `pyramid.scale_exponents`).
        zoom2_exponent: the scale that zoom 2 adds.
        threshold: a pixel belongs to the mask where its probability is greater (paper: 0.2 on COCO, 0.1 on Pascal).
        ranking: "paper", by the network's scores alone; or "soft", blurred masks and near-copies of better ones further
            down (see `Proposals.ranked`); `stability_offset` is then 1 where none is given.
        nms: drop masks whose IoU with a better one is greater than this; None keeps all, as the paper does.
        min_score: drop windows whose score (probability, as the network gives it) is smaller; they are not decoded.
        min_area, max_area: drop masks of fewer or more pixels of the image. Empty masks are always dropped.
        stability_offset: compute each mask's stability: the IoU of the masks at `threshold` with this much added to
            and taken from its logit, such as 1; None leaves it out.
        device: "cpu", "cuda", "cuda:1", …; None takes CUDA where it is available.
        max_pixels: refuse larger images.
        tile_pixels: rescaled images with more pixels, padding included, are processed in overlapping tiles.
        feature_bytes: memory for the features of windows that are waiting to be decoded.
        border: leave out windows whose centre is nearer than this to the edge of the image, in pixels of each rescaled
            image, and the padding that only they need: half a window (80) means no padding at all. Objects whose middle
            lies there are then found worse. 0, as in the paper, pads by half a window on every side.
        half_steps: search windows of half the distance along the diagonals (8 pixels down and right of each as well),
            which doubles the dense run, most of the work; not for `propose_raster`.
        decode_batch: windows decoded at a time; None: 256 on a CPU, and 512 elsewhere.
        clock: told after each stage of the work, to see where the time goes: "decode" (of the file), "pyramid",
            "dense", "top-N", "refinement" (masks of the best windows), "paste + RLE" and "result".

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
        ranking: str = DEFAULT_RANKING,
        nms: float | None = None,
        min_score: float = 0.0,
        min_area: float = 0,
        max_area: float | None = None,
        stability_offset: float | None = None,
        device: str | torch.device | None = None,
        max_pixels: int = MAX_PIXELS,
        tile_pixels: int = TILE_PIXELS,
        feature_bytes: int = 512_000_000,
        border: int = 0,
        half_steps: bool = False,
        decode_batch: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.scales = scale_exponents(zoom, scales, zoom2_exponent, patch_size=network.spec.patch_size)
        self.top, self.threshold, self.nms, self.min_score = _checked(top, threshold, nms, min_score)
        check_ranking(ranking)
        self.ranking = ranking
        if max_area is not None and max_area < min_area:
            raise ConfigError(f"max_area {max_area:g} is smaller than min_area {min_area:g}: nothing would be left")
        if stability_offset is not None and not stability_offset > 0:
            raise ConfigError(f"stability_offset {stability_offset:g}: must be greater than 0")
        if stability_offset is None and ranking == "soft":
            stability_offset = STABILITY_OFFSET
        self.min_area, self.max_area, self.stability_offset = min_area, max_area, stability_offset
        if tile_pixels < 512 * 512:
            raise ConfigError(f"tile_pixels {tile_pixels}: must be at least {512 * 512}")
        if not 0 <= border <= network.spec.patch_size // 2:
            raise ConfigError(f"border {border}: must lie between 0 and {network.spec.patch_size // 2}, half a window")
        self.border, self.half_steps = border, half_steps
        is_module = isinstance(network, torch.nn.Module)
        self.device = pick_device(device if is_module else network.device)
        self.network = network.to(self.device).eval() if is_module else network
        self.max_pixels, self.tile_pixels = max_pixels, tile_pixels
        self.feature_bytes = feature_bytes
        self.decode_batch = decode_batch or (256 if self.device.type == "cpu" else 512)
        self.clock = clock

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
        if self.clock is not None:
            self.clock.start()
        pixels = read_image(image, max_pixels=self.max_pixels)
        self._lap("decode")
        tiles = iterate_tiles(
            pixels,
            self.scales,
            patch_size=self.network.spec.patch_size,
            stride=self.network.spec.stride,
            device=self.device,
            tile_pixels=self.tile_pixels,
            border=self.border,
            half_steps=self.half_steps,
        )
        pool, masks = self.search(tiles, top=top, threshold=threshold, min_score=min_score)
        found = self._result(pool, masks, (pixels.shape[0], pixels.shape[1]))
        found = found.filter(min_area=max(1, self.min_area), max_area=self.max_area)
        found = found.ranked(self.ranking)
        found = found if nms is None else found.nms(nms)
        self._lap("result")
        return found

    def _lap(self, stage: str) -> None:
        if self.clock is not None:
            self.clock.lap(stage)

    @torch.inference_mode()
    def search(
        self, tiles: Iterable[Tile], *, top: int, threshold: float, min_score: float
    ) -> tuple[np.ndarray, EncodedMasks]:
        """The best windows of all tiles, decoded: a CANDIDATE array, best first, whose `mask` are places in the masks.

        A tile is needed only until the next one is asked for. Masks are those of the tiles' grids, which may belong to
        images of several sizes.
        """
        threshold_logit, min_logit = _logit(threshold), _logit(min_score)
        pool, finished = np.empty(0, CANDIDATE), join_encoded([])
        waiting: dict[int, _Waiting] = {}
        for number, tile in enumerate(tiles):
            self._lap("pyramid")
            dense = self.network.dense(tile.images)
            self._lap("dense")
            place = (tile.scale, tile.grid, tile.first_cell, tile.rows, tile.cols, tile.valid)
            waiting[number] = _Waiting(*place, dense)
            if _dense_bytes(waiting) > self.feature_bytes:
                pool, waiting = self._rank(pool, waiting, top, min_logit)
                if _dense_bytes(waiting) > self.feature_bytes:
                    finished = self._decode(pool, finished, waiting, threshold_logit)
                    waiting = {}
        self._lap("pyramid")
        pool, waiting = self._rank(pool, waiting, top, min_logit)
        return pool, self._decode(pool, finished, waiting, threshold_logit)

    def _rank(
        self, pool: np.ndarray, waiting: dict[int, _Waiting], top: int, min_logit: float
    ) -> tuple[np.ndarray, dict[int, _Waiting]]:
        """The best `top` of the pool and of the tiles that were not ranked yet, and the tiles that they need."""
        pool = select_top(np.concatenate([pool, _candidates(waiting, min_logit)]), top)
        for item in waiting.values():
            item.ranked = True
        wanted = set(pool["tile"][pool["mask"] < 0].tolist())
        self._lap("top-N")
        return pool, {number: item for number, item in waiting.items() if number in wanted}

    def _decode(
        self, pool: np.ndarray, finished: EncodedMasks, waiting: dict[int, _Waiting], threshold_logit: float
    ) -> EncodedMasks:
        """Decode the windows of `pool` that have no mask yet and note in `pool` where their masks are.

        Masks of windows that are no longer in the pool are forgotten.
        """
        old = np.flatnonzero(pool["mask"] >= 0)
        parts = [finished.take(pool["mask"][old])]
        new = np.flatnonzero(pool["mask"] < 0)
        new = new[np.argsort(pool["tile"][new], kind="stable")]
        pool["mask"][np.concatenate([old, new])] = np.arange(len(pool))
        for begin in range(0, new.size, self.decode_batch):
            batch = new[begin : begin + self.decode_batch]
            numbers, starts = np.unique(pool["tile"][batch], return_index=True)
            groups = np.split(batch, starts[1:])
            tiles = [waiting[number] for number in numbers.tolist()]
            places = [self._local(pool[group], item) for group, item in zip(groups, tiles, strict=True)]
            logits = self._mask_logits(tiles, places)
            self._lap("refinement")
            for item, group, (rows, cols), part in zip(
                tiles, groups, places, logits.split([group.size for group in groups]), strict=True
            ):
                if item.valid is not None:
                    part = hide_invalid(part, item.valid, item.grid, rows, cols, threshold_logit)
                cells = pool["row"][group], pool["col"][group]
                parts.append(
                    paste_windows(part, item.grid, *cells, threshold_logit, stability_offset=self.stability_offset)
                )
            self._lap("paste + RLE")
        return join_encoded(parts)

    def _local(self, candidates: np.ndarray, item: _Waiting) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and columns (N,) of candidates, counted in their tile, on the network's device."""
        cells = np.stack([candidates["row"], candidates["col"]]).astype(np.int64) - np.array(item.first_cell)[:, None]
        rows, cols = torch.from_numpy(cells).to(self.device)
        return rows, cols

    def _mask_logits(
        self, tiles: Sequence[_Waiting], places: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        """Mask logits (N,M,M) of windows of several tiles, one tile after the other."""
        windows = [
            (item.dense, torch.zeros_like(rows), rows, cols) for item, (rows, cols) in zip(tiles, places, strict=True)
        ]
        # The plain refinement's crops are of several sizes and cannot be joined.
        if not hasattr(self.network, "crop") or self.network.spec.refinement == "plain":
            return torch.cat([self.network.decode(*part) for part in windows])
        crops = [self.network.crop(*part) for part in windows]
        return self.network.decode_crops([torch.cat(part) for part in zip(*crops, strict=True)])

    def _result(self, pool: np.ndarray, finished: EncodedMasks, image_size: tuple[int, int]) -> Proposals:
        """Candidates and their masks as proposals, in the order of the candidates."""
        windows = np.zeros((len(pool), 4), np.float32)
        spec = self.network.spec
        levels = level_offsets(self.scales, spec.stride, self.half_steps)
        for level, (exponent, offset) in enumerate(levels):
            grid = rescaled_grid(image_size, exponent, patch_size=spec.patch_size, stride=spec.stride, offset=offset)
            at_scale = pool["scale"] == level
            windows[at_scale] = grid.windows(pool["row"][at_scale], pool["col"][at_scale])
        masks = finished.take(pool["mask"])
        if self.stability_offset is not None and masks.stability is None:
            masks = replace(masks, stability=np.zeros(0, np.float32))  # there is no mask at all
        return Proposals(
            scores=torch.from_numpy(pool["logit"].copy()).double().sigmoid().float().numpy(),
            boxes=masks.boxes,
            rles=masks.rles,
            windows=windows,
            scales=np.array([exponent for exponent, _ in levels], np.float32)[pool["scale"]],
            image_size=image_size,
            areas=masks.areas,
            stability=masks.stability,
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


def _candidates(waiting: dict[int, _Waiting], min_logit: float) -> np.ndarray:
    """The own windows of tiles not ranked yet that score at least `min_logit`, as a CANDIDATE array."""
    tiles = [(number, item) for number, item in waiting.items() if not item.ranked]
    maps = [_scores(item) for _, item in tiles]
    # All at once: each fetch from a GPU waits for it.
    logits = torch.cat([part.flatten() for part in maps]).cpu().numpy() if maps else np.zeros(0, np.float32)
    if np.isnan(logits).any():
        raise ModelError("the network gives scores that are no numbers (NaN): its weights are damaged")
    candidates = np.zeros(logits.size, CANDIDATE)
    candidates["logit"], candidates["mask"] = logits, -1
    begin = 0
    for (number, item), part in zip(tiles, maps, strict=True):
        own = candidates[begin : begin + part.numel()]
        own["scale"], own["tile"] = item.scale, number
        rows, cols = np.indices(part.shape)
        own["row"] = (rows + item.rows.start + item.first_cell[0]).ravel()
        own["col"] = (cols + item.cols.start + item.first_cell[1]).ravel()
        begin += part.numel()
    return candidates[(candidates["logit"] >= min_logit) & (candidates["logit"] > -np.inf)]


def _scores(item: _Waiting) -> torch.Tensor:
    """The score logits of a tile's own windows (h,w); minus infinity where there is no data."""
    scores = item.dense.score_logits[0, item.rows, item.cols].float()
    if item.valid is None:
        return scores
    return scores.masked_fill(~valid_cells(item.valid, item.grid)[item.rows, item.cols], -torch.inf)


def _dense_bytes(waiting: dict[int, _Waiting]) -> int:
    """Memory of the features that decoding needs."""
    parts = (part for item in waiting.values() for part in (item.dense.encodings, *item.dense.skips))
    return sum(part.numel() * part.element_size() for part in parts)


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
