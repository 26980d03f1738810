"""What a graph has to give, from the package's own parts, with empty masks and in the order of the windows."""

from collections.abc import Sequence

import numpy as np
import torch

from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.pyramid import iterate_tiles
from sharpmask.proposals.windows import CANDIDATE, select_top


@torch.inference_mode()
def propose(
    network: DeepMask | SharpMask, image: np.ndarray, scales: Sequence[float], top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (N,), windows (N,4) and mask logits (N,M,M) of the best windows."""
    spec = network.spec
    tiles = list(
        iterate_tiles(
            image,
            scales,
            patch_size=spec.patch_size,
            stride=spec.stride,
            device=torch.device("cpu"),
            tile_pixels=2**40,
        )
    )
    dense = [network.dense(tile.images) for tile in tiles]
    found = []
    for tile, part in zip(tiles, dense, strict=True):
        logits = part.score_logits[0, tile.rows, tile.cols].numpy()
        candidates = np.zeros(logits.size, CANDIDATE)
        rows, cols = np.indices(logits.shape)
        candidates["logit"], candidates["scale"] = logits.ravel(), tile.scale
        candidates["row"], candidates["col"] = rows.ravel(), cols.ravel()
        found.append(candidates)
    best = select_top(np.concatenate(found), top)
    windows, masks = [], []
    for scale, row, col in zip(best["scale"], best["row"], best["col"], strict=True):
        cell = (torch.tensor([row]), torch.tensor([col]))
        windows.append(tiles[scale].grid.windows(cell[0].numpy(), cell[1].numpy())[0])
        masks.append(network.decode(dense[scale], torch.tensor([0]), *cell)[0].numpy())
    return 1 / (1 + np.exp(-best["logit"])), np.stack(windows), np.stack(masks)
