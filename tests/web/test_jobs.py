"""The thread behind the server, without a server."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from web_fakes import until

from sharpmask.web.jobs import Busy, Stop, Stopped, TimedOut, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test", places=1)
    worker.start()
    yield worker
    worker.close()
    assert not worker.alive


def test_results_and_errors_come_back(worker: Worker) -> None:
    def fail(stop: Stop) -> None:
        raise KeyError("the key")

    assert asyncio.run(worker.run(lambda stop: 7, 60)) == 7
    with pytest.raises(KeyError, match="the key"):
        asyncio.run(worker.run(fail, 60))
    with pytest.raises(SystemExit):  # not even this ends the thread
        asyncio.run(worker.run(lambda stop: exit(), 60))
    assert asyncio.run(worker.run(lambda stop: threading.current_thread().name, 60)) == "sharpmask-test"


def test_waiting_work_that_is_given_up_is_never_begun(worker: Worker) -> None:
    gate, begun = threading.Event(), []

    async def scenario() -> None:
        first = asyncio.ensure_future(worker.run(lambda stop: gate.wait(60), 60))
        await asyncio.to_thread(until, lambda: worker.running)
        with pytest.raises(TimedOut):
            await worker.run(lambda stop: begun.append(1), 0.01)
        assert worker.waiting == 0  # its place is free again
        second = asyncio.ensure_future(worker.run(lambda stop: begun.append(2), 60))
        await asyncio.to_thread(until, lambda: worker.waiting == 1)
        with pytest.raises(Busy) as busy:
            await worker.run(lambda stop: begun.append(3), 60)
        assert busy.value.retry_after >= 1
        gate.set()
        await asyncio.gather(first, second)

    asyncio.run(scenario())
    assert begun == [2]


def test_work_learns_that_nobody_waits(worker: Worker) -> None:
    learned = threading.Event()

    def work(stop: Stop) -> None:
        until(stop)
        learned.set()
        raise Stopped

    async def scenario() -> None:
        task = asyncio.ensure_future(worker.run(work, 60))
        await asyncio.to_thread(until, lambda: worker.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert learned.wait(60)
    assert asyncio.run(worker.run(lambda stop: stop(), 60)) is False


def test_closing_answers_all_at_once() -> None:
    """Also who waits for work that does not stop yet."""
    worker = Worker("test", places=3)
    worker.start()
    gate = threading.Event()

    async def scenario() -> list[object]:
        def work(stop: Stop) -> str:
            until(stop)
            gate.wait(60)
            return "too late"

        first = asyncio.ensure_future(worker.run(work, 60))
        await asyncio.to_thread(until, lambda: worker.running)
        second = asyncio.ensure_future(worker.run(lambda stop: "done", 60))
        await asyncio.to_thread(until, lambda: worker.waiting == 1)
        worker.stop()
        with pytest.raises(Stopped):
            await worker.run(lambda stop: "never", 60)
        return await asyncio.gather(first, second, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert [type(answer) for answer in answers] == [Stopped, Stopped]
    assert worker.alive  # still in the work
    gate.set()
    worker.close()
    assert not worker.alive


def test_finished_work_is_forgotten(worker: Worker) -> None:
    """An image must not stay in memory until the next one comes."""
    import gc
    import weakref

    class Image:
        pass

    def submit() -> "weakref.ref[Image]":
        image = Image()
        asyncio.run(worker.run(lambda stop: id(image), 60))
        return weakref.ref(image)

    reference = submit()
    until(lambda: not worker.running)
    until(lambda: gc.collect() >= 0 and reference() is None)
