"""The real proposer behind the server: scales by size, settings, and giving up."""

import numpy as np
import pytest

import sharpmask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.pyramid import DEFAULT_SCALES, scale_exponents
from sharpmask.web.engine import fitted_scales, make_propose
from sharpmask.web.jobs import Stopped
from sharpmask.web.schemas import ProposalSettings


def test_small_images_are_searched_as_everywhere() -> None:
    assert fitted_scales(640, ProposalSettings(), 160) == DEFAULT_SCALES
    assert fitted_scales(5000, ProposalSettings(fit=0), 160) == DEFAULT_SCALES
    assert fitted_scales(640, ProposalSettings(zoom=2), 160) == scale_exponents(2)


def test_large_images_are_searched_at_the_scales_of_smaller_ones() -> None:
    scales = fitted_scales(2560, ProposalSettings(), 160)  # four times as large: two octaves down
    assert scales == pytest.approx([scale - 2 for scale in DEFAULT_SCALES])
    assert min(fitted_scales(10**6, ProposalSettings(fit=1), 160)) == -8  # the proposer's limit


def test_the_proposer_gets_the_settings(tiny_spec: ModelSpec) -> None:
    network = SharpMask(tiny_spec).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    settings = ProposalSettings(top=9, threshold=0.4, nms=0.7, zoom=1)
    found = make_propose(network, "cpu")(pixels, settings, lambda: False)
    expected = Proposer(network, zoom=1, device="cpu").propose(pixels, top=9, threshold=0.4, nms=0.7)
    assert len(found) > 0 and found.rles == expected.rles
    assert np.array_equal(found.scores, expected.scores)
    assert len(make_propose(network, "cpu")(pixels, ProposalSettings(min_score=1), lambda: False)) == 0


@pytest.mark.parametrize("asked", [1, 3, 8])
def test_work_is_given_up_between_its_pieces(tiny_spec: ModelSpec, asked: int) -> None:
    network = SharpMask(tiny_spec).eval()
    questions = 0

    def stop() -> bool:
        nonlocal questions
        questions += 1
        return questions == asked

    pixels = np.zeros((90, 120, 3), np.uint8)
    with pytest.raises(Stopped):
        make_propose(network, "cpu")(pixels, ProposalSettings(top=20), stop)
    assert questions == asked


def test_unknown_device() -> None:
    with pytest.raises(sharpmask.SharpMaskError, match="device 'abacus'"):
        make_propose(None, "abacus")
