"""The plain and the refactored form of the refinement: that they are equal, and what each takes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sharpmask.evaluation.timing import interleaved_times, photo_times
from sharpmask.files import atomic_write
from sharpmask.images import read_image
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.proposer import pick_device
from sharpmask.proposals.pyramid import iterate_tiles
from sharpmask.reproduce.study import Options

COUNTS = (10, 100, 500, 1000)
FORMS = ("plain", "refactored")
_PHOTOS, _TURNS = 3, 2
# What the comparison takes, in photos with 1,000 refactored proposals: the plain form takes several times that.
FORMS_PHOTOS = (_PHOTOS * _TURNS + 1) * len(COUNTS) * 4


@dataclasses.dataclass(frozen=True)
class Forms:
    """Both forms with the same weights.

    Attributes:
        difference: largest difference of two mask logits, in fp32, of all windows of one photo at its own scale.
        largest: largest absolute mask logit among them, to compare it with.
        windows: how many windows that were.
        times: "plain 10", "refactored 10", … -> seconds by part of each run, every photo several times.
    """

    difference: float
    largest: float
    windows: int
    times: dict[str, list[dict[str, float]]]

    def seconds(self, form: str, count: int, part: str) -> np.ndarray:
        """Seconds (runs,) of a part, or of the whole photo ("total"), for so many proposals."""
        return np.array([record[part] for record in self.times[f"{form} {count}"]])


def compare_forms(network: DeepMask | SharpMask, paths: list[Path], folder: Path, options: Options) -> Forms:
    """Compare both forms of a SharpMask on the first photos; kept in `folder`/forms.json."""
    file = folder / "forms.json"
    if file.exists():
        return Forms(**json.loads(file.read_text(encoding="utf-8")))
    assert isinstance(network, SharpMask)
    device = pick_device(options.device)
    plain = SharpMask(dataclasses.replace(network.spec, refinement="plain"))
    plain.load_state_dict(network.state_dict())
    networks = {"plain": plain.to(device).eval(), "refactored": network.to(device).eval()}
    photos = [read_image(path) for path in paths[:_PHOTOS]]
    difference, largest, windows = largest_difference(networks["plain"], networks["refactored"], photos[0])

    def timed(form: str, count: int, pixels: np.ndarray) -> dict[str, float]:
        return photo_times(networks[form], pixels, top=count, device=options.device)

    calls: dict[str, Any] = {
        f"{form} {count}": lambda pixels, form=form, count=count: timed(form, count, pixels)
        for count in COUNTS
        for form in FORMS
    }
    forms = Forms(difference, largest, windows, interleaved_times(calls, photos * _TURNS))
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(forms)) + "\n", encoding="utf-8")
    return forms


@torch.inference_mode()
def largest_difference(plain: SharpMask, refactored: SharpMask, pixels: np.ndarray) -> tuple[float, float, int]:
    """Of all windows of a photo at its own scale: largest difference of two mask logits, largest logit, windows."""
    spec, device = plain.spec, next(plain.parameters()).device
    difference = largest = 0.0
    windows = 0
    for tile in iterate_tiles(pixels, (0.0,), patch_size=spec.patch_size, stride=spec.stride, device=device):
        one, two = plain.dense(tile.images), refactored.dense(tile.images)
        cells = torch.cartesian_prod(*(torch.arange(n, device=device) for n in one.score_logits.shape))
        for chosen in cells.split(64):
            a, b = plain.decode(one, *chosen.T), refactored.decode(two, *chosen.T)
            difference = max(difference, float((a - b).abs().max()))
            largest = max(largest, float(b.abs().max()))
        windows += len(cells)
    return difference, largest, windows
