"""Losses, schedules, the weight average and the configuration."""

import math

import pytest
import torch
import torch.nn.functional as F

from sharpmask.errors import ConfigError
from sharpmask.networks.deepmask import PatchOutput
from sharpmask.training.config import StageConfig, TrainConfig, config_file
from sharpmask.training.distributed import World
from sharpmask.training.losses import mask_loss_sum, score_loss_sum
from sharpmask.training.optimiser import WeightAverage, build_optimiser, learning_rate, set_learning_rate
from sharpmask.training.stages import Trained, batch_loss


def test_mask_loss_is_the_logistic_loss_of_positives() -> None:
    logits, target = torch.randn(3, 8, 8), (torch.rand(3, 8, 8) > 0.5).to(torch.uint8)
    has_mask = torch.tensor([1.0, 0.0, 1.0])
    sign = target.float() * 2 - 1
    expected = sum(torch.log1p(torch.exp(-sign[i] * logits[i])).mean() for i in (0, 2))
    torch.testing.assert_close(mask_loss_sum(logits, target, has_mask), expected)


def test_mask_loss_upsamples_coarse_logits() -> None:
    coarse = torch.full((1, 4, 4), 5.0)
    target = torch.ones(1, 8, 8)
    torch.testing.assert_close(mask_loss_sum(coarse, target, torch.ones(1)), torch.tensor(math.log1p(math.exp(-5))))


def test_score_loss_counts_labelled_patches_only() -> None:
    logits, label = torch.tensor([2.0, -1.0, 9.0]), torch.tensor([1.0, 0.0, 0.0])
    expected = math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))
    assert score_loss_sum(logits, label, torch.tensor([1.0, 1.0, 0.0])).item() == pytest.approx(expected, rel=1e-5)


def test_batch_loss_weighs_means_and_leaves_out_absent_parts() -> None:
    output = PatchOutput(torch.zeros(4, 8, 8, requires_grad=True), torch.zeros(4, requires_grad=True))
    batch = {
        "mask": torch.ones(4, 8, 8),
        "has_mask": torch.tensor([1.0, 0, 1, 0]),
        "label": torch.ones(4),
        "has_score": torch.ones(4),
    }
    loss, logged = batch_loss(output, batch, 32.0, World())
    assert loss.item() == pytest.approx(33 * math.log(2), rel=1e-5)
    assert logged["mask_loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert logged["loss"] == pytest.approx(loss.item(), rel=1e-5)
    loss, logged = batch_loss(output, {**batch, "has_mask": torch.zeros(4)}, 32.0, World())
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5) and "mask_loss" not in logged
    loss.backward()
    assert output.mask_logits.grad is None and output.score_logits.grad is not None


def test_released_schedule() -> None:
    stage = StageConfig()
    assert [learning_rate(stage, epoch * 4000) for epoch in (0, 49, 50, 119, 120)] == [1e-3, 1e-3, 5e-4, 5e-4, 1e-4]


def test_cosine_with_warmup() -> None:
    stage = StageConfig(steps=100, schedule="cosine", warmup=10, learning_rate=1.0)
    assert learning_rate(stage, 0) == pytest.approx(0.1)
    assert learning_rate(stage, 50) == pytest.approx(0.5)
    assert learning_rate(stage, 100) == pytest.approx(0.0)


def test_the_rate_follows_the_batch_size_where_a_reference_is_given() -> None:
    for batch_size, expected in ((32, 1e-3), (64, 2e-3), (8, 2.5e-4)):
        stage = StageConfig(batch_size=batch_size, reference_batch=32)
        rates = [learning_rate(stage, step) for step in (0, 200_000, 480_000)]
        assert rates == pytest.approx([expected, expected / 2, expected / 10])
    assert learning_rate(StageConfig(batch_size=64), 0) == 1e-3


