"""A proposer for tests of bulk runs: no network, results known from the pixels, and faults asked for by colour.

The top left pixel of a picture says what happens to the process that gets it; see FAULTS. Every other picture gives one
proposal a row of pixels whose red value is above 127, up to three: the row itself, its score the row's mean red / 255.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

# Green value of a top left pixel with red 1 and blue 2, and what it does.
FAULTS = {"kill": 10, "segfault": 20, "hang": 30, "raise": 40, "memory": 50}
SIZE = (12, 16)


@dataclass(frozen=True)
class FakeFactory:
    """Makes the fake proposer.

    Attributes:
        log: file that gets a line for each picture that is begun; None: none.
        seconds: for each picture.
        mark: part of the description, to tell two runs' options apart.
    """

    log: str | None = None
    seconds: float = 0.0
    mark: str = ""

    def describe(self) -> dict[str, Any]:
        return {"fake": self.mark}

    def make(self, device: str | None) -> Callable[[np.ndarray], Any]:
        return self._propose

    def _propose(self, pixels: np.ndarray) -> Any:
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{int(pixels[1, 0, 1]) * 256 + int(pixels[1, 0, 2])}\n")
        red, green, blue = pixels[0, 0].tolist()
        if (red, blue) == (1, 2):
            fail(next((name for name, value in FAULTS.items() if value == green), ""))
        time.sleep(self.seconds)
        rows = np.flatnonzero(pixels[:, :, 0].mean(axis=1) > 127)[:3]
        masks = np.zeros((len(rows), *pixels.shape[:2]), np.uint8)
        masks[np.arange(len(rows)), rows] = 1
        codes = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(rows) else []
        width = float(pixels.shape[1])
        return Lines(
            scores=np.sort(pixels[rows, :, 0].mean(axis=1).astype(np.float32) / 255)[::-1],
            boxes=np.array([[0, row, width, row + 1] for row in rows], np.float32).reshape(-1, 4),
            rles=[{"size": list(pixels.shape[:2]), "counts": code["counts"].decode()} for code in codes],
            areas=np.full(len(rows), pixels.shape[1], np.int64),
            image_size=pixels.shape[:2],
            stability=None,
        )


class Lines(SimpleNamespace):
    """What `sharpmask.proposal_rows` needs of proposals, without torch."""

    def __len__(self) -> int:
        return len(self.rles)


def fail(fault: str) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "segfault":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)
    elif fault == "hang":
        while True:
            time.sleep(60)
    elif fault == "raise":
        raise RuntimeError("a fault that was asked for")
    elif fault == "memory":
        raise MemoryError


def picture(number: int, fault: str | None = None) -> np.ndarray:
    """A small picture (12,16,3) that no other number gives, with number % 4 bright rows or a fault."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[1, 0] = (0, number // 256, number % 256)
    for row in range(number % 4):
        pixels[3 + 2 * row, :, 0] = 200 + row
    if fault is not None:
        pixels[0, 0] = (1, FAULTS[fault], 2)
    return pixels


def write_pictures(folder: Path, count: int, faults: dict[int, str] | None = None) -> list[str]:
    """`00000.png`, … in sub-folders of 100; a fault is one of FAULTS, or "empty", "text" or "cut" for broken files.

    Returns: the names, relative to the folder.
    """
    names = []
    for number in range(count):
        name = f"{number // 100:03d}/{number:05d}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fault = (faults or {}).get(number)
        Image.fromarray(picture(number, fault if fault in FAULTS else None)).save(path)
        if fault == "empty":
            path.write_bytes(b"")
        elif fault == "text":
            path.write_text("no picture")
        elif fault == "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        names.append(name)
    return names


def expected_proposals(numbers: Iterable[int]) -> int:
    return sum(number % 4 for number in numbers)
