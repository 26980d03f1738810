"""A process of its own that turns one image at a time into proposals, and the hand that holds it.

The process has the model and touches the image data; whatever an image does to it (a crash in a decoder, all memory
used, no end) costs that process and nothing else. It is started again and the image tried again, a bounded number of
times.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from sharpmask.bulk.storage import Stopped
from sharpmask.errors import ConfigError, ImageError, SharpMaskError
from sharpmask.images import MAX_PIXELS, decode_image
from sharpmask.proposal_rows import proposal_schema, proposal_table

if TYPE_CHECKING:
    from sharpmask.proposals.result import Proposals

_START_SECONDS = 600  # a model on a slow network disk
_STARTS = 3


class ProposerFactory(Protocol):
    """Makes the function that finds an image's proposals, in the process that will call it; must be picklable."""

    def describe(self) -> dict[str, Any]:
        """What decides the results, as JSON values: a run goes on only with the same."""

    def make(self, device: str | None) -> "Callable[[np.ndarray], Proposals]":
        """From (H,W,3) uint8 to proposals, on a device (None: CUDA where available)."""


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker process runs.

    Attributes:
        threads: CPU threads of the network.
        timeout: seconds for one image.
        attempts: how often an image may kill its process, or let it fail or hang, before it is given up.
        max_pixels: larger images are not decoded.

    Raises:
        ConfigError: a value outside its range.
    """

    threads: int = 1
    timeout: float = 300.0
    attempts: int = 3
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.threads < 1 or self.attempts < 1 or self.max_pixels < 1:
            raise ConfigError("threads, attempts and max_pixels must be at least 1")
        if not self.timeout > 0:
            raise ConfigError(f"timeout {self.timeout:g}: must be more than 0 seconds")


@dataclass(frozen=True)
class Found:
    """An image's result: its size in pixels and its proposals as rows (`proposal_rows`)."""

    width: int
    height: int
    rows: pa.Table


@dataclass(frozen=True)
class Failed:
    """Why an image has no result: `kind` is "image" for its content, "worker" for what it did to the process."""

    kind: str
    reason: str


class WorkerBroken(SharpMaskError):
    """The process cannot be started, or fails at every image."""


class _Lost(Exception):
    """The process ended or was ended while it had an image."""


