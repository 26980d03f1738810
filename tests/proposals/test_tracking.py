"""Tracks: who is who from frame to frame."""

import numpy as np
import pytest
from films import squares
from pycocotools import mask as coco_mask

from sharpmask.errors import ConfigError
from sharpmask.proposals.overlaps import Overlaps
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.tracking import Tracker, Tracking


def frame(number: int, order: tuple[int, ...] = (0, 1)) -> Proposals:
    masks = squares(number)[list(order)]
    return Proposals.from_masks(masks, np.linspace(0.9, 0.8, len(masks)))


def test_two_objects_keep_their_ids_in_any_order() -> None:
    tracker = Tracker()
    assert tracker.update(frame(0)).track_ids.tolist() == [1, 2]
    for number in range(1, 12):
        order = (0, 1) if number % 2 else (1, 0)
        assert tracker.update(frame(number, order)).track_ids.tolist() == [1 + place for place in order]


def test_gaps() -> None:
    """The red square moves by 4 of 24 pixels a frame: after two missing frames IoU is 12/36, after one 16/32."""
    for gap, iou, expected in ((2, 0.3, 1), (1, 0.3, 3), (2, 0.4, 3), (0, 0.3, 3)):
        tracker = Tracker(Tracking(gap=gap, iou=iou))
        tracker.update(frame(0))
        for number in (1, 2):
            assert tracker.update(frame(number, (1,))).track_ids.tolist() == [2]
        assert tracker.update(frame(3)).track_ids.tolist() == [expected, 2]
    tracker = Tracker(Tracking(gap=1))
    tracker.update(frame(0))
    empty = frame(0, ())
    assert tracker.update(empty).track_ids.tolist() == []
    assert tracker.update(frame(0)).track_ids.tolist() == [1, 2]
    for _ in range(2):
        tracker.update(empty)
    assert tracker.update(frame(0)).track_ids.tolist() == [3, 4]


def test_the_best_overlap_wins() -> None:
    """Of two masks on one track the closer one takes it, whatever their scores; the other begins a new one."""
    masks = np.zeros((3, 20, 60), bool)
    masks[0, 5:15, 10:30] = masks[1, 5:15, 14:34] = masks[2, 5:15, 11:31] = True
    tracker = Tracker()
    tracker.update(Proposals.from_masks(masks[:1]))
    assert tracker.update(Proposals.from_masks(masks[1:], [0.9, 0.1])).track_ids.tolist() == [2, 1]


def test_the_same_as_all_pairs() -> None:
    """Against a plain greedy loop over pycocotools' whole IoU matrix, on masks that overlap a lot."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :80]

    def scene() -> Proposals:
        centres = rng.uniform((10, 10), (50, 70), (25, 2))
        radii = rng.uniform(4, 15, 25)
        masks = np.array([np.hypot(y - cy, x - cx) < r for (cy, cx), r in zip(centres, radii, strict=True)])
        return Proposals.from_masks(masks)

    for least in (0.05, 0.3, 0.6):
        before, after = scene(), scene()
        tracker = Tracker(Tracking(iou=least))
        first = tracker.update(before).track_ids
        found = tracker.update(after).track_ids
        ious = coco_mask.iou(before.rles, after.rles, [0] * 25)
        expected = np.zeros(25, int)
        while ious.max() >= least:
            track, mask = np.unravel_index(ious.argmax(), ious.shape)
            expected[mask] = first[track]
            ious[track], ious[:, mask] = -1, -1
        expected[expected == 0] = 26 + np.arange((expected == 0).sum())
        assert found.tolist() == expected.tolist() and len(set(found.tolist())) == 25
        both = [p.rles for p in (before, after)]
        overlaps = Overlaps(
            both[0] + both[1],
            np.concatenate([before.boxes, after.boxes]),
            np.concatenate([before.areas, after.areas]),
        )
        exact = coco_mask.iou(*both, [0] * 25)
        quick = overlaps.ious(np.arange(25), 25 + np.arange(25), least)
        np.testing.assert_allclose(quick[exact >= least], exact[exact >= least])
        assert (quick[exact < least] < least).all()


def test_tracks_go_with_their_masks() -> None:
    found = Tracker().update(frame(0))
    assert found[1:].track_ids.tolist() == [2] and found.filter(min_score=0.85).track_ids.tolist() == [1]
    assert [entry["track_id"] for entry in found.to_coco(7)] == [1, 2]
    assert "track_id" not in frame(0).to_coco(7)[0]


def test_bad_values() -> None:
    for options in ({"iou": 0}, {"iou": 1.5}, {"gap": -1}):
        with pytest.raises(ConfigError, match=next(iter(options)).replace("iou", "IoU")):
            Tracking(**options)
