"""The Ray engine: the same files as the local one, and nothing lost when Ray's own processes die."""

import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_an_actor(log: Path, images: int) -> int:
    """Wait until the actors have begun so many images, kill one -9, and tell which."""
    while not log.exists() or len(log.read_text().splitlines()) < images:
        time.sleep(0.01)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            name = path.read_bytes()
            if b"ray::" in name and b"ChunkActor" in name:
                os.kill(int(path.parent.name), signal.SIGKILL)
                return int(path.parent.name)
    return 0


def test_both_engines_write_the_same_files(pictures: Callable[..., Path], bulk: Any, tmp_path: Path) -> None:
    """Though one of Ray's actors is killed on the way."""
    source, log = pictures(14, {3: "text", 9: "raise"}), tmp_path / "ray log"
    bulk(source, tmp_path / "local", factory=FakeFactory())
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_an_actor, log, 2)
        report = bulk(source, tmp_path / "ray", engine="ray", factory=FakeFactory(str(log), seconds=0.1))
        assert killed.result()
    assert (report.total.results, report.total.kinds) == (12, {"image": 1, "worker": 1})
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    plan = read_plan(Place(str(tmp_path / "ray")))
    assert plan is not None and verify(plan) == []
    # Either engine goes on where the other has stopped.
    (tmp_path / "ray" / "images" / "chunk-000002.parquet").unlink()
    assert bulk(source, tmp_path / "ray", factory=FakeFactory()).images == 4
    assert files(tmp_path / "ray") == files(tmp_path / "local")


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
