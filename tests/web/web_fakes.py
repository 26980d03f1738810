"""A model with known answers, a server in a thread, and pictures as bytes."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from sharpmask.proposals.result import Proposals
from sharpmask.web.jobs import Stop, Stopped
from sharpmask.web.schemas import ProposalSettings

Connect = Callable[..., TestClient]

# Shares of the picture: left, top, right, bottom; score. Three nested boxes, one that nearly repeats the largest, and
# one apart, best first.
BOXES = [
    ((0.10, 0.10, 0.60, 0.90), 0.99),
    ((0.11, 0.10, 0.60, 0.90), 0.95),
    ((0.20, 0.20, 0.50, 0.60), 0.90),
    ((0.70, 0.30, 0.90, 0.80), 0.70),
    ((0.30, 0.30, 0.40, 0.40), 0.40),
]


def known_masks(height: int, width: int) -> np.ndarray:
    """(5,H,W) bool: `BOXES` in pixels; at least a pixel each."""
    masks = np.zeros((len(BOXES), height, width), bool)
    for mask, ((left, top, right, bottom), _) in zip(masks, BOXES, strict=True):
        rows = slice(int(top * height), max(int(bottom * height), int(top * height) + 1))
        mask[rows, int(left * width) : max(int(right * width), int(left * width) + 1)] = True
    return masks


class FakeModel:
    """Finds `BOXES` in every picture. While `gate` is closed it waits, as a slow model does; it stops when nobody waits
    for it, unless it is `stubborn`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.stubborn = False
        self.seen: list[tuple[tuple[int, ...], ProposalSettings]] = []

    def __call__(self, pixels: np.ndarray, settings: ProposalSettings, stop: Stop) -> Proposals:
        self.seen.append((pixels.shape, settings))
        self.began.release()
        while not self.gate.wait(0.01):
            if stop() and not self.stubborn:
                self.stopped.set()
                raise Stopped
        found = Proposals.from_masks(known_masks(*pixels.shape[:2]), [score for _, score in BOXES])
        found = found.filter(min_score=settings.min_score)[: settings.top]
        return found.nms(settings.nms) if settings.nms < 1 else found


def encoded(width: int = 60, height: int = 40, kind: str = "PNG", **options: object) -> bytes:
    """A picture of random pixels, so that no two files are alike in size by chance."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Come back when the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.005)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """A real server on a free port; gives its address, such as http://127.0.0.1:4711."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
