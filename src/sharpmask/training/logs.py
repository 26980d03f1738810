"""Where a run tells how it goes: a progress bar, a JSON-lines log and, if installed, TensorBoard."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm


class RunLog:
    """Progress and scalars of one stage; silent in all processes but the first.

    Args:
        folder: gets log.jsonl (one object a line) and TensorBoard's event files.
        name: of the stage.
        first, steps: first step of this session and number of all steps.
        quiet: show and write nothing.
    """

    def __init__(self, folder: Path, name: str, *, first: int, steps: int, quiet: bool) -> None:
        self.quiet, self.name = quiet, name
        self.path = folder / "log.jsonl"
        self.board: Any = None
        self.bar = tqdm(
            total=steps,
            initial=first,
            desc=name,
            unit="step",
            disable=quiet,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )
        self._since, self._images = time.monotonic(), 0
        if not quiet:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(folder / "tensorboard" / name), purge_step=first)
            except ImportError:
                pass  # an extra; log.jsonl holds the same figures

    def advance(self, images: int) -> None:
        """Count one step of that many patches."""
        self._images += images
        self.bar.update()

    def rate(self) -> float:
        """Patches per second since the last call."""
        now = time.monotonic()
        rate = self._images / max(1e-9, now - self._since)
        self._since, self._images = now, 0
        return rate

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record figures of a step."""
        if self.quiet:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"time": time.time(), "stage": self.name, "step": step, **values}) + "\n")
        shown = {
            k: f"{v:.4g}" for k, v in values.items() if k in ("loss", "patches_per_second", "share_iou_70", "mean_iou")
        }
        self.bar.set_postfix(shown)
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def pictures(self, step: int, image: Tensor) -> None:
        """Record a picture (3, H, W) of sample masks."""
        if self.board is not None:
            self.board.add_image("masks", image, step)

    def close(self) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()
