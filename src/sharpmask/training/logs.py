"""Where a run tells how it goes: a progress bar, a JSON-lines log and, if installed, TensorBoard."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from sharpmask.errors import SharpMaskError
from sharpmask.training.checkpoint import LOG

# In the progress bar.
_SHOWN = ("loss", "patches_per_second", "images_per_second", "share_iou_70", "mean_iou", "box_ap")


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
        self.path = folder / LOG
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
            drop_half_line(self.path)
            try:
                from torch.utils.tensorboard import SummaryWriter

                self.board = SummaryWriter(str(folder / "tensorboard" / name), purge_step=first)
            except ImportError:
                pass  # an extra; log.jsonl holds the same figures

    def advance(self, images: int) -> None:
        """Count one step of that many patches or images."""
        self._images += images
        self.bar.update()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no training: its time does not count in `rate`."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def rate(self) -> float:
        """Patches or images per second since the last call."""
        now = time.monotonic()
        rate = self._images / max(1e-9, now - self._since)
        self._since, self._images = now, 0
        return rate

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record figures of a step."""
        if self.quiet:
            return
        with _disk(self.path), self.path.open("a") as file:
            file.write(json.dumps({"time": time.time(), "stage": self.name, "step": step, **values}) + "\n")
        self.bar.set_postfix({name: f"{values[name]:.4g}" for name in _SHOWN if name in values})
        if self.board is not None:
            with _disk(self.path.parent / "tensorboard"):
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)

    def pictures(self, step: int, image: Tensor) -> None:
        """Record a picture (3, H, W) of sample masks."""
        if self.board is not None:
            with _disk(self.path.parent / "tensorboard"):
                self.board.add_image("masks", image, step)

    def close(self) -> None:
        self.bar.close()
        if self.board is not None:
            with _disk(self.path.parent / "tensorboard"):
                self.board.close()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Around a write: a full or broken disk in words."""
    try:
        yield
    except OSError as error:
        raise SharpMaskError(
            f"cannot write {path}: {error.strerror or error}; go on with --resume when this is mended"
        ) from error


def drop_half_line(path: Path) -> None:
    """Cut off what a killed writer left at the end of a file of lines."""
    if not path.exists():
        return
    with _disk(path), path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
