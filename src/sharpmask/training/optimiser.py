"""Optimiser, learning-rate schedule and running average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sharpmask.training.config import Schedule
from sharpmask.training.stages import Trained


def build_optimiser(config: Schedule, trained: Iterable[Trained]) -> torch.optim.Optimizer:
    """The stage's optimiser; one group for each factor of the learning rate and first step, biases without decay under
    AdamW."""
    groups: dict[tuple[float, int, bool], list[nn.Parameter]] = {}
    for parameter, factor, start in trained:
        decays = config.optimiser == "sgd" or parameter.ndim > 1
        groups.setdefault((factor, start, decays), []).append(parameter)
    described = [
        {"params": parameters, "factor": factor, "start": start, "weight_decay": config.weight_decay if decays else 0.0}
        for (factor, start, decays), parameters in groups.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(described, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(described, lr=config.learning_rate)


def learning_rate(config: Schedule, step: int) -> float:
    """The learning rate of a step, counted from 0.

    It follows the batch size linearly where `reference_batch` is given (Goyal et al., "Accurate, Large Minibatch SGD").
    """
    base = rate = config.learning_rate * (config.batch_size / config.reference_batch if config.reference_batch else 1)
    if config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, config.steps))))
    else:
        for milestone, factor in zip(config.milestones, config.factors, strict=True):
            if step >= milestone:
                rate = base * factor
    return rate * min(1.0, (step + 1) / config.warmup) if config.warmup else rate


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float, step: int) -> None:
    """Give each group its learning rate at a step, counted from 0: nothing before the group's first step."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"] if step >= group["start"] else 0.0


class WeightAverage:
    """Exponential running average of trained parameters; with decay 0 it is the parameters themselves.

    The decay grows from zero over the first steps, so that the average does not remember the random start.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.values = [p.detach().clone() for p in self.parameters] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after a step, counted from 0."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and average; a second call puts them back."""
        for value, parameter in zip(self.values, self.parameters, strict=False):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def state(self) -> list[Tensor]:
        return self.values

    @torch.no_grad()
    def load(self, values: list[Tensor]) -> None:
        for value, saved in zip(self.values, values, strict=True):
            value.copy_(saved)
