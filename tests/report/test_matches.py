"""Best matches and missed objects."""

import numpy as np

from sharpmask.report.matches import LIMITS, best_matches


def test_the_best_of_the_first_10_100_and_1000() -> None:
    ious = np.zeros((300, 2))
    ious[3, 0], ious[50, 0], ious[250, 0] = 0.3, 0.6, 0.9
    ious[200, 1] = 0.4
    matches = best_matches(ious)
    assert LIMITS == (10, 100, 1000)
    assert matches.places.tolist() == [[3, -1], [50, -1], [250, 200]]
    assert matches.ious.tolist() == [[0.3, 0], [0.6, 0], [0.9, 0.4]]
    assert matches.missed.tolist() == [2, 1, 1]


def test_an_iou_of_one_half_is_not_enough() -> None:
    assert best_matches(np.array([[0.5, 0.5000001]])).missed.tolist() == [1, 1, 1]


def test_of_equal_proposals_the_better_rank_counts_and_one_may_serve_two_objects() -> None:
    matches = best_matches(np.array([[0.2, 0.6], [0.8, 0.6], [0.8, 0.0]]))
    assert matches.places[-1].tolist() == [1, 0]


def test_without_proposals_or_objects() -> None:
    assert best_matches(np.zeros((0, 3))).missed.tolist() == [3, 3, 3]
    assert best_matches(np.zeros((0, 3))).places.max() == -1
    assert best_matches(np.zeros((5, 0))).missed.tolist() == [0, 0, 0]
