"""The training run: both stages on one loop, checkpointed, resumable, on one process or many."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from sharpmask.checkpoints.store import load_network, load_state, load_trunk, read_safetensors, save_network
from sharpmask.data.check import assert_trainable
from sharpmask.data.coco import CocoDataset, read_coco
from sharpmask.data.examples import ExampleDataset
from sharpmask.data.folds import fold_ids, without_photos
from sharpmask.data.geometry import CanonicalGeometry
from sharpmask.data.negatives import read_hard_negatives
from sharpmask.data.stream import StreamSampler, part_of_batch
from sharpmask.errors import ConfigError, DataError, SharpMaskError
from sharpmask.files import make_folder
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import set_rows
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec, get_spec
from sharpmask.training.checkpoint import load_checkpoint, remove_leftovers, save_checkpoint
from sharpmask.training.config import TrainConfig
from sharpmask.training.distributed import (
    World,
    from_main,
    join_world,
    leave_world,
    sum_gradients,
    sum_over_world,
    was_restarted,
)
from sharpmask.training.ledger import write_row
from sharpmask.training.logs import RunLog
from sharpmask.training.optimiser import WeightAverage, build_optimiser, learning_rate, set_learning_rate
from sharpmask.training.stages import (
    DeepMaskStage,
    EndToEndStage,
    SharpMaskStage,
    Stage,
    batch_loss,
    score_targets,
    taught,
)
from sharpmask.training.validation import Validator


def train(config: TrainConfig, *, resume: bool = False) -> Path:
    """Train both stages, of a DeepMask the first. Returns the path of the trained model, `output`/model.safetensors.

    Besides it `output` holds checkpoints/ (to resume), deepmask.safetensors and sharpmask.safetensors (the best of each
    stage by the share of validation patches with IoU >= .7, the last where there is no validation), log.jsonl and
    tensorboard/, and ledger.json (see `ledger`).

    Args:
        config: the run.
        resume: go on from the newest whole checkpoint if there is one; otherwise a checkpoint is an error, so that no
            run is lost. A process that torchrun started again resumes in any case.

    Raises:
        SharpMaskError: settings, data or weights that cannot be used, and nothing has been trained then; or the disk is
            full, or the loss no number, and the run can be resumed.
    """
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if config.threads:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    dataset = read_coco(config.annotations)
    if config.fold is not None:
        dataset = without_photos(dataset, fold_ids(dataset, config.fold))
    refined = get_spec(config.model).refinement is not None
    for name, stage in config.stages.items():
        if stage.steps and (refined or name == "deepmask"):
            assert_trainable(dataset, config.images, negatives=stage.batches != "mask")
    world = join_world(device.type)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", world.local_rank)
    try:
        state = from_main(lambda: _open_output(output, config, resume or was_restarted()), world)
        return _Run(config, dataset, output, device, world).train(state)
    finally:
        leave_world()


def _open_output(output: Path, config: TrainConfig, resume: bool) -> dict[str, Any] | None:
    """Make the folder of a run, or clear it of what a kill left. Returns the state to resume from, None if new."""
    make_folder(output)
    remove_leftovers(output)
    state = load_checkpoint(output, config)
    if state is not None and not resume:
        raise ConfigError(f"{output} holds a run already; add --resume to go on with it, or choose another output")
    return state


class _Run:
    """A run in progress: the network and what it is trained with."""

    def __init__(
        self, config: TrainConfig, dataset: CocoDataset, output: Path, device: torch.device, world: World
    ) -> None:
        self.config, self.dataset, self.output, self.device, self.world = config, dataset, output, device, world
        torch.manual_seed(config.seed)
        self.network = initial_network(config).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.redrawn = torch.zeros((), device=device)  # examples that took the place of others, in this session
        self.validator = Validator(config, self.network.spec) if config.val_annotations and world.is_main else None
        self.teacher = load_teacher(config.teacher, self.network.spec).to(device) if config.teacher else None
        self.hard_negatives = read_hard_negatives(config.negatives) if config.negatives else None

    def train(self, state: dict[str, Any] | None) -> Path:
        spec = self.network.spec
        stages: list[Stage] = [DeepMaskStage(self.config.deepmask, spec)]
        if spec.refinement is not None:
            stages.append(SharpMaskStage(self.config.sharpmask, spec))
            stages.append(EndToEndStage(self.config.endtoend, spec))
        if state is not None:
            self.network.load_state_dict(state["network"])
        current = state["stage"] if state is not None else None
        for stage in stages:
            if current is not None and stage.name != current:
                continue  # finished before the run was stopped
            self._train_stage(stage, state if current is not None else None)
            current = None
        result = self.output / "model.safetensors"
        if self.world.is_main:
            save_network(self.network.eval(), result, notes={"trained_with": f"seed {self.config.seed}"})
            write_row(self.config, self.dataset, self.network, self.device, self.validator)
        return result

    def _train_stage(self, stage: Stage, state: dict[str, Any] | None) -> None:
        """Train one stage to its end and leave its best weights in the network."""
        if stage.config.steps == 0:
            return
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        trained = list(stage.trained(self.network))
        parameters = [item.parameter for item in trained]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimiser = build_optimiser(stage.config, trained)
        average = WeightAverage(parameters, stage.config.average)
        first, best = 0, -1.0
        if state is not None:
            first, best = state["step"], state["best"]
            optimiser.load_state_dict(state["optimiser"])
            average.load(state["average"])
        log = RunLog(self.output, stage.name, first=first, steps=stage.config.steps, quiet=not self.world.is_main)
        self.network.train()
        for step, batch in enumerate(_plainly(self._batches(stage, first)), start=first):
            set_learning_rate(optimiser, learning_rate(stage.config, step), step)
            logged = self._step(stage, step, batch, optimiser, parameters)
            average.update(step)
            log.advance(stage.config.batch_size)
            done = step + 1
            if done % self.config.log_every == 0 or done == stage.config.steps:
                logged |= {"learning_rate": learning_rate(stage.config, step), "patches_per_second": log.rate()}
                redrawn = int(sum_over_world(self.redrawn.clone(), self.world))
                log.scalars(done, logged | ({"redrawn_examples": redrawn} if redrawn else {}))
            last = done == stage.config.steps
            if last or done % self.config.validate_every == 0:
                best = self._validate(stage, average, done, best, log, last)
            if last or done % self.config.checkpoint_every == 0:
                self._save(stage, optimiser, average, done, best)
        average.swap()  # the average is the stage's result
        self._use_best(stage)
        log.close()

    def _step(
        self,
        stage: Stage,
        step: int,
        batch: dict[str, torch.Tensor],
        optimiser: torch.optim.Optimizer,
        parameters: list[torch.nn.Parameter],
    ) -> dict[str, float]:
        """One optimiser step; returns the losses."""
        # Dropout, like the examples, is a function of seed, step and place in the batch, so that a resumed run is the
        # same run, and one on many processes that on one.
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        first, rows = part_of_batch(stage.config.batch_size, self.world.rank, self.world.size)
        set_rows(self.network, first if rows else 0, stage.config.batch_size)
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        if rows == 0:  # more processes than rows: this one only keeps in step
            batch |= {name: torch.zeros_like(batch[name]) for name in ("has_mask", "has_score", "redrawn")}
        self.redrawn += batch["redrawn"].sum()
        patches = (batch["patch"].float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16"):
            output = stage.forward(self.network, patches)
            if self.teacher is not None and stage.config.distil:
                batch = taught(batch, self.teacher, patches, stage.config.distil)
        batch = {**batch, "label": score_targets(output, batch, stage.config.score_target)}
        loss, logged = batch_loss(output, batch, stage.config.mask_weight, self.world, stage.config.boundary_weight)
        if not math.isfinite(logged["loss"]):  # of the whole batch: every process stops
            raise SharpMaskError(
                f"the loss of stage {stage.name} is no longer a number; lower {stage.name}.learning_rate or set "
                f"{stage.name}.clip and go on with --resume from the last checkpoint"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        sum_gradients(parameters, self.world)
        if stage.config.clip:
            logged["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(parameters, stage.config.clip))
        optimiser.step()
        return logged

    def _batches(self, stage: Stage, first: int) -> DataLoader[dict[str, torch.Tensor]]:
        """This process's part of the batches from step `first` on, the same whatever was done before."""
        config = stage.config
        dataset = ExampleDataset(
            dataset=self.dataset,
            image_dir=self.config.images,
            seed=self.config.seed + list(self.config.stages).index(stage.name),
            length=config.steps * config.batch_size,
            batch_size=config.batch_size,
            batches=config.batches,
            mask_side=stage.mask_side,
            geometry=CanonicalGeometry(
                patch_size=self.network.spec.patch_size,
                context=self.network.spec.context,
                shift=config.shift,
                negative_shift=config.negative_shift,
                negative_octaves=config.negative_octaves,
            ),
            balance=config.balance,
            augmentation=config.augmentation,
            hard_negatives=self.hard_negatives,
            hard_share=config.hard_negatives,
            cache_bytes=int(self.config.cache_gigabytes * 2**30),
        )
        if self.config.workers:
            dataset.preload()  # once, before the workers fork and share it
        sampler = StreamSampler(
            start_step=first,
            steps=config.steps - first,
            batch_size=config.batch_size,
            rank=self.world.rank,
            world_size=self.world.size,
            idle_allowed=True,
        )
        return DataLoader(
            dataset,
            batch_size=sampler.local_batch_size,
            sampler=sampler,
            num_workers=self.config.workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.config.workers else None,
        )

    def _validate(self, stage: Stage, average: WeightAverage, step: int, best: float, log: RunLog, last: bool) -> float:
        """Measure the averaged weights, keep them if they are the best so far; returns the best share of IoU >= .7."""
        if self.validator is None:
            if last and self.world.is_main:
                average.swap()
                save_network(stage.result(self.network), self._best(stage), dtype=torch.float32)
                average.swap()
            return best
        started = time.monotonic()
        average.swap()
        network = stage.result(self.network)
        scalars = self.validator.patches_scalars(network, self.device)
        scalars |= self.validator.recall_scalars(network, self.device)
        log.pictures(step, self.validator.picture(network, self.device))
        if scalars["share_iou_70"] >= best:
            best = scalars["share_iou_70"]
            save_network(network, self._best(stage), dtype=torch.float32)
        average.swap()
        log.scalars(step, {**scalars, "validation_seconds": time.monotonic() - started})
        self.network.train()
        return best

    def _best(self, stage: Stage) -> Path:
        return self.output / f"{stage.name}.safetensors"

    def _use_best(self, stage: Stage) -> None:
        tensors = from_main(lambda: read_safetensors(self._best(stage))[0], self.world)
        load_state(stage.result(self.network), tensors, self._best(stage))

    def _save(
        self, stage: Stage, optimiser: torch.optim.Optimizer, average: WeightAverage, step: int, best: float
    ) -> None:
        if self.world.is_main:
            state = {
                "stage": stage.name,
                "step": step,
                "best": best,
                "network": self.network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "average": average.state(),
            }
            try:
                save_checkpoint(self.output, state, self.config, keep=self.config.keep_checkpoints)
            except SharpMaskError as error:
                raise type(error)(f"{error}; with that mended, --resume goes on from the checkpoint before") from error


