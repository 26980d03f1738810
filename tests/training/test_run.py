"""Whole runs: both stages, and bad input. Kills and several processes are in test_processes.py."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from short_runs import short_run, short_stage

from sharpmask.checkpoints import load_network
from sharpmask.checkpoints.store import read_safetensors
from sharpmask.errors import ConfigError, DataError, SharpMaskError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.training.run import initial_network, train


def log_of(output: Path) -> list[dict[str, float]]:
    text = (output / "log.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # not one that is half written


def assert_same_weights(first: Path, second: Path) -> None:
    """Bit for bit, in the files of two runs."""
    a, b = (read_safetensors(folder / "model.safetensors")[0] for folder in (first, second))
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run with validation."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    train(
        short_run(
            shapes, output, val_annotations=str(shapes / "instances.json"), val_images=str(shapes), validation_photos=1
        )
    )
    return output


def test_a_run_makes_a_model_of_both_stages(finished: Path) -> None:
    network = load_network(finished / "model.safetensors")
    assert isinstance(network, SharpMask) and not network.training
    coarse = load_network(finished / "deepmask.safetensors")
    assert isinstance(coarse, DeepMask)
    # Stage 2 leaves the forward path alone (fp16 in the model file).
    for name, tensor in coarse.state_dict().items():
        torch.testing.assert_close(
            network.deepmask.state_dict()[name], tensor.half().float() if tensor.ndim > 1 else tensor
        )


def test_both_stages_change_their_weights(shapes: Path, finished: Path) -> None:
    torch.manual_seed(0)
    before = initial_network(short_run(shapes, finished)).state_dict()
    after, _ = read_safetensors(finished / "model.safetensors")
    for part in (
        "deepmask.trunk.blocks",
        "deepmask.encoder",
        "deepmask.mask_head",
        "deepmask.score_head",
        "refinement",
    ):
        changed = [
            k for k in before if k.startswith(part) and not torch.allclose(before[k], after[k].float(), atol=2e-4)
        ]
        assert changed, part
    assert torch.equal(before["deepmask.trunk.conv_stem.scale"], after["deepmask.trunk.conv_stem.scale"])


def test_the_log_holds_losses_rates_and_validation(finished: Path) -> None:
    log = log_of(finished)
    steps = [(entry["stage"], entry["step"]) for entry in log if "loss" in entry]
    assert steps == [("deepmask", 1), ("deepmask", 2), ("deepmask", 3), ("sharpmask", 1), ("sharpmask", 2)]
    measured = [entry for entry in log if "share_iou_70" in entry]
    assert [entry["stage"] for entry in measured] == ["deepmask", "sharpmask"]
    assert {"mean_iou", "median_iou", "share_iou_50", "score_auroc", "mask_ar_100"} <= set(measured[0])


def test_tensorboard_gets_scalars_and_pictures(finished: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(finished / "tensorboard" / "sharpmask"))
    events.Reload()
    assert {"loss", "mask_loss", "learning_rate", "share_iou_70"} <= set(events.Tags()["scalars"])
    assert [entry.step for entry in events.Scalars("loss")] == [1, 2]
    assert events.Tags()["images"] == ["masks"]


def test_bf16_autocast_learns_in_fp32_weights(shapes: Path, tmp_path: Path) -> None:
    train(short_run(shapes, tmp_path / "b", precision="bf16", sharpmask=short_stage(1, "mask")))
    assert all(0 < entry["loss"] < 100 for entry in log_of(tmp_path / "b") if "loss" in entry)
    tensors, _ = read_safetensors(tmp_path / "b" / "deepmask.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_the_same_seed_gives_the_same_weights(shapes: Path, finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    train(
        short_run(
            shapes, again, val_annotations=str(shapes / "instances.json"), val_images=str(shapes), validation_photos=1
        )
    )
    assert_same_weights(again, finished)


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(shapes: Path, finished: Path) -> None:
    config = short_run(
        shapes, finished, val_annotations=str(shapes / "instances.json"), val_images=str(shapes), validation_photos=1
    )
    with pytest.raises(ConfigError, match="--resume"):
        train(config)
    with pytest.raises(ConfigError, match="another seed"):
        train(dataclasses.replace(config, seed=9), resume=True)


def test_overfit_a_handful(shapes: Path, tmp_path: Path) -> None:
    """The mask loss falls clearly within a few steps (the two-minute run to IoU > .9 is benchmarks/overfit.py)."""
    config = short_run(
        shapes,
        tmp_path / "o",
        deepmask=short_stage(25, batch_size=8, learning_rate=2e-3),
        sharpmask=short_stage(0, "mask"),
    )
    train(config)
    losses = [entry["mask_loss"] for entry in log_of(tmp_path / "o") if "mask_loss" in entry]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_bad_data_is_refused_before_the_first_step(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.json"):
        train(short_run(shapes, tmp_path / "a", annotations=str(shapes / "missing.json")))
    with pytest.raises(DataError, match=r"1\.png"):
        train(short_run(shapes, tmp_path / "b", images=str(tmp_path)))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_photos_damaged_inside_are_told_of_and_passed_over(
    shapes: Path,
    tmp_path: Path,
    tiny_spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(SPECS, "tiny", dataclasses.replace(tiny_spec, name="tiny"))
    photos = shutil.copytree(shapes, tmp_path / "photos")
    for name in ("1.png", "2.png"):
        content = (photos / name).read_bytes()
        (photos / name).write_bytes(content[: len(content) // 2])
    stages = {
        "deepmask": short_stage(4, shift=5.0, negative_shift=20.0),
        "sharpmask": short_stage(2, "mask", shift=5.0),
    }
    validation = {"val_annotations": str(photos / "instances.json"), "val_images": str(photos), "validation_photos": 6}
    for workers in (0, 2):
        output = tmp_path / f"workers-{workers}"
        train(short_run(photos, output, model="tiny", workers=workers, **stages, **validation))
        told = capfd.readouterr().err
        assert "2.png" in told and "passed over" in told and "left out of the validation" in told
    assert_same_weights(tmp_path / "workers-0", tmp_path / "workers-2")
    assert max(entry.get("redrawn_examples", 0) for entry in log_of(tmp_path / "workers-2")) >= 2
    for photo in photos.glob("*.png"):
        photo.write_bytes(photo.read_bytes()[:2000])
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"^\S*instances\.json: too many photos cannot be read"):
            train(short_run(photos, tmp_path / f"bad-{workers}", model="tiny", workers=workers, **stages))


@pytest.mark.parametrize("model", ["deepmask-lite0", "deepmask-lite0-head-original"])
def test_a_model_without_second_stage_is_trained_by_the_first(shapes: Path, tmp_path: Path, model: str) -> None:
    train(short_run(shapes, tmp_path, model=model))
    network = load_network(tmp_path / "model.safetensors")
    assert isinstance(network, DeepMask) and network.spec.name == model
    assert {entry["stage"] for entry in log_of(tmp_path)} == {"deepmask"}
    assert not (tmp_path / "sharpmask.safetensors").exists()
    train(short_run(shapes, tmp_path, model=model), resume=True)


def test_windows_of_another_size_and_stride(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Callable[[ModelSpec], ModelSpec]
) -> None:
    """Both stages and their validation on windows of 3 x 16 and of 4 x 8 pixels."""
    for name in ("sharpmask-w112-p4-d39", "sharpmask-w112-p3-d21-f128"):
        monkeypatch.setitem(SPECS, name, small(SPECS[name]))
        validation = {"val_annotations": str(shapes / "instances.json"), "val_images": str(shapes)}
        train(short_run(shapes, tmp_path / name, model=name, validation_photos=1, **validation))
        measured = [entry for entry in log_of(tmp_path / name) if "share_iou_70" in entry]
        assert [entry["stage"] for entry in measured] == ["deepmask", "sharpmask"]


def test_start_from_a_trained_model(shapes: Path, finished: Path, tmp_path: Path) -> None:
    config = short_run(shapes, tmp_path, start_from=str(finished / "model.safetensors"))
    trained, _ = read_safetensors(finished / "model.safetensors")
    for model in ("sharpmask-lite0", "sharpmask-lite0-plain"):
        started = initial_network(dataclasses.replace(config, model=model)).state_dict()
        assert all(torch.equal(started[name], trained[name].float()) for name in trained)
    with pytest.raises(ConfigError, match="another trunk than 'sharpmask-resnet50'"):
        initial_network(dataclasses.replace(config, model="sharpmask-resnet50"))


@pytest.mark.parametrize("model", ["deepmask-lite0-head-a", "sharpmask-fast"])
def test_start_from_the_trunk_of_a_trained_model(
    shapes: Path, finished: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, _ = read_safetensors(finished / "deepmask.safetensors")
    config = short_run(shapes, tmp_path, start_from=str(finished / "deepmask.safetensors"), model=model)
    trunk = initial_network(config).deepmask.trunk.state_dict()
    assert all(torch.equal(tensor, trained[f"trunk.{name}"]) for name, tensor in trunk.items())
    assert "only its trunk" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["sharpmask-lite0-k8", "multiscale-lite0", "deepmask-lite0"])
def test_start_from_the_deepmask_of_a_trained_model(shapes: Path, finished: Path, tmp_path: Path, model: str) -> None:
    trained, _ = read_safetensors(finished / "deepmask.safetensors")
    for file in ("deepmask", "sharpmask"):
        start = str(finished / f"{file}.safetensors")
        started = initial_network(short_run(shapes, tmp_path, start_from=start, model=model))
        assert started.spec.name == model
        assert all(torch.equal(tensor, trained[name]) for name, tensor in started.deepmask.state_dict().items())


def test_a_loss_that_is_no_number_stops_the_run(shapes: Path, tmp_path: Path) -> None:
    config = short_run(
        shapes, tmp_path / "n", deepmask=short_stage(30, optimiser="sgd", learning_rate=1e6, average=0.0)
    )
    with pytest.raises(SharpMaskError, match=r"the loss of 'deepmask' is no longer a number; lower its learning_rate"):
        train(config)


def test_a_device_that_is_none_is_named(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^device 'toaster' is not available here"):
        train(short_run(shapes, tmp_path / "n", device="toaster", deepmask=short_stage(2)))
    assert not (tmp_path / "n").exists()
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"^device 'cuda' is not available here"):
            train(short_run(shapes, tmp_path / "n", device="cuda", deepmask=short_stage(2)))
