"""One training loop for whatever learns from boxes of images: optimiser, log, checkpoints, validation, best weights.

It is the proposal networks' loop for examples of several sizes and one stage, and uses the same parts.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sharpmask.data.stream import StreamSampler
from sharpmask.detection.config import DetectorConfig
from sharpmask.detection.examples import Example
from sharpmask.errors import SharpMaskError
from sharpmask.training.checkpoint import save_checkpoint
from sharpmask.training.distributed import World, from_main, sum_gradients, sum_over_world
from sharpmask.training.logs import RunLog
from sharpmask.training.optimiser import WeightAverage, build_optimiser, learning_rate, set_learning_rate
from sharpmask.training.stages import Trained


class Task(Protocol):
    """What is learnt."""

    @property
    def name(self) -> str: ...

    @property
    def network(self) -> nn.Module: ...

    @property
    def examples(self) -> Dataset[Example]: ...

    def trained(self) -> Iterator[Trained]:
        """Parameters with the factor of their learning rate."""
        ...

    def losses(self, examples: Sequence[Example]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Sums of the losses over this process's examples, weighted, and for each the count to divide it by."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures of the network as it is; of the first, more is better. Empty: there is nothing to measure on."""
        ...

    def save(self, path: Path, dtype: torch.dtype) -> None: ...

    def load(self, path: Path) -> None: ...


def run_loop(
    task: Task,
    config: DetectorConfig,
    output: Path,
    device: torch.device,
    world: World,
    state: dict[str, Any] | None,
) -> None:
    """Train to the last step and leave the best validated weights in the network, or the last without validation.

    Args:
        state: a checkpoint to go on from.

    Raises:
        SharpMaskError: the loss is no longer a number.
    """
    stage = config.stage()
    trained = list(task.trained())
    for parameter in task.network.parameters():
        parameter.requires_grad_(False)
    parameters = [item.parameter for item in trained]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = build_optimiser(stage, trained)
    average = WeightAverage(parameters, stage.average)
    first, best = 0, -1.0
    if state is not None:
        task.network.load_state_dict(state["network"])
        first, best = state["step"], state["best"]
        optimiser.load_state_dict(state["optimiser"])
        average.load(state["average"])
    log = RunLog(output, task.name, first=first, steps=stage.steps, quiet=not world.is_main)
    task.network.train()
    kept = output / f"{task.name}-best.safetensors"
    for step, batch in enumerate(_batches(task, config, first, device, world), start=first):
        set_learning_rate(optimiser, learning_rate(stage, step), step)
        logged = _step(task, config, step, batch, optimiser, parameters, device, world)
        average.update(step)
        log.advance(stage.batch_size)
        done = step + 1
        last = done == stage.steps
        if last or done % config.log_every == 0:
            rates = {"learning_rate": learning_rate(stage, step), "images_per_second": log.rate()}
            log.scalars(done, {**logged, **rates})
        if world.is_main and (last or done % config.validate_every == 0):
            began = time.monotonic()
            average.swap()
            figures = task.validate()
            value = next(iter(figures.values()), best)
            if not value < best:  # also where there is nothing to measure (nan)
                best = value
                task.save(kept, torch.float32)
            average.swap()
            if figures:
                log.scalars(done, {**figures, "validation_seconds": time.monotonic() - began})
            task.network.train()
        if world.is_main and (last or done % config.checkpoint_every == 0):
            state = {
                "stage": task.name,
                "step": done,
                "best": best,
                "network": task.network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average.state(),
            }
            save_checkpoint(output, state, config)  # type: ignore[arg-type]  # any dataclass will do
    log.close()
    from_main(lambda: None, world)  # the first process may still be writing it
    task.load(kept)
    task.network.eval()


def _step(
    task: Task,
    config: DetectorConfig,
    step: int,
    batch: Sequence[Example],
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    device: torch.device,
    world: World,
) -> dict[str, float]:
    """One optimiser step; returns the losses."""
    # Dropout, like the examples, is a function of seed and step, so that a resumed run is the same run.
    torch.manual_seed((config.seed * 1_000_003 + step) * world.size + world.rank)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        sums, counts = task.losses(batch)
    # Means over the whole batch of all processes, so that the sum of gradients is that of a single process.
    totals = sum_over_world(torch.tensor(list(counts.values()), device=device), world).clamp(min=1.0)
    parts = dict(zip(sums, [s / total for s, total in zip(sums.values(), totals, strict=True)], strict=True))
    loss = torch.stack(list(parts.values())).sum()
    if not torch.isfinite(loss):
        raise SharpMaskError(
            "the loss is no longer a number; lower learning_rate or set clip and go on with --resume from the last "
            "checkpoint"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    sum_gradients(parameters, world)
    logged = {name: float(part.detach()) for name, part in parts.items()}
    if config.clip:
        logged["gradient_norm"] = float(nn.utils.clip_grad_norm_(parameters, config.clip))
    optimiser.step()
    return {"loss": float(loss.detach()), **logged}


def _batches(task: Task, config: DetectorConfig, first: int, device: torch.device, world: World) -> DataLoader[Any]:
    """This process's part of the batches from step `first` on, the same whatever was done before."""
    sampler = StreamSampler(
        start_step=first,
        steps=config.steps - first,
        batch_size=config.batch_size,
        rank=world.rank,
        world_size=world.size,
    )
    return DataLoader(
        task.examples,
        batch_size=sampler.local_batch_size,
        sampler=sampler,
        num_workers=config.workers,
        collate_fn=list,
        prefetch_factor=4 if config.workers else None,
    )
