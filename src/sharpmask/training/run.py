"""The training run: all stages on one loop, checkpointed, resumable, on one process or many."""

import sys
from pathlib import Path
from typing import Any

import torch

from sharpmask.checkpoints.store import load_network, load_trunk, save_network
from sharpmask.data.check import assert_trainable
from sharpmask.data.coco import CocoDataset, read_coco
from sharpmask.data.folds import fold_ids, without_photos
from sharpmask.data.negatives import read_hard_negatives
from sharpmask.errors import ConfigError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec, get_spec
from sharpmask.training.checkpoint import open_run
from sharpmask.training.config import RANDOM_TRUNK, TrainConfig
from sharpmask.training.distributed import World, from_main, in_world, was_restarted
from sharpmask.training.ledger import write_row
from sharpmask.training.loop import run_loop
from sharpmask.training.measure import measured_parts
from sharpmask.training.stages import DeepMaskStage, EndToEndStage, SharpMaskStage, Stage
from sharpmask.training.task import Means, StageTask
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
    if config.threads:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    dataset = read_coco(config.annotations)
    if config.fold is not None:
        dataset = without_photos(dataset, fold_ids(dataset, config.fold))
    refined = get_spec(config.model).refinement is not None
    if config.endtoend.steps and not refined:
        raise ConfigError(f"endtoend.steps={config.endtoend.steps}: '{config.model}' has no refinement to train with")
    for name, stage in config.stages.items():
        if stage.steps and (refined or name == "deepmask"):
            assert_trainable(dataset, config.images, negatives=stage.batches != "mask")
    measured_parts(config)  # what the ledger cannot measure is said now
    with in_world(config.device) as (device, world):
        state = from_main(lambda: open_run(output, config, resume=resume or was_restarted()), world)
        if world.is_main and config.origin is None:
            print(RANDOM_TRUNK, file=sys.stderr)
        return _train(config, dataset, output, device, world, state)


def _train(
    config: TrainConfig,
    dataset: CocoDataset,
    output: Path,
    device: torch.device,
    world: World,
    state: dict[str, Any] | None,
) -> Path:
    """All stages, from a state or from the start."""
    torch.manual_seed(config.seed)
    network = initial_network(config).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    validator = Validator(config, network.spec) if config.val_annotations and world.is_main else None
    means = Means(
        config,
        dataset,
        device,
        world,
        validator=validator,
        teacher=load_teacher(config.teacher, network.spec).to(device) if config.teacher else None,
        hard_negatives=read_hard_negatives(config.negatives) if config.negatives else None,
    )
    stages: list[Stage] = [DeepMaskStage(config.deepmask, network.spec)]
    if network.spec.refinement is not None:
        stages.append(SharpMaskStage(config.sharpmask, network.spec))
        stages.append(EndToEndStage(config.endtoend, network.spec))
    if state is not None:
        names = [stage.name for stage in stages]
        stages = stages[names.index(state["stage"]) :]  # those before it were finished
    for stage in stages:
        if stage.config.steps > 0:
            run_loop(StageTask(stage, network, means), config, output, world, state)
        state = None
    result = output / "model.safetensors"
    if world.is_main:
        save_network(network.eval(), result, notes={"trained_with": f"seed {config.seed}"})
        write_row(config, dataset, network, device, validator)
    return result


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


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}