def initial_network(config: TrainConfig) -> DeepMask | SharpMask:
    """The network a run starts with: a trained model's weights, or random ones on an ImageNet trunk.

    A trained model gives as much as fits: all of it; where its refinement has other layers, or it has none, its
    DeepMask, under a new refinement; where its head has other layers, its trunk.

    Raises:
        ConfigError: `start_from` has another trunk.
    """
    spec = get_spec(config.model)
    if config.start_from is None:
        network = build_network(spec)
        if config.trunk_weights is not None:
            load_trunk(network, config.trunk_weights)
        return network
    started, network = load_network(config.start_from), build_network(spec)
    same_trunk = (started.spec.trunk, started.spec.stride_on) == (spec.trunk, spec.stride_on)
    if same_trunk and _shapes(started) == _shapes(network):
        network.load_state_dict(started.state_dict())
        if isinstance(started, SharpMask) and isinstance(network, SharpMask):
            network.crop_first = started.crop_first
    elif same_trunk and _shapes(started.deepmask) == _shapes(network.deepmask):
        network.deepmask.load_state_dict(started.deepmask.state_dict())
    elif same_trunk and _shapes(started.deepmask.trunk) == _shapes(network.deepmask.trunk):
        print(f"start_from={config.start_from}: only its trunk fits '{config.model}'", file=sys.stderr)
        network.deepmask.trunk.load_state_dict(started.deepmask.trunk.state_dict())
    else:
        raise ConfigError(f"start_from={config.start_from} has another trunk than '{config.model}'")
    return network


def load_teacher(name: str, spec: ModelSpec) -> DeepMask | SharpMask:
    """The model to learn from, in evaluation mode; ConfigError where it looks at other windows than the learner."""
    teacher = load_network(name)
    if (teacher.spec.patch_size, teacher.spec.context) != (spec.patch_size, spec.context):
        raise ConfigError(
            f"teacher={name} sees windows of {teacher.spec.patch_size} pixels and '{spec.name}' of {spec.patch_size}: "
            "choose models with equal windows"
        )
    return teacher.eval()


def _plainly(batches: Iterable[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """The batches; the error of a worker process without the traceback that its message holds."""
    try:
        yield from batches
    except DataError as error:
        raise DataError(str(error).strip().rpartition("\n")[2].rpartition("DataError: ")[2]) from None


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
