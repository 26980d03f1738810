"""The Ray engine: the same files as the local one, and nothing lost when Ray's own processes die."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bulk_faults import CLUSTER, named, own_actors, start_cluster
from fake_proposer import FakeFactory
from sharpmask.bulk.plan import read_plan
from sharpmask.bulk.results import verify
from sharpmask.bulk.storage import Place
from sharpmask.bulk.worker import WorkerOptions
from sharpmask.errors import ConfigError, SharpMaskError

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs Ray: pip install 'sharpmask[ray]'", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster of two CPUs and a GPU that is none, on this machine, whose processes can import the fake proposer."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        for name, value in CLUSTER.items():
            patch.setenv(name, value)
        start_cluster(num_cpus=2, num_gpus=1)
        yield
        ray.shutdown()


@dataclass(frozen=True)
class WaitsForAKill(FakeFactory):
    """From the third picture on nothing goes on until a file is there; `log` is given."""

    gate: str = ""

    def make(self, device: str | None) -> Any:
        def propose(pixels: Any) -> Any:
            found = self._propose(pixels)
            while len(Path(str(self.log)).read_text().splitlines()) > 2 and not Path(self.gate).exists():
                time.sleep(0.02)
            return found

        return propose


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_an_actor(log: Path, gate: Path, over: threading.Event) -> int:
    """When the actors have begun three images, kill one of this cluster's -9, let the others go on, and tell which."""
    try:
        while not over.is_set():
            actors = own_actors()
            if log.exists() and len(log.read_text().splitlines()) > 2 and actors:
                os.kill(actors[0], signal.SIGKILL)
                return actors[0]
            time.sleep(0.02)
        return 0
    finally:
        gate.touch()


def test_both_engines_write_the_same_files(pictures: Callable[..., Path], bulk: Any, tmp_path: Path) -> None:
    """Though one of Ray's actors is killed on the way."""
    source, log, gate = pictures(14, {3: "text", 9: "raise"}), tmp_path / "ray log", tmp_path / "gate"
    bulk(source, tmp_path / "local", factory=FakeFactory())
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_an_actor, log, gate, over)
        try:
            report = bulk(source, tmp_path / "ray", engine="ray", factory=WaitsForAKill(str(log), gate=str(gate)))
        finally:
            over.set()
        assert killed.result()
    assert (report.total.results, report.total.kinds) == (12, {"image": 1, "worker": 1})
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    plan = read_plan(Place(str(tmp_path / "ray")))
    assert plan is not None and verify(plan) == []
    # Either engine goes on where the other has stopped.
    (tmp_path / "ray" / "images" / "chunk-000002.parquet").unlink()
    assert bulk(source, tmp_path / "ray", factory=FakeFactory()).images == 4
    assert files(tmp_path / "ray") == files(tmp_path / "local")


def test_actors_of_others_are_let_alone() -> None:
    """A process of the same name that this one has not started as a descendant."""
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['bash', '-c', 'exec -a ray::ChunkActor sleep 600'], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    try:
        while b"ray::ChunkActor" not in Path(f"/proc/{pid}/cmdline").read_bytes():  # bash may not have got there
            time.sleep(0.02)
        assert pid not in own_actors()
        assert pid in named([pid], b"ray::", b"ChunkActor")
    finally:
        os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class TellsItsDevice(FakeFactory):
    def make(self, device: str | None) -> Any:
        def propose(pixels: Any) -> Any:
            raise RuntimeError(f"nothing works on {device}, GPU {os.environ.get('CUDA_VISIBLE_DEVICES')}")

        return propose


def test_a_failure_of_the_whole_stops_the_run_with_its_message(
    pictures: Callable[..., Path], bulk: Any, tmp_path: Path
) -> None:
    """Shown with actors that have a GPU each, which is not really there."""
    with pytest.raises(SharpMaskError, match=r"nothing works on cuda, GPU 0 .*no other image that was tried") as caught:
        options = WorkerOptions(attempts=1)
        bulk(pictures(3), tmp_path / "out", engine="ray", device=None, worker=options, factory=TellsItsDevice())
    assert "Traceback" not in str(caught.value)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_what_the_cluster_has_not_is_refused(
    pictures: Callable[..., Path], bulk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(2)
    with pytest.raises(ConfigError, match="threads 3: the Ray cluster has only 2 CPUs"):
        bulk(source, tmp_path / "out", engine="ray", worker=WorkerOptions(threads=3))
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2})
    with pytest.raises(ConfigError, match="the Ray cluster has no GPU"):
        bulk(source, tmp_path / "out", engine="ray", device="cuda")
