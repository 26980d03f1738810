"""One thread that does the heavy work, and the bounded queue before it."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
Stop = Callable[[], bool]  # asked by the work from time to time: does nobody wait for it any more?


class Busy(Exception):
    """The queue is full; `retry_after` is a guess in seconds when it will not be."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full, try again in {retry_after} s")
        self.retry_after = retry_after


class TimedOut(Exception):
    """The work was not done in time."""


class Stopped(Exception):
    """The work was given up: raised by work that notices that nobody waits for it, and to who waits at the end."""


@dataclass(eq=False)
class _Job:
    function: Callable[[Stop], Any]
    future: Future[Any] = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)


class Worker:
    """Runs one piece of work at a time in a thread of its own; `places` more may wait.

    Work that nobody waits for any more, because it took too long or the client is gone, loses its place; where it has
    begun, it is told to stop and the next one starts when it does.
    """

    def __init__(self, name: str, places: int) -> None:
        self.places = places
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._seconds = 1.0  # a running mean over the last few pieces of work
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, also once more after `close`."""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"sharpmask-{self._name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def check_room(self) -> None:
        """Raises Busy when no place is free."""
        with self._changed:
            self._check_room()

    async def run(self, function: Callable[[Stop], T], seconds: float) -> T:
        """The result of `function`, which is given a `Stop`, or its exception.

        Raises:
            Busy: no place is free.
            TimedOut: it was not done within `seconds`, waiting included.
            Stopped: the worker is closed.
        """
        job = _Job(function)
        with self._changed:
            self._check_room()
            self._waiting.append(job)
            self._changed.notify_all()
        answer = asyncio.wrap_future(job.future)
        try:
            done, _ = await asyncio.wait([answer], timeout=seconds)
            if not done:
                raise TimedOut
            return answer.result()
        finally:
            answer.cancel()
            self._abandon(job)

    def stop(self) -> None:
        """Take no more work, drop what waits, and tell the running work to stop; does not wait until it does.

        May be called by a signal handler: the lock lets a thread in that holds it already.
        """
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify_all()
        for job in jobs:
            with suppress(InvalidStateError):  # it was done a moment ago
                job.future.set_exception(Stopped())
            self._abandon(job)

    def close(self) -> None:
        """Stop, and wait for the thread to end."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _check_room(self) -> None:
        # The thread takes a job a moment after it came, so that an idle worker's queue may hold one more.
        if self._closed:
            raise Stopped
        if len(self._waiting) >= self.places + (not self.running):
            raise Busy(max(1, math.ceil(self._seconds)))

    def _abandon(self, job: _Job) -> None:
        """Give a job's place away; nothing when it is done."""
        job.stop.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        job.future.cancel()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                job = self._running = self._waiting.popleft()
            self._do(job)
            with self._changed:
                self._running = None
            del job  # and with it the image, which may be large

    def _do(self, job: _Job) -> None:
        begin = time.monotonic()
        try:
            if job.future.done() or not job.future.set_running_or_notify_cancel():
                return
            job.future.set_result(job.function(job.stop.is_set))
        except InvalidStateError:  # `stop` has given the answer
            return
        except BaseException as error:  # whatever happens: the thread goes on
            with suppress(InvalidStateError):
                job.future.set_exception(error)
        self._seconds += 0.3 * (time.monotonic() - begin - self._seconds)
