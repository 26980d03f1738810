"""A stage of the proposal networks as the loop trains it: its batches, its loss, its validation, its best weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sharpmask.checkpoints.store import load_state, read_safetensors, save_network
from sharpmask.data.coco import CocoDataset
from sharpmask.data.examples import ExampleDataset
from sharpmask.data.geometry import CanonicalGeometry, Window
from sharpmask.data.stream import StreamSampler, part_of_batch
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import set_rows
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.training.config import StageConfig, TrainConfig
from sharpmask.training.distributed import World, from_main, sum_over_world
from sharpmask.training.logs import RunLog
from sharpmask.training.stages import Stage, Trained, batch_loss, score_targets, taught
from sharpmask.training.validation import Validator


@dataclass(frozen=True)
class Means:
    """What all stages of a run share besides the network.

    Attributes:
        validator: in the first process, where there is something to validate on.
        teacher: model to learn from, on the device.
        hard_negatives: windows with their images' ids, see `read_hard_negatives`.
    """

    config: TrainConfig
    dataset: CocoDataset
    device: torch.device
    world: World
    validator: Validator | None = None
    teacher: DeepMask | SharpMask | None = None
    hard_negatives: list[tuple[int, Window]] | None = None


class StageTask:
    """One stage of a run, a `Task` of the loop."""

    unit = "patches"

    def __init__(self, stage: Stage, network: DeepMask | SharpMask, means: Means) -> None:
        self.stage, self.network, self.means = stage, network, means
        self.name: str = stage.name
        self.schedule: StageConfig = stage.config
        self.best = Path(means.config.output) / f"{stage.name}.safetensors"
        self._redrawn = torch.zeros((), device=means.device)

    def trained(self) -> Iterator[Trained]:
        """The stage's parameters."""
        return self.stage.trained(self.network)

    def batches(self, first: int) -> DataLoader[dict[str, Tensor]]:
        """Batches of `ExampleDataset`."""
        run, schedule, world = self.means.config, self.schedule, self.means.world
        dataset = ExampleDataset(
            dataset=self.means.dataset,
            image_dir=run.images,
            seed=run.seed + list(run.stages).index(self.name),
            length=schedule.steps * schedule.batch_size,
            batch_size=schedule.batch_size,
            batches=schedule.batches,
            mask_side=self.stage.mask_side,
            geometry=CanonicalGeometry(
                patch_size=self.network.spec.patch_size,
                context=self.network.spec.context,
                shift=schedule.shift,
                negative_shift=schedule.negative_shift,
                negative_octaves=schedule.negative_octaves,
            ),
            balance=schedule.balance,
            augmentation=schedule.augmentation,
            hard_negatives=self.means.hard_negatives,
            hard_share=schedule.hard_negatives,
            cache_bytes=int(run.cache_gigabytes * 2**30),
        )
        if run.workers:
            dataset.preload()  # once, before the workers fork and share it
        sampler = StreamSampler(
            start_step=first,
            steps=schedule.steps - first,
            batch_size=schedule.batch_size,
            rank=world.rank,
            world_size=world.size,
            idle_allowed=True,
        )
        return DataLoader(
            dataset,
            batch_size=sampler.local_batch_size,
            sampler=sampler,
            num_workers=run.workers,
            pin_memory=self.means.device.type == "cuda",
            prefetch_factor=4 if run.workers else None,
        )

    def loss(self, step: int, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mask and score loss, see `batch_loss`."""
        device, world, teacher = self.means.device, self.means.world, self.means.teacher
        # Dropout, like the examples, is a function of seed, step and place in the batch, so that a resumed run is the
        # same run, and one on many processes that on one.
        torch.manual_seed(self.means.config.seed * 1_000_003 + step)
        first, rows = part_of_batch(self.schedule.batch_size, world.rank, world.size)
        set_rows(self.network, first if rows else 0, self.schedule.batch_size)
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        if rows == 0:  # more processes than rows: this one only keeps in step
            batch |= {name: torch.zeros_like(batch[name]) for name in ("has_mask", "has_score", "redrawn")}
        self._redrawn += batch["redrawn"].sum()
        patches = (batch["patch"].float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.means.config.precision == "bf16"):
            output = self.stage.forward(self.network, patches)
            if teacher is not None and self.schedule.distil:
                batch = taught(batch, teacher, patches, self.schedule.distil)
        batch = {**batch, "label": score_targets(output, batch, self.schedule.score_target)}
        return batch_loss(output, batch, self.schedule.mask_weight, world, self.schedule.boundary_weight)

    def counts(self) -> dict[str, float]:
        """How many examples took the place of others in this session, where any did."""
        redrawn = int(sum_over_world(self._redrawn.clone(), self.means.world))
        return {"redrawn_examples": redrawn} if redrawn else {}

    def validate(self, step: int, log: RunLog) -> tuple[float, dict[str, float]] | None:
        """The share of validation patches with IoU >= .7, and all figures; adds a picture to the log."""
        validator, device = self.means.validator, self.means.device
        if validator is None:
            return None
        network = self.stage.result(self.network)
        figures = validator.patches_scalars(network, device) | validator.recall_scalars(network, device)
        log.pictures(step, validator.picture(network, device))
        return figures["share_iou_70"], figures

    def keep_best(self) -> None:
        """Write `output`/STAGE.safetensors."""
        save_network(self.stage.result(self.network), self.best, dtype=torch.float32)

    def use_best(self) -> None:
        """Take its weights, sent by the first process."""
        tensors = from_main(lambda: read_safetensors(self.best)[0], self.means.world)
        load_state(self.stage.result(self.network), tensors, self.best)
