"""What images do to the process that gets them, and what is left of it."""

import dataclasses
import errno
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_proposer import FakeFactory, Lines, picture
from sharpmask.bulk.storage import Stopped
from sharpmask.bulk.worker import Failed, Found, Worker, WorkerBroken, WorkerOptions
from sharpmask.errors import ConfigError, ModelError, SharpMaskError

OPTIONS = WorkerOptions(timeout=60, attempts=2, max_pixels=10_000)


def png(number: int, fault: str | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(number, fault)).save(file, "png")
    return file.getvalue()


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A factory that fails."""

    error: Exception

    def describe(self) -> dict[str, Any]:
        return {}

    def make(self, device: str | None) -> Callable[[np.ndarray], Lines]:
        raise self.error


@dataclasses.dataclass(frozen=True)
class DiesAtStart(FakeFactory):
    def make(self, device: str | None) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(factory: Any = None, **changes: Any) -> Worker:
        options = dataclasses.replace(OPTIONS, **changes)
        made.append(Worker(factory or FakeFactory(), "cpu", options, threading.Event()))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_one_process_outlives_bad_images(worker: Callable[..., Worker]) -> None:
    one = worker()
    found = one.propose(png(7), 12, "a.png")
    assert isinstance(found, Found) and (found.width, found.height) == (16, 12)
    assert found.rows.column("image_id").to_pylist() == [12, 12, 12]
    assert found.rows.column("y").to_pylist() == [3, 5, 7] and found.rows.column("area").to_pylist() == [16] * 3
    process = one._process.pid
    for data, reason in [(b"", "empty"), (b"text", "not an image"), (png(7)[:60], "damaged")]:
        failed = one.propose(data, 1, "b.png")
        assert isinstance(failed, Failed) and failed.kind == "image" and failed.reason.startswith(reason)
    large = io.BytesIO()
    Image.new("1", (101, 100)).save(large, "png")
    assert "megapixels" in one.propose(large.getvalue(), 1, "c.png").reason  # type: ignore[union-attr]
    assert one._process.pid == process


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("kill", "SIGKILL: memory?"),
        ("segfault", "SIGSEGV"),
        ("hang", "no end after 2 s"),
        ("raise", "RuntimeError: a fault that was asked for"),
        ("memory", "MemoryError"),
    ],
)
def test_an_image_that_breaks_its_process(
    worker: Callable[..., Worker], tmp_path: Path, fault: str, reason: str
) -> None:
    log = tmp_path / "log"
    one = worker(FakeFactory(str(log)), timeout=2 if fault == "hang" else 60)
    failed = one.propose(png(3, fault), 1, "a.png")
    assert isinstance(failed, Failed) and failed.kind == "worker"
    assert reason in failed.reason and "tried 2 times" in failed.reason
    assert log.read_text() == "3\n3\n"
    if fault == "kill":
        assert isinstance(one.propose(png(3), 1, "b.png"), Found)


def test_a_kill_while_there_is_nothing_to_do_is_nobodys_fault(worker: Callable[..., Worker]) -> None:
    one = worker(attempts=1)
    one.propose(png(1), 1, "a.png")
    os.kill(one._process.pid, signal.SIGKILL)
    one._process.join()
    assert isinstance(one.propose(png(2), 2, "b.png"), Found)


def test_a_model_that_cannot_be_used_ends_the_run(worker: Callable[..., Worker]) -> None:
    with pytest.raises(SharpMaskError, match=r"weights\.safetensors is damaged"):
        worker(Wrong(ModelError("weights.safetensors is damaged"))).propose(png(1), 1, "a.png")
    with pytest.raises(SharpMaskError, match="cannot be loaded: ValueError: bad"):
        worker(Wrong(ValueError("bad"))).propose(png(1), 1, "a.png")


def test_a_process_that_never_starts_ends_the_run(worker: Callable[..., Worker]) -> None:
    with pytest.raises(WorkerBroken, match="could not start: the worker process was ended by SIGKILL"):
        worker(DiesAtStart()).propose(png(1), 1, "a.png")


def test_a_system_without_room_for_processes_ends_the_run(
    worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("multiprocessing.popen_spawn_posix.Popen._launch", fail)
    with pytest.raises(WorkerBroken, match="could not start: Resource temporarily unavailable"):
        worker().propose(png(1), 1, "a.png")


def test_stopping_does_not_wait_for_the_image(worker: Callable[..., Worker]) -> None:
    one = worker(timeout=3600)
    one.propose(png(1), 1, "a.png")
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            one.propose(png(1, "hang"), 1, "b.png")
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    one.stop.set()
    one.kill()
    thread.join(120)
    assert isinstance(outcome[0], Stopped)


def test_a_process_ends_with_its_driver_even_in_an_endless_image(tmp_path: Path) -> None:
    program = """if __name__ == "__main__":
    import sys, threading, test_worker as t
    worker = t.Worker(t.FakeFactory(), "cpu", t.OPTIONS, threading.Event())
    worker.propose(t.png(1), 1, "a.png")
    print(worker._process.pid, flush=True)
    worker.propose(t.png(1, "hang"), 1, "b.png")
"""
    (tmp_path / "driver.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    driver = subprocess.Popen([sys.executable, tmp_path / "driver.py"], env=environment, stdout=subprocess.PIPE)
    assert driver.stdout is not None
    with driver.stdout:
        process = os.pidfd_open(int(driver.stdout.readline()))
        driver.kill()
        driver.wait()
    try:
        import select

        assert select.select([process], [], [], 120)[0], "the worker process outlived its driver"
    finally:
        os.close(process)


def test_limits_are_checked() -> None:
    for wrong in ({"threads": 0}, {"attempts": 0}, {"timeout": 0}, {"max_pixels": 0}):
        with pytest.raises(ConfigError):
            WorkerOptions(**wrong)  # type: ignore[arg-type]
