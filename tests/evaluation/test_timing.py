"""Costs and times by part."""

import dataclasses

import numpy as np
import pytest
import torch

from sharpmask.evaluation.costs import PARTS, model_cost
from sharpmask.evaluation.timing import TIMES, TimedNetwork, interleaved_times, photo_times
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.proposals.proposer import Proposer


def test_costs_of_a_network_that_can_be_counted_by_hand(tiny_spec: ModelSpec) -> None:
    spec = dataclasses.replace(tiny_spec, refinement=None)  # windows of 4 cells, 8 features, 32 encoding, 20 mask side
    cost = model_cost(spec, (64, 96), proposals=10)
    windows, cells = 5 * 7, 8 * 10  # of the photo padded by half a window on all sides
    reduce, encode, masks = cells * 64 * 8, windows * 8 * 16 * 32, 10 * 32 * 400
    assert cost.macs["mask"] == pytest.approx((reduce + encode + masks) / 1e9)
    assert cost.macs["score"] == pytest.approx(windows * (32 * 16 + 16) / 1e9)
    assert cost.macs["refinement"] == 0 and cost.total == pytest.approx(sum(cost.macs.values()))
    assert model_cost(spec, (64, 96), proposals=20).macs["mask"] - cost.macs["mask"] == pytest.approx(masks / 1e9)


def test_the_plain_form_costs_more_for_each_proposal_and_nothing_without(tiny_spec: ModelSpec) -> None:
    def refinement(form: str, proposals: int) -> float:
        spec = dataclasses.replace(tiny_spec, refinement=form)
        return model_cost(spec, (64, 96), proposals).macs["refinement"]

    plain, refactored = ([refinement(form, n) for n in (1, 2, 3)] for form in ("plain", "refactored"))
    assert plain[1] == pytest.approx(2 * plain[0])  # all of it is done for each window
    assert refactored[2] - refactored[1] == pytest.approx(refactored[1] - refactored[0])
    assert plain[1] - plain[0] > 3 * (refactored[1] - refactored[0])
    assert refactored[0] > plain[0]  # the nets over the whole photo


@pytest.mark.parametrize("name", ["deepmask", "refactored", "plain", "multiscale", "head original"])
def test_a_timed_network_gives_the_same_proposals(name: str, tiny_spec: ModelSpec) -> None:
    spec = dataclasses.replace(tiny_spec, refinement=None)
    if name == "head original":
        spec = dataclasses.replace(spec, head="original")
    elif name != "deepmask":
        spec = dataclasses.replace(spec, refinement=name)
    network = build_network(spec).eval()
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    timed = TimedNetwork(network)
    one, two = (Proposer(n, top=30, device="cpu").propose(photo) for n in (network, timed))
    assert np.array_equal(one.scores, two.scores) and one.rles == two.rles
    assert timed.seconds["refinement"] > 0 if spec.refinement is not None else timed.seconds["refinement"] < 1e-3
    assert all(timed.seconds[part] > 0 for part in ("trunk", "mask", "score"))


def test_parts_add_up(tiny_spec: ModelSpec) -> None:
    photo = np.zeros((64, 64, 3), np.uint8)
    times = photo_times(build_network(tiny_spec), photo, top=5, device="cpu")
    assert tuple(times) == TIMES
    assert sum(times[part] for part in (*PARTS, "rest")) == pytest.approx(times["total"])
    assert all(value > 0 for value in times.values())


def test_methods_take_turns() -> None:
    calls: list[tuple[str, str]] = []

    def method(name: str) -> object:
        def call(photo: str) -> dict[str, float]:
            calls.append((name, photo))
            return {"total": float(len(calls))}

        return call

    found = interleaved_times({"a": method("a"), "b": method("b")}, ["x", "y", "x"])  # type: ignore[dict-item]
    # In vain: each once, then the first of them before every photo.
    assert calls == [tuple(pair) for pair in ["ax", "bx", "ax", "bx", "ay", "ay", "by", "ax", "ax", "bx"]]
    assert found == {"a": [{"total": t} for t in (3.0, 6.0, 9.0)], "b": [{"total": t} for t in (4.0, 7.0, 10.0)]}


def test_costs_of_the_whole_table_are_those_of_its_parts() -> None:
    """The figures that the documentation quotes."""
    cost = model_cost(SPECS["deepmask-lite0"])
    assert cost.parameters == 6_120_417
    assert {part: round(value, 2) for part, value in cost.macs.items()} == {
        "trunk": 2.48, "mask": 5.78, "score": 0.67, "refinement": 0.0
    }  # fmt: skip
    assert torch.get_default_device().type == "cpu"
