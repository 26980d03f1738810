"""Runs on several processes, and runs that lose them: losses and weights are those of one undisturbed run."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_runs
import torch
import torch.distributed as dist
from tiny_runs import arguments, finish, losses, start, weights

from sharpmask.networks.layers import Dropout, set_rows
from sharpmask.networks.specs import ModelSpec
from sharpmask.training.checkpoint import CHECKPOINTS, checkpoint_files
from sharpmask.training.distributed import fresh_store


@pytest.fixture
def spec(tiny_spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(tiny_spec, name="tiny")


@pytest.fixture
def whole(shapes: Path, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run of one process; made once."""
    output = tmp_path_factory.getbasetemp() / "tiny-whole"
    if not output.exists():
        assert finish(start(spec, arguments(shapes, output, "tiny"))) == [0]
    return output


def assert_same(first: Path, second: Path) -> None:
    """The weights of two runs agree to the bit."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys() and [name for name in a if not torch.equal(a[name], b[name])] == []


def test_dropout_of_parts_is_that_of_the_whole() -> None:
    dropout, x = Dropout(0.5), torch.rand(7, 5) + 1
    torch.manual_seed(3)
    expected = dropout(x)
    assert {0.0} < set(torch.unique(expected / x).tolist()) == {0.0, 2.0}
    found = []
    for first, count in ((0, 2), (2, 2), (4, 3)):
        torch.manual_seed(3)
        set_rows(dropout, first, 7)
        found.append(dropout(x[first : first + count]))
    assert torch.equal(torch.cat(found), expected)
    assert torch.equal(dropout.eval()(x), x)


def test_restarted_processes_do_not_call_the_dead() -> None:
    """What an earlier attempt left in the store, complete or not, is not taken for the present one."""
    store = dist.HashStore()
    store.set("sharpmask/main", "dead")
    store.set("sharpmask/dead/all", "dead1 dead2")
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            # The first process comes last, as on a busy machine.
            waiting = [pool.submit(fresh_store, store, rank, 3) for rank in (2, 1, 0)]
            fresh = [future.result(timeout=120) for future in waiting]
        fresh[2].set("address", "new")
        assert [part.get("address") for part in fresh] == [b"new"] * 3
        assert not store.check(["address"])
        fresh[2].set("address", "of the dead")


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_learns_the_same(
    shapes: Path, spec: ModelSpec, whole: Path, tmp_path: Path, size: int
) -> None:
    """Of three processes one gets two rows of stage 1's batch of four, and one none of stage 2's batch of two."""
    assert finish(start(spec, arguments(shapes, tmp_path, "tiny"), size=size)) == [0] * size
    one, many = losses(whole), losses(tmp_path)
    assert one.keys() == many.keys() and len(one) == 26
    for step, loss in one.items():
        assert many[step] == pytest.approx(loss, rel=1e-4), step
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert any(line["gradient_norm"] > 0.5 for line in lines if line["stage"] == "deepmask"), "nothing was clipped"
    first, second = weights(whole), weights(tmp_path)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=2e-5)


def test_killed_at_random_moments_it_ends_with_the_same_weights(
    shapes: Path, spec: ModelSpec, whole: Path, tmp_path: Path
) -> None:
    command = arguments(shapes, tmp_path, "tiny")
    kills = 0
    for round_ in range(4):
        after = 0.0 if round_ == 0 else random.uniform(0, 0.3)
        status = finish(start(spec, command, KILL_AFTER=str(after)))
        assert status in ([0], [-9])
        kills += status == [-9]
        command = arguments(shapes, tmp_path, "tiny", "--resume")
    assert kills
    (tmp_path / CHECKPOINTS).mkdir(exist_ok=True)  # killed before the first step it has none
    (tmp_path / CHECKPOINTS / ".000001-deepmask-1.tmp.pt").write_bytes(b"half")  # as a kill in the middle leaves it
    assert finish(start(spec, command)) == [0]
    assert_same(tmp_path, whole)
    kept = sorted((tmp_path / CHECKPOINTS).iterdir(), reverse=True)
    assert kept == checkpoint_files(tmp_path) and len(kept) == 2
    # Resuming a finished run does nothing and breaks nothing.
    assert finish(start(spec, command)) == [0]
    assert_same(tmp_path, whole)


def test_resumed_with_another_number_of_processes(shapes: Path, spec: ModelSpec, whole: Path, tmp_path: Path) -> None:
    statuses = finish(start(spec, arguments(shapes, tmp_path, "tiny"), size=2, KILL_AFTER="0.2"))
    assert statuses in ([-9, -9], [-9, 1], [1, -9], [0, 0])
    assert finish(start(spec, arguments(shapes, tmp_path, "tiny", "--resume"), size=1)) == [0]
    first, second = weights(whole), weights(tmp_path)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=2e-5)


def test_torchrun_goes_on_after_a_lost_worker(shapes: Path, spec: ModelSpec, whole: Path, tmp_path: Path) -> None:
    """One of two is killed at a random moment; both are started again and go on by themselves."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    described = json.dumps(dataclasses.asdict(spec))
    command = [tiny_runs.__file__, described, str(random.randrange(2)), *arguments(shapes, tmp_path, "tiny")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launcher, *command], env=environment, capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if "step/s" not in line or "sharpmask train" in line]
    assert done.returncode == 0, "\n".join(told)
    assert "exitcode: -9" in done.stderr, "no worker was lost"
    one, many = losses(whole), losses(tmp_path)
    assert one.keys() == many.keys()
    first, second = weights(whole), weights(tmp_path)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=2e-5)
