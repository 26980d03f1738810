"""Masks with known answers, and a rasteriser that shares no code with the package."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharpmask.formats import FormatOptions, open_formats
from sharpmask.proposals.folder import Photo
from sharpmask.proposals.result import Proposals

SIZE = (31, 47)


def known_masks() -> dict[str, np.ndarray]:
    masks = {}
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]

    def add(name: str, mask: np.ndarray) -> None:
        masks[name] = mask.astype(bool)

    add("l", ((x >= 3) & (x < 6) & (y >= 2) & (y < 20)) | ((x >= 3) & (x < 30) & (y >= 17) & (y < 20)))
    add("ring", (np.hypot(x - 22, y - 15) < 12) & (np.hypot(x - 24, y - 14) > 5))
    add("thin ring", (abs(x - 20) <= 9) & (abs(y - 15) <= 7) & ~((abs(x - 20) <= 8) & (abs(y - 15) <= 6)))
    add("slit", (abs(x - 20) <= 9) & (abs(y - 15) <= 7) & ~((y == 15) & (abs(x - 20) <= 7)))
    add("island", (np.hypot(x - 22, y - 15) < 13) & ~((np.hypot(x - 22, y - 15) < 9) & (np.hypot(x - 22, y - 15) > 3)))
    add("parts", (np.hypot(x - 8, y - 8) < 6) | (np.hypot(x - 36, y - 20) < 8) | ((x == 20) & (y == 28)))
    add("frame", (x == 0) | (y == 0) | (x == SIZE[1] - 1) | (y == SIZE[0] - 1))
    add("all", x >= 0)
    add("pixel", (x == 40) & (y == 4))
    add("corner pixels", ((x == 0) & (y == 0)) | ((x == SIZE[1] - 1) & (y == SIZE[0] - 1)))
    add("diagonal", (x == y) & (x < 9))
    add("chessboard", (x + y) % 2 == 0)
    add("touching holes", (abs(x - 20) <= 5) & (abs(y - 15) <= 5) & ~((x == y + 5) & (abs(x - 20) <= 2)))
    add("noise", np.random.default_rng(3).random(SIZE) < 0.6)
    return masks


def fill(rings: Sequence[np.ndarray], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Even-odd filling of all rings (n,2) together: the pixels whose centre has an odd number of edges to its right."""
    inside = np.zeros(size, bool)
    px, py = np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5
    for ring in rings:
        ring = np.asarray(ring, float).reshape(-1, 2)
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            rows = (py > min(y0, y1)) & (py < max(y0, y1))
            at = x0 + (py[rows] - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= px[None] < at[:, None]
    return inside


@pytest.fixture
def masks() -> np.ndarray:
    return np.array(list(known_masks().values()))


@pytest.fixture
def proposals(masks: np.ndarray) -> Proposals:
    return Proposals.from_masks(masks, np.linspace(0.9, 0.1, len(masks)))


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    path = tmp_path / "photos" / 'Zoë & "Co".png'
    path.parent.mkdir()
    Image.new("RGB", (SIZE[1], SIZE[0]), (80, 90, 100)).save(path)
    record = {"id": 7, "file_name": path.as_posix(), "width": SIZE[1], "height": SIZE[0]}
    return Photo(path, path.stem, record)


@pytest.fixture
def save(tmp_path: Path, photo: Photo, proposals: Proposals) -> Callable[..., Path]:
    """Write the known masks, then none for a second photo, in one format; gives the folder."""

    def run(name: str, **options: object) -> Path:
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        empty = Photo(photo.path, "empty", {**photo.record, "id": 8, "file_name": "empty.png"})
        with open_formats([name], folder, FormatOptions(**options)) as write:  # type: ignore[arg-type]
            write(photo, proposals)
            write(empty, proposals[:0])
        return folder

    return run


@pytest.fixture(name="fill")
def _fill() -> Callable[..., np.ndarray]:
    return fill
