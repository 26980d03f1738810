"""A row at work: proposals of a photo, and where their time goes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.checkpoints import load_network
from sharpmask.checkpoints.published import PUBLISHED, published_path
from sharpmask.errors import ConfigError
from sharpmask.evaluation.baselines import selective_search
from sharpmask.evaluation.inputs import Record
from sharpmask.evaluation.timing import clock, photo_times
from sharpmask.files import file_digest
from sharpmask.images import read_image
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import SPECS
from sharpmask.proposals.proposer import Proposer
from sharpmask.reproduce.study import SELECTIVE_SEARCH, Options, Row

TOP = 1000
# More windows than any photo has.
ALL_WINDOWS = 10**7


@dataclass(frozen=True)
class Method:
    """What a row is to its measurements.

    Attributes:
        propose: path and id of a photo -> COCO results.
        times: pixels (H, W, 3) of a photo -> seconds by part, for 1,000 proposals.
        iou_types: what its proposals have, "bbox" and "segm" or the former alone.
    """

    propose: Callable[[Path, Any], Sequence[Record]]
    times: Callable[[np.ndarray], dict[str, float]]
    iou_types: tuple[str, ...]


def load_row(row: Row) -> DeepMask | SharpMask:
    """The network of a row that is loaded as it is.

    Raises:
        ConfigError: there is no such model, or it is no SharpMask where one is wanted.
    """
    network = load_network(row.model)
    if row.coarse:
        return network.deepmask
    if not isinstance(network, SharpMask):
        raise ConfigError(f"'{row.model}' is a DeepMask, without refinement; give a SharpMask")
    return network


def weights_digest(source: str) -> str:
    """SHA-256 of a model's weights, given by their file or by a name; the name itself where there is no file."""
    path = Path(source)
    spec = SPECS.get(source)
    if source in PUBLISHED:
        path = published_path(source) or path
    elif spec is not None and spec.weights is not None:
        path = Path(str(resources.files("sharpmask") / "weights" / spec.weights))
    return file_digest(path) if path.is_file() else source


def open_method(
    row: Row, options: Options, *, network: DeepMask | SharpMask | None = None, unlimited: bool = False
) -> Method:
    """The row's method, with `network` or the model that it names.

    Args:
        unlimited: propose the masks of all windows rather than of the best 1,000.
    """
    if row.model == SELECTIVE_SEARCH:
        return Method(_boxes, _box_times, ("bbox",))
    chosen = load_row(row) if network is None else network
    settings: dict[str, Any] = {"zoom": row.zoom, "ranking": "paper", "device": options.device}
    proposer = Proposer(chosen, top=ALL_WINDOWS if unlimited else TOP, **settings)
    return Method(
        lambda path, image_id: proposer.propose(path).to_coco(image_id),
        lambda pixels: photo_times(chosen, pixels, top=TOP, **settings),
        ("bbox", "segm"),
    )


def _boxes(path: Path, image_id: Any) -> list[Record]:
    boxes, scores = selective_search(read_image(path), top=TOP)
    return [
        {"image_id": image_id, "bbox": box, "score": score}
        for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
    ]


def _box_times(pixels: np.ndarray) -> dict[str, float]:
    began = clock()
    selective_search(pixels, top=TOP)
    return {"total": clock() - began}