def test_optimiser_groups() -> None:
    weight, bias, trunk = (torch.nn.Parameter(torch.ones(s)) for s in ((2, 2), (2,), (3, 3)))
    optimiser = build_optimiser(
        StageConfig(optimiser="adamw", weight_decay=0.1),
        [Trained(weight, 1.0), Trained(bias, 1.0), Trained(trunk, 0.3, start=5)],
    )
    found = {(g["factor"], g["start"], g["weight_decay"]) for g in optimiser.param_groups}
    assert found == {(1.0, 0, 0.1), (1.0, 0, 0.0), (0.3, 5, 0.1)}


def test_the_trunk_stays_as_it_is_until_its_start() -> None:
    head, trunk = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimiser = build_optimiser(
        StageConfig(optimiser="adamw", weight_decay=0.1), [Trained(head, 1.0), Trained(trunk, 0.5, start=2)]
    )
    seen = []
    for step in range(3):
        set_learning_rate(optimiser, 0.1, step)
        optimiser.zero_grad()
        (head * trunk).sum().backward()
        optimiser.step()
        seen.append((head.mean().item() < 1, trunk.mean().item() < 1))
    assert seen == [(True, False), (True, False), (True, True)]


def test_weight_average_swaps_in_and_out() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    average = WeightAverage([parameter], 0.5)
    for step, value in enumerate((1.0, 2.0, 3.0)):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(step)
    expected = 0.0
    for step, value in enumerate((1.0, 2.0, 3.0)):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    average.swap()
    assert parameter.item() == pytest.approx(expected)
    average.swap()
    assert parameter.item() == 3.0


def test_no_average_leaves_the_weights() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    average = WeightAverage([parameter], 0.0)
    average.update(0)
    average.swap()
    assert parameter.item() == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deepmask": StageConfig(milestones=(1,), factors=())}, "deepmask.milestones"),
        ({"deepmask": StageConfig(batches="mask")}, "deepmask.batches"),
        ({"sharpmask": StageConfig()}, "sharpmask.batches"),
        ({"deepmask": StageConfig(steps=-1)}, "steps"),
        ({"val_images": "x"}, "together"),
        ({"deepmask": StageConfig(batch_size=0)}, "batch_size"),
        ({"keep_checkpoints": 0}, "keep_checkpoints"),
        ({"validate_every": 0}, "validate_every"),
        ({"log_every": 0}, "log_every"),
        ({"workers": -1}, "workers"),
        ({"cache_gigabytes": -1.0}, "cache_gigabytes"),
        ({"threads": 0}, "threads 0"),
        ({"start_from": "a", "trunk_weights": "b"}, "trunk_weights=b would not be used"),
        ({"endtoend": StageConfig(batches="joint", batch_size=5)}, "endtoend.batch_size must be even"),
        ({"deepmask": StageConfig(clip=-1.0)}, "deepmask.clip must not be negative"),
        ({"deepmask": StageConfig(weight_decay=-1.0)}, "deepmask.weight_decay"),
        ({"deepmask": StageConfig(trunk_start=-1)}, "deepmask.trunk_start"),
        ({"deepmask": StageConfig(average=1.0)}, "deepmask.average must lie"),
        ({"deepmask": StageConfig(momentum=-0.1)}, "deepmask.momentum must lie"),
        ({"deepmask": StageConfig(shift=-1.0)}, "shift"),
        ({"sharpmask": StageConfig(batches="mask", hard_negatives=0.5), "negatives": "n"}, "has no effect"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(annotations="a", images="b", output="c", **settings)


def test_shipped_configs_are_found_by_name() -> None:
    assert config_file("small-cpu").endswith("small-cpu.yaml")
    with pytest.raises(ConfigError, match=r"no config file 'x\.yaml'.*small-cpu"):
        config_file("x.yaml")


def test_gradient_of_one_positive_pixel_has_the_right_sign() -> None:
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    mask_loss_sum(logits, torch.tensor([[[1, 0], [0, 0]]]), torch.ones(1)).backward()
    expected = (torch.sigmoid(logits.detach()) - F.one_hot(torch.tensor([0]), 4).view(1, 2, 2)) / 4
    torch.testing.assert_close(logits.grad, expected)
