"""Pictures with holes: where there is no data (nodata, transparency) no window looks for an object and no mask lies.

Shape letters: N windows, P patch side, M mask side, h w grid of windows.
"""

import torch
from torch.nn import functional

from sharpmask.proposals.windows import Grid


def valid_cells(valid: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(h,w) bool: the windows of a padded tile with data in their middle: at least half of the stride x stride square
    around the window's centre, so that single missing pixels do no harm. `valid` is (1,1,Hp,Wp)."""
    begin = (grid.patch_size - grid.stride) // 2
    middles = valid[:, :, begin : valid.shape[2] - begin, begin : valid.shape[3] - begin].float()
    return functional.avg_pool2d(middles, grid.stride)[0, 0] >= 0.5


def hide_invalid(
    mask_logits: torch.Tensor,
    valid: torch.Tensor,
    grid: Grid,
    rows: torch.Tensor,
    cols: torch.Tensor,
    threshold_logit: float,
) -> torch.Tensor:
    """Mask logits (N,M,M) of the windows at cells (rows, cols) of a tile, with no mask where there is no data.

    A logit there is mirrored at the threshold, so that a mask which goes on beyond the edge of the data ends, after
    interpolation, right between the last mask pixel with data and the first without.
    """
    side = grid.patch_size
    windows = valid[0, 0].unfold(0, side, grid.stride).unfold(1, side, grid.stride)[rows, cols]  # (N, P, P)
    seen = functional.adaptive_avg_pool2d(windows[:, None].float(), mask_logits.shape[-1])[:, 0] >= 0.5
    return torch.where(seen, mask_logits, torch.minimum(mask_logits, 2 * threshold_logit - mask_logits))
