"""One thread that does the heavy work, and the bounded queue before it."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
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
    """Raised by work that notices that nobody waits for it."""


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
        self._thread = threading.Thread(target=self._work, name=f"sharpmask-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def check_room(self) -> None:
        """Raises Busy when no place is free."""
        with self._changed:
            self._check_room()

    async def run(self, function: Callable[[Stop], T], seconds: float) -> T:
        """The result of `function`, which is given a `Stop`, or its exception.

        Raises:
            Busy: no place is free.
            TimedOut: it was not done within `seconds`, waiting included.
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

    def close(self) -> None:
        """Stop the running work, drop the waiting, and end the thread."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify_all()
        for job in jobs:
            self._abandon(job)
        self._thread.join(timeout=10)

    def _check_room(self) -> None:
        # The thread takes a job a moment after it came, so that an idle worker's queue may hold one more.
        if self._closed or len(self._waiting) >= self.places + (not self.running):
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
        if not job.future.set_running_or_notify_cancel():
            return
        begin = time.monotonic()
        try:
            result = job.function(job.stop.is_set)
        except BaseException as error:  # whatever happens: the thread goes on
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
        self._seconds += 0.3 * (time.monotonic() - begin - self._seconds)
