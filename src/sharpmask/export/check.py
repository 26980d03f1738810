"""An exported graph beside PyTorch: are the windows, scores and masks of real photos the same?"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sharpmask.errors import SharpMaskError
from sharpmask.export.network import logit
from sharpmask.export.pipeline import Settings
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.rle import Rle
from sharpmask.proposals.windows import paste_windows, rescaled_grid

# Pixels (H,W,3) uint8 -> scores, boxes, windows and mask logits.
Runner = Callable[[np.ndarray], tuple[np.ndarray, ...]]

# What may differ. Sums of floats in another order move scores by a millionth, and windows whose scores are that near to
# one another at the end of the list change places; a fault in the geometry changes nearly everything.
LEAST_SAME = 0.97
MOST_SCORE_DIFFERENCE = 0.005
LEAST_MASK_IOU = 0.98


@dataclass(frozen=True)
class Agreement:
    """How alike two results are.

    Attributes:
        count: windows of PyTorch's result.
        same_windows: share of them that the graph has, too.
        score_difference: the largest between probabilities of the same window.
        mask_iou: mean over the same windows, both masks pasted into the image.
    """

    count: int
    same_windows: float
    score_difference: float
    mask_iou: float

    @property
    def good(self) -> bool:
        return (
            self.same_windows >= LEAST_SAME
            and self.score_difference <= MOST_SCORE_DIFFERENCE
            and self.mask_iou >= LEAST_MASK_IOU
        )

    def __str__(self) -> str:
        return (
            f"{self.count} windows, {100 * self.same_windows:.1f} % the same; largest difference of a score "
            f"{self.score_difference:.1g}; mean IoU of the masks {self.mask_iou:.4f}"
        )


def onnx_runner(path: Path) -> Runner:
    """A graph in ONNX Runtime on the CPU; SharpMaskError when it refuses the file."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise SharpMaskError(f"ONNX Runtime cannot load the exported graph: {_first_line(error)}") from error
    return lambda pixels: tuple(session.run(["scores", "boxes", "windows", "mask_logits"], {"image": pixels}))


def openvino_runner(path: Path) -> Runner:
    """A graph in OpenVINO on the CPU, in fp32; SharpMaskError when it refuses the file."""
    import openvino

    core = openvino.Core()
    try:
        compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except Exception as error:
        raise SharpMaskError(f"OpenVINO cannot load the exported graph: {_first_line(error)}") from error

    def run(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        results = compiled({"image": pixels})
        return tuple(results[name] for name in ("scores", "boxes", "windows", "mask_logits"))

    return run


def compare(runner: Runner, network: DeepMask | SharpMask, settings: Settings, pixels: np.ndarray) -> Agreement:
    """Run an image (H,W,3) uint8 through the graph and through PyTorch.

    Raises:
        SharpMaskError: the runtime fails, or the network gives scores that are no numbers.
    """
    proposer = Proposer(
        network,
        scales=settings.scales,
        top=settings.top,
        threshold=settings.threshold,
        ranking="paper",  # the graph gives the network's own scores
        device="cpu",
        tile_pixels=2**40,  # nor does it cut large images into tiles
    )
    expected = proposer.propose(pixels)
    try:
        scores, _, windows, mask_logits = runner(pixels)
    except Exception as error:
        raise SharpMaskError(
            f"the exported graph fails on an image of {pixels.shape[:2]}: {_first_line(error)}"
        ) from error
    rles, areas = pasted(windows, mask_logits, network.spec, settings, pixels.shape[:2])
    theirs = _by_window(expected.windows, np.arange(len(expected)))
    ours = _by_window(windows, np.flatnonzero(areas))  # the proposer leaves empty masks out, too
    pairs = [(place, ours[key]) for key, place in theirs.items() if key in ours]
    differences = [abs(float(expected.scores[a]) - float(scores[b])) for a, b in pairs]
    ious = [float(coco_mask.iou([expected.rles[a]], [rles[b]], [0])[0, 0]) for a, b in pairs]
    return Agreement(
        count=len(theirs),
        same_windows=len(pairs) / max(1, len(theirs), len(ours)) if theirs or ours else 1.0,
        score_difference=max(differences, default=0.0),
        mask_iou=float(np.mean(ious)) if ious else 1.0,
    )


def pasted(
    windows: np.ndarray, mask_logits: np.ndarray, spec: ModelSpec, settings: Settings, image_size: tuple[int, ...]
) -> tuple[list[Rle], np.ndarray]:
    """A graph's masks in the image, as the proposer pastes them: codes and areas (N,) in the order of the windows.

    Raises:
        SharpMaskError: a window that is none of any scale's grid.
    """
    size = (image_size[0], image_size[1])
    rles: list[Rle] = [{"size": list(size), "counts": b""}] * len(windows)
    areas, done = np.zeros(len(windows), np.int64), np.zeros(len(windows), bool)
    for exponent in settings.scales:
        grid = rescaled_grid(size, exponent, patch_size=spec.patch_size, stride=spec.stride)
        factors = np.array([grid.factors[1], grid.factors[0]])
        cells = (windows[:, :2].astype(np.float64) * factors + spec.patch_size / 2) / spec.stride
        whole = np.round(cells).astype(np.int64)
        sides = (windows[:, 2:] - windows[:, :2]) * factors
        here = (abs(cells - whole) < 0.01).all(1) & (abs(sides - spec.patch_size) < 0.1).all(1) & ~done
        places = np.flatnonzero(here)
        if places.size == 0:
            continue
        logits = torch.from_numpy(np.ascontiguousarray(mask_logits[places]))
        masks = paste_windows(logits, grid, whole[places, 1], whole[places, 0], logit(settings.threshold))
        for place, rle in zip(places, masks.rles, strict=True):
            rles[place] = rle
        areas[places], done[places] = masks.areas, True
    if not done.all():
        raise SharpMaskError(f"the exported graph gives a window that no scale has: {windows[~done][0].tolist()}")
    return rles, areas


def synthetic_picture() -> np.ndarray:
    """Coloured discs and boxes on a noisy ground, (330,450,3) uint8, always the same."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:330, :450]
    picture = np.stack([60 + y / 6, 90 + x / 9, 120 - y / 8], axis=2)
    for number in range(10):
        middle, radius = rng.uniform((30, 30), (300, 420)), rng.uniform(12, 70)
        distance = np.stack([abs(y - middle[0]), abs(x - middle[1])])
        inside = (np.hypot(*distance) if number % 2 else distance.max(axis=0)) < radius
        picture[inside] = rng.uniform(0, 255, 3)
    return (picture + rng.normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)


def _by_window(windows: np.ndarray, places: np.ndarray) -> dict[tuple[float, ...], int]:
    """Window and how often it was seen before -> place; small images have the same window at several scales."""
    seen: Counter[tuple[float, ...]] = Counter()
    found: dict[tuple[float, ...], int] = {}
    for place in places.tolist():
        key = tuple((np.round(windows[place].astype(np.float64), 1) + 0.0).tolist())
        found[(*key, seen[key])] = place
        seen[key] += 1
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


RUNNERS: dict[str, Callable[[Path], Runner]] = {"onnx": onnx_runner, "openvino": openvino_runner}
