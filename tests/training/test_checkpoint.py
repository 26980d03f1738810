"""Checkpoints: whole or not there, the last few kept, damaged ones passed over."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from short_runs import short_run, short_stage
from tiny_runs import weights

from sharpmask.cli.main import main
from sharpmask.errors import ConfigError, ModelError, SharpMaskError
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.training.checkpoint import (
    CHECKPOINTS,
    checkpoint_files,
    load_checkpoint,
    open_run,
    remove_leftovers,
    save_checkpoint,
)
from sharpmask.training.config import TrainConfig
from sharpmask.training.logs import RunLog, drop_half_line
from sharpmask.training.run import train


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(annotations="a", images="b", output=str(tmp_path))


def state(step: int, stage: str = "deepmask") -> dict[str, object]:
    return {"stage": stage, "step": step, "network": {"weight": torch.full((1000,), float(step))}}


def newest(folder: Path, config: TrainConfig) -> tuple[str, int]:
    loaded = load_checkpoint(folder, config)
    assert loaded is not None and loaded["network"]["weight"][0] == loaded["step"]
    return loaded["stage"], loaded["step"]


def test_the_newest_few_are_kept(tmp_path: Path, config: TrainConfig) -> None:
    assert load_checkpoint(tmp_path, config) is None
    for stage, step in (("deepmask", 900), ("deepmask", 1000), ("sharpmask", 8), ("sharpmask", 12)):
        save_checkpoint(tmp_path, state(step, stage), config, keep=3)
        assert newest(tmp_path, config) == (stage, step)
    names = [path.name.partition(".")[0] for path in checkpoint_files(tmp_path)]
    assert names == ["000004-sharpmask-12", "000003-sharpmask-8", "000002-deepmask-1000"]
    assert len(list((tmp_path / CHECKPOINTS).iterdir())) == 3


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_byte, cut_short, empty])
def test_a_damaged_one_is_reported_and_the_one_before_is_used(
    tmp_path: Path, config: TrainConfig, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step), config)
    broken = checkpoint_files(tmp_path)[0]
    damage(broken)
    assert newest(tmp_path, config) == ("deepmask", 1)
    assert f"{broken} is damaged" in capsys.readouterr().err
    assert newest(tmp_path, config) == ("deepmask", 1)
    assert capsys.readouterr().err == ""  # told once
    # What is damaged takes no whole one's place.
    save_checkpoint(tmp_path, state(2), config, keep=1)
    assert newest(tmp_path, config) == ("deepmask", 2)


def test_without_a_whole_one_the_run_does_not_start_anew_by_itself(tmp_path: Path, config: TrainConfig) -> None:
    save_checkpoint(tmp_path, state(1), config)
    flip_a_byte(checkpoint_files(tmp_path)[0])
    for _ in range(2):
        with pytest.raises(ModelError, match="is whole; remove the folder"):
            load_checkpoint(tmp_path, config)


def test_other_settings_are_named(tmp_path: Path, config: TrainConfig) -> None:
    save_checkpoint(tmp_path, state(1), config)
    assert load_checkpoint(tmp_path, dataclasses.replace(config, workers=7, keep_checkpoints=5)) is not None
    with pytest.raises(ConfigError, match="another seed"):
        load_checkpoint(tmp_path, dataclasses.replace(config, seed=4))


def test_what_a_killed_writer_leaves_is_no_checkpoint(tmp_path: Path, config: TrainConfig) -> None:
    save_checkpoint(tmp_path, state(1), config)
    leftovers = [
        tmp_path / CHECKPOINTS / ".000002-deepmask-2.ab.x1.tmp.pt",
        tmp_path / ".deepmask.y2.tmp.safetensors",
    ]
    for path in leftovers:
        path.write_bytes(b"half")
    assert newest(tmp_path, config) == ("deepmask", 1)
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in leftovers)
    assert newest(tmp_path, config) == ("deepmask", 1)


def test_the_data_may_lie_elsewhere_but_must_be_the_same(tmp_path: Path, config: TrainConfig) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text("{}")
    config = dataclasses.replace(config, annotations=str(first))
    save_checkpoint(tmp_path, state(1), config)
    first.rename(second)
    moved = dataclasses.replace(config, annotations=str(second), images="elsewhere", measure_photos=3)
    assert newest(tmp_path, moved) == ("deepmask", 1)
    second.write_text("{} ")
    with pytest.raises(ConfigError, match="another annotations;"):
        load_checkpoint(tmp_path, moved)


def test_a_second_start_by_mistake_disturbs_nothing(tmp_path: Path, config: TrainConfig) -> None:
    save_checkpoint(tmp_path, state(1), config)
    being_written = tmp_path / CHECKPOINTS / ".000002-deepmask-2.ab.x1.tmp.pt"
    being_written.write_bytes(b"half")
    with pytest.raises(ConfigError, match="--resume"):
        open_run(tmp_path, config, resume=False)
    with pytest.raises(ConfigError, match="another seed"):
        open_run(tmp_path, dataclasses.replace(config, seed=9), resume=True)
    assert being_written.exists()
    assert open_run(tmp_path, config, resume=True) is not None and not being_written.exists()


def test_a_run_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path: Path, config: TrainConfig) -> None:
    save_checkpoint(tmp_path, state(1), config)
    for name in ("log.jsonl", "ledger.json"):
        (tmp_path / name).write_text("{}\n")
    open_run(tmp_path, config, resume=True)
    assert (tmp_path / "log.jsonl").exists() and (tmp_path / "ledger.json").exists()
    shutil.rmtree(tmp_path / CHECKPOINTS)
    assert open_run(tmp_path, config, resume=True) is None
    assert not (tmp_path / "log.jsonl").exists() and not (tmp_path / "ledger.json").exists()


def test_a_full_disk_leaves_the_one_before(
    tmp_path: Path, config: TrainConfig, files_of_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    save_checkpoint(tmp_path, state(1), config)
    with files_of_at_most(1000), pytest.raises(SharpMaskError, match="cannot write"):
        save_checkpoint(tmp_path, state(2), config)
    assert newest(tmp_path, config) == ("deepmask", 1)
    assert len(list((tmp_path / CHECKPOINTS).iterdir())) == 1


def test_a_run_on_a_full_disk_stops_with_a_message_and_can_be_resumed(
    shapes: Path,
    tmp_path: Path,
    tiny_spec: ModelSpec,
    files_of_at_most: Callable[[int], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SPECS, "tiny", dataclasses.replace(tiny_spec, name="tiny"))
    small = {"shift": 5.0, "negative_shift": 20.0}
    stages = {"deepmask": short_stage(6, **small), "sharpmask": short_stage(2, "mask", shift=5.0)}
    run = short_run(shapes, tmp_path / "whole", model="tiny", **stages)
    train(run)
    broken = dataclasses.replace(run, output=str(tmp_path / "broken"))
    halfway = dataclasses.replace(broken, checkpoint_every=3)
    saved, size = checkpoint_files(tmp_path / "whole")[-1].stat().st_size, files_of_at_most
    from sharpmask.training import loop as module

    def full(output: Path, *rest: object, keep: int) -> None:
        with size(saved // 2 if checkpoint_files(output) else 2 * saved):
            save_checkpoint(output, *rest, keep=keep)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(module, "save_checkpoint", full)
        with pytest.raises(SharpMaskError, match=r"cannot write .*; with that mended, --resume goes on"):
            train(halfway)
    assert [path.name.partition(".")[0] for path in checkpoint_files(tmp_path / "broken")] == ["000001-deepmask-3"]
    train(broken, resume=True)
    a, b = (weights(tmp_path / name) for name in ("whole", "broken"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_command_says_that_the_disk_is_full(
    shapes: Path,
    tmp_path: Path,
    files_of_at_most: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = ["steps=1", "batch_size=2", "milestones=[]", "factors=[]"]
    fields = [f"{name}.{field}" for name in ("deepmask", "sharpmask") for field in stage]
    command = [f"annotations={shapes}/instances.json", f"images={shapes}", f"output={tmp_path / 'o'}", "device=cpu"]
    with files_of_at_most(100_000):
        status = main(["train", "model=sharpmask-lite0", *command, "workers=0", "log_every=1", *fields])
    assert status == 1
    error = capsys.readouterr().err
    assert "sharpmask train: cannot write" in error and "Traceback" not in error


def test_validation_is_no_part_of_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    log = RunLog(tmp_path, "deepmask", first=0, steps=2, quiet=True)
    log.advance(10)
    now[0] += 2
    with log.paused():
        now[0] += 100
    assert log.rate() == 5.0


def test_a_half_line_of_the_log_is_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    drop_half_line(log)
    assert not log.exists()
    log.write_text('{"a": 1}\n{"b": ')
    drop_half_line(log)
    drop_half_line(log)
    assert log.read_text() == '{"a": 1}\n'