class Worker:
    """The hand that holds the process; used by one thread.

    Args:
        factory: goes to the process, which makes its proposer from it.
        device: for the factory.
        options: limits.
        stop: when set, waiting ends with `Stopped`; `kill` makes that immediate.
    """

    def __init__(
        self, factory: ProposerFactory, device: str | None, options: WorkerOptions, stop: threading.Event
    ) -> None:
        self.factory, self.device, self.options, self.stop = factory, device, options, stop
        self._process: Any = None
        self._connection: Connection | None = None

    def propose(self, data: bytes, image_id: int, key: str, *, attempts: int | None = None) -> Found | Failed:
        """Decode one image file and find its proposals, trying as often as the options, or `attempts`, say.

        Raises:
            WorkerBroken: the process cannot work at all.
            SharpMaskError: the model or the options cannot be used.
            Stopped: the run has ended.
        """
        reason, tries = "", attempts or self.options.attempts
        for _ in range(tries):
            try:
                answer, *rest = self._ask((data, image_id, key))
            except _Lost as error:
                reason = str(error)
                continue
            if answer == "found":
                width, height, stream = rest
                with pa.ipc.open_stream(stream) as reader:
                    return Found(width, height, reader.read_all())
            if answer == "image":
                return Failed("image", rest[0])
            reason = rest[0]
            self.close()  # a process that has failed in an unforeseen way (CUDA, memory) is not to be trusted
        return Failed("worker", f"{reason} (tried {tries} times)")

    def _ask(self, message: Any) -> tuple[Any, ...]:
        """Send to the process, started if need be, and wait for its answer; `_Lost` when it ends or takes too long."""
        if self._process is not None and not self._process.is_alive():
            self.close()  # killed while it had nothing to do: not the next image's fault
        if self._connection is None:
            self._start()
        return self._exchange(message, self.options.timeout)

    def _start(self) -> None:
        """Start the process and wait until its model is loaded."""
        lost = ""
        for _ in range(_STARTS):
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(
                target=serve,
                args=(theirs, self.factory, self.device, self.options.threads, self.options.max_pixels),
                daemon=True,
            )
            try:
                self._process.start()
            except OSError as error:
                raise WorkerBroken(f"a worker process could not start: {error.strerror or error}") from error
            finally:
                theirs.close()
            try:
                answer, *rest = self._exchange(None, _START_SECONDS)
            except _Lost as error:
                lost = str(error)
                continue
            if answer == "refused":
                self.close()
                raise SharpMaskError(rest[0])
            return
        raise WorkerBroken(f"a worker process could not start: {lost}; is there enough memory for it?")

    def _exchange(self, message: Any, seconds: float) -> tuple[Any, ...]:
        assert self._connection is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self.kill()

        # The watch covers sending too: a process that hangs does not read.
        watch = threading.Timer(seconds, end)
        watch.daemon = True
        watch.start()
        try:
            if self.stop.is_set():
                raise Stopped
            if message is not None:
                self._connection.send(message)
            wait([self._connection, self._process.sentinel])
            if self._connection.poll():
                return tuple(self._connection.recv())
            raise EOFError
        except (EOFError, OSError) as error:
            text = f"no end after {seconds:g} s" if late.is_set() else self._obituary()
            self.close()
            if self.stop.is_set():
                raise Stopped from None
            raise _Lost(text) from error
        finally:
            watch.cancel()

    def _obituary(self) -> str:
        self._process.join(10)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the worker process ended with status {code}"
        with contextlib.suppress(ValueError):
            hint = ": memory?" if -code == signal.SIGKILL else ""
            return f"the worker process was ended by {signal.Signals(-code).name}{hint}"
        return f"the worker process was ended by signal {-code}"

    def kill(self) -> None:
        """End the process at once; from any thread."""
        process = self._process
        if process is not None:
            with contextlib.suppress(Exception):  # it may end in between
                process.kill()

    def close(self) -> None:
        """End the process and forget it; the next image starts another."""
        self.kill()
        if self._process is not None:
            if self._process.pid is not None:  # it did start
                self._process.join()
            self._process.close()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def serve(connection: Connection, factory: ProposerFactory, device: str | None, threads: int, max_pixels: int) -> None:
    """What the process does: load the model, then answer images until the other side closes or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends this process
    _end_with_parent()
    _offer_to_oom_killer()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    try:
        propose = factory.make(device)
        if "torch" in sys.modules:  # imported before the variables were set
            sys.modules["torch"].set_num_threads(threads)
    except SharpMaskError as error:
        connection.send(("refused", str(error)))
        return
    except Exception as error:
        connection.send(("refused", f"the model cannot be loaded: {_one_line(error)}"))
        return
    schema = proposal_schema()
    connection.send(("ready",))
    while True:
        try:
            data, image_id, key = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(_answer(propose, data, image_id, key, max_pixels, schema))


def _answer(propose: Any, data: bytes, image_id: int, key: str, max_pixels: int, schema: pa.Schema) -> tuple[Any, ...]:
    try:
        pixels = decode_image(data, key, max_pixels=max_pixels)
        proposals = propose(pixels)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_table(proposal_table(image_id, key, proposals, schema))
        return "found", pixels.shape[1], pixels.shape[0], sink.getvalue().to_pybytes()
    except ImageError as error:
        return "image", str(error).removeprefix(f"{key}: ")
    except SharpMaskError as error:  # such as scores that are no numbers
        return "failed", str(error)
    except Exception as error:  # MemoryError and CUDA's errors among them
        return "failed", _one_line(error)


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _end_with_parent() -> None:
    """A driver that is killed cannot end its processes, and one that hangs in an image would stay for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _offer_to_oom_killer() -> None:
    """When the machine runs out of memory, Linux shall end this process and not the driver."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
