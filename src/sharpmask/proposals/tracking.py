"""The same object in one frame after the other: masks are linked where they overlap.

No motion is modelled: an object that moves farther than its own size between two frames that are looked at gets a new
track. Look at more frames then. Shape letters: N masks of a frame, T tracks.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from sharpmask.errors import ConfigError
from sharpmask.proposals.overlaps import Overlaps
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import Rle


@dataclass(frozen=True)
class Tracking:
    """How masks are linked.

    Attributes:
        iou: the least IoU that links two masks, more than 0.
        gap: frames that a track may miss and still go on from its last mask.

    Raises:
        ConfigError: a value outside its range.
    """

    iou: float = 0.4
    gap: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise ConfigError(f"track IoU {self.iou:g}: must be more than 0 and at most 1")
        if self.gap < 0:
            raise ConfigError(f"track gap {self.gap}: must be a number of frames, 0 or more")


@dataclass
class _Last:
    """The last masks of the tracks that may still go on: their ids, and how many frames ago each was seen."""

    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    missed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rles: list[Rle] = field(default_factory=list)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


class Tracker:
    """Gives each mask of a frame the id of a track; `update` takes the frames in turn.

    Pairs of a track's last mask and a mask of the frame are taken from the largest IoU down, each track and each mask
    once; a mask that is left over begins a track. Boxes rule most pairs out before any mask is looked at.
    """

    def __init__(self, settings: Tracking | None = None) -> None:
        self.settings = settings or Tracking()
        self._last = _Last()
        self._next_id = 1

    def update(self, proposals: Proposals) -> Proposals:
        """The proposals of the next frame with their `track_ids`, (N,) int64, counted from 1 in order of appearance."""
        last = self._last
        ids = np.zeros(len(proposals), np.int64)
        seen = np.zeros(last.ids.size, bool)
        for track, mask in self._pairs(proposals):
            ids[mask], seen[track] = last.ids[track], True
        new = np.flatnonzero(ids == 0)
        ids[new] = self._next_id + np.arange(new.size)
        self._next_id += new.size
        kept = np.flatnonzero(~seen & (last.missed < self.settings.gap))
        self._last = _Last(
            np.concatenate([ids, last.ids[kept]]),
            np.concatenate([np.zeros(len(proposals), np.int64), last.missed[kept] + 1]),
            proposals.rles + [last.rles[i] for i in kept],
            np.concatenate([proposals.boxes, last.boxes[kept]]),
            np.concatenate([proposals.areas, last.areas[kept]]),
        )
        return replace(proposals, track_ids=ids)

    def _pairs(self, proposals: Proposals) -> list[tuple[int, int]]:
        """Places in the last masks and in the proposals that belong together; ties go to the earlier places."""
        last, count = self._last, self._last.ids.size
        overlaps = Overlaps(
            last.rles + proposals.rles,
            np.concatenate([last.boxes, proposals.boxes]),
            np.concatenate([last.areas, proposals.areas]),
        )
        ious = overlaps.ious(np.arange(count), count + np.arange(len(proposals)), self.settings.iou)
        tracks, masks = np.nonzero(ious >= self.settings.iou)
        order = np.argsort(-ious[tracks, masks], kind="stable")
        pairs, used_tracks, used_masks = [], set(), set()
        for track, mask in zip(tracks[order].tolist(), masks[order].tolist(), strict=True):
            if track not in used_tracks and mask not in used_masks:
                used_tracks.add(track)
                used_masks.add(mask)
                pairs.append((track, mask))
        return pairs
