"""The one training loop: steps, log, validation, best weights and checkpoints of whatever is learnt."""

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharpmask.errors import DataError, SharpMaskError
from sharpmask.training.checkpoint import save_checkpoint
from sharpmask.training.config import RunConfig, Schedule
from sharpmask.training.distributed import World, sum_gradients
from sharpmask.training.logs import RunLog
from sharpmask.training.optimiser import WeightAverage, build_optimiser, learning_rate, set_learning_rate
from sharpmask.training.stages import Trained


class Task(Protocol):
    """What is learnt, in which steps."""

    @property
    def name(self) -> str:
        """Of the stage, in logs and checkpoints."""
        ...

    @property
    def unit(self) -> str:
        """What a batch is made of: patches, images."""
        ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def network(self) -> nn.Module: ...

    def trained(self) -> Iterator[Trained]:
        """Parameters, with the factors of their learning rates."""
        ...

    def batches(self, first: int) -> Iterable[Any]:
        """This process's part of the batches from step `first` to the last, the same whatever was done before."""
        ...

    def loss(self, step: int, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """This process's share of the loss, to derive, and for the log the whole batch's, "loss" and its parts.

        Whatever is drawn at random is a function of seed and step, so that a resumed run is the same run.
        """
        ...

    def counts(self) -> dict[str, float]:
        """More figures for the log, of all processes; called by all of them."""
        ...

    def validate(self, step: int, log: RunLog) -> tuple[float, dict[str, float]] | None:
        """How good the network is, more being better, and figures for the log; None: there is nothing to measure on.

        Only the first process is asked.
        """
        ...

    def keep_best(self) -> None:
        """Write the weights as they are, the best so far. Only the first process is asked."""
        ...

    def use_best(self) -> None:
        """Take the weights that were kept last."""
        ...


def run_loop(task: Task, config: RunConfig, output: Path, world: World, state: dict[str, Any] | None) -> None:
    """Train to the last step and leave the best validated weights in the network, or the last without validation.

    Args:
        output: folder for log and checkpoints.
        state: a checkpoint to go on from.

    Raises:
        SharpMaskError: the loss is no longer a number, the disk is full, or a process was lost; the run can be resumed.
    """
    schedule = task.schedule
    trained = list(task.trained())
    for parameter in task.network.parameters():
        parameter.requires_grad_(False)
    parameters = [item.parameter for item in trained]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = build_optimiser(schedule, trained)
    average = WeightAverage(parameters, schedule.average)
    first, best = 0, -1.0
    if state is not None:
        task.network.load_state_dict(state["network"])
        first, best = state["step"], state["best"]
        optimiser.load_state_dict(state["optimiser"])
        average.load(state["average"])
    log = RunLog(output, task.name, first=first, steps=schedule.steps, quiet=not world.is_main)
    task.network.train()
    for step, batch in enumerate(_plainly(task.batches(first)), start=first):
        rate = learning_rate(schedule, step)
        set_learning_rate(optimiser, rate, step)
        logged = _step(task, step, batch, optimiser, parameters, world)
        average.update(step)
        log.advance(schedule.batch_size)
        done = step + 1
        last = done == schedule.steps
        if last or done % config.log_every == 0:
            log.scalars(done, {**logged, "learning_rate": rate, f"{task.unit}_per_second": log.rate(), **task.counts()})
        if world.is_main and (last or done % config.validate_every == 0):
            with log.paused():
                average.swap()
                best = _validate(task, done, best, log, last=last)
                average.swap()
                task.network.train()
        if world.is_main and (last or done % config.checkpoint_every == 0):
            progress = {"optimiser": optimiser.state_dict(), "average": average.state()}
            _save(task, config, output, {"step": done, "best": best, **progress})
    task.use_best()
    log.close()


def _step(
    task: Task,
    step: int,
    batch: Any,
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    world: World,
) -> dict[str, float]:
    """One optimiser step; returns the losses."""
    loss, logged = task.loss(step, batch)
    if not math.isfinite(logged["loss"]):  # of the whole batch: every process stops
        raise SharpMaskError(
            f"the loss of '{task.name}' is no longer a number; lower its learning_rate or set its clip, and go on with "
            "--resume from the last checkpoint"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    sum_gradients(parameters, world)
    if task.schedule.clip:
        logged["gradient_norm"] = float(nn.utils.clip_grad_norm_(parameters, task.schedule.clip))
    optimiser.step()
    return logged


def _validate(task: Task, step: int, best: float, log: RunLog, *, last: bool) -> float:
    """Measure the weights and keep them if they are the best so far; returns the best figure."""
    began = time.monotonic()
    found = task.validate(step, log)
    if found is None:
        if last:
            task.keep_best()
        return best
    value, figures = found
    if not value < best:  # also where it is no number
        best = value
        task.keep_best()
    log.scalars(step, {**figures, "validation_seconds": time.monotonic() - began})
    return best


def _save(task: Task, config: RunConfig, output: Path, progress: dict[str, Any]) -> None:
    state = {"stage": task.name, "network": task.network.state_dict(), **progress}
    try:
        save_checkpoint(output, state, config, keep=config.keep_checkpoints)
    except SharpMaskError as error:
        raise type(error)(f"{error}; with that mended, --resume goes on from the checkpoint before") from error


def _plainly(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches; the error of a worker process without the traceback that its message holds."""
    try:
        yield from batches
    except DataError as error:
        raise DataError(str(error).strip().rpartition("\n")[2].rpartition("DataError: ")[2]) from None
