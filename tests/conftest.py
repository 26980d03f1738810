"""What tests share: seeds, the folder of real data, tiny networks, a browser."""

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sharpmask.networks.specs import SPECS, ModelSpec

if "PYTEST_XDIST_WORKER" in os.environ:
    # The other cores have tests of their own; threads that wait for each other would only slow all down.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

with suppress(ImportError):
    # TensorBoard's logging takes stderr as it finds it, pytest's own, and closes it when logging is set up anew.
    from absl import logging as absl_logging

    absl_logging.get_absl_handler().python_handler.setStream(io.StringIO())

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shared() -> Path:
    """The folder of real photos, weights and recordings that lies beside the repository, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real data, which is not here")
    return SHARED


@pytest.fixture
def examples() -> Path:
    """The photos that come with the repository."""
    return Path(__file__).parents[1] / "examples"


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """Within the block the system lets no file grow beyond a number of bytes, much as a full disk does."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def tiny_spec() -> ModelSpec:
    """SharpMask at a sixteenth of the channels and 64-pixel windows: the real structure, in milliseconds."""
    return dataclasses.replace(
        SPECS["sharpmask-resnet50"],
        trunk_width=4,
        patch_size=64,
        features=8,
        encoding=32,
        mask_side=20,
        score_hidden=16,
        refinement_width=16,
        horizontal_width=8,
    )


@pytest.fixture
def small() -> Callable[[ModelSpec], ModelSpec]:
    """Shrinks any row of the table to an eighth of the trunk's channels and windows of 3 or 4 cells, odd as the row's
    own or even, in patches of which every structure is still there.
    """

    def shrink(spec: ModelSpec) -> ModelSpec:
        return dataclasses.replace(
            spec,
            trunk_width=8,
            patch_size=spec.stride * (3 if spec.grid_side % 2 else 4),
            features=None if spec.features is None else 8,
            encoding=16,
            mask_side=12,
            score_hidden=8,
            horizontal_width=8,
        )

    return shrink


@pytest.fixture(
    scope="module"
)  # while Playwright runs, tests in the same process cannot have an event loop of their own
def browser() -> Iterator[Any]:
    """A Chromium that runs without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as running:
        try:
            opened = running.chromium.launch(executable_path=installed, args=["--no-sandbox"], timeout=180_000)
        except playwright.Error as error:
            pytest.skip(f"no Chromium that starts here: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six noisy photos of 200 x 240 with two ellipses each; `instances.json` beside them."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(3)
    images, annotations = [], []
    for number in range(1, 7):
        photo = Image.fromarray(rng.integers(60, 120, (200, 240, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(photo)
        for side in range(2):
            x, y, a, b = 60 + 110 * side, rng.integers(60, 140), rng.integers(20, 45), rng.integers(20, 45)
            colour = tuple(int(c) for c in rng.integers(150, 255, 3))
            draw.ellipse([x - a, y - b, x + a, y + b], fill=colour)
            turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            polygon = np.stack([x + 0.5 + a * np.cos(turn), y + 0.5 + b * np.sin(turn)], axis=1).round(2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1 + side,
                    "iscrowd": 0,
                    "segmentation": [polygon.flatten().tolist()],
                    "area": float(np.pi * a * b),
                    "bbox": [float(x - a), float(y - b), float(2 * a), float(2 * b)],
                }
            )
        photo.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 200, "width": 240})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder
