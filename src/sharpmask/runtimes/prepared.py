"""A network in a runtime, with what `Proposer` needs of a network."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sharpmask.networks.deepmask import DenseOutput
from sharpmask.networks.layers import crop_windows
from sharpmask.networks.specs import ModelSpec


class Prepared:
    """See `prepare`; `dense`, `crop`, `decode_crops` and `decode` are those of `DeepMask` and `SharpMask`.

    Args:
        spec: of the network.
        runtime, precision, device: what it runs in and on.
        steps: see `Parts`.
        run_dense: images -> scores, encodings, skips.
        run_decode: crops -> mask logits.
        deepmask: the DeepMask within, where it is made of PyTorch modules whose calls can be watched.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        runtime: str,
        precision: str,
        device: torch.device,
        steps: Sequence[int],
        run_dense: Callable[[Tensor], Sequence[Tensor]],
        run_decode: Callable[[Sequence[Tensor]], Tensor],
        deepmask: Any = None,
    ) -> None:
        self.spec, self.runtime, self.precision, self.device = spec, runtime, precision, device
        self.steps, self._dense, self._decode = tuple(steps), run_dense, run_decode
        self.deepmask = deepmask

    def __str__(self) -> str:
        return f"{self.runtime}:{self.precision}"

    def dense(self, images: Tensor) -> DenseOutput:
        """All windows of images (B, 3, H, W) in [0, 1], padded by the caller, sides multiples of the stride."""
        score_logits, encodings, *skips = self._dense(images)
        return DenseOutput(score_logits, encodings, tuple(skips))

    def crop(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> tuple[Tensor, ...]:
        """What `decode_crops` makes the masks of chosen windows from, (N, …) each."""
        skips = (
            crop_windows(skip, batch_index, rows, cols, step=step, side=self.spec.grid_side * step)
            for step, skip in zip(self.steps, dense.skips, strict=True)
        )
        return (dense.encodings[batch_index, :, rows, cols], *skips)

    def decode_crops(self, crops: Sequence[Tensor]) -> Tensor:
        """Mask logits (N, M, M) fp32 of windows that were cropped."""
        return self._decode(crops)

    def decode(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Mask logits (N, M, M) of chosen windows, given as three int64 tensors (N,)."""
        return self.decode_crops(self.crop(dense, batch_index, rows, cols))
