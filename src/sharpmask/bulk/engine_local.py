"""Chunks on one machine: a thread for each worker process, which reads, waits and writes while the process computes."""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from sharpmask.bulk.chunk import ChunkRunner, Job
from sharpmask.bulk.results import Counts
from sharpmask.bulk.storage import Stopped


def usable_cores() -> int:
    """Cores this process may use: its affinity, or what a container's quota leaves of it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))  # quota "max": a ValueError, none
    return cores


def devices(device: str | None, workers: int | None, threads: int) -> list[str | None]:
    """A device for each worker process: as many as GPUs, or as the cores have room for, if the number is not given."""
    if device is None or device == "cuda":
        import torch

        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if gpus:
            return [gpus[index % len(gpus)] for index in range(workers or len(gpus))]
        device = device or "cpu"  # "cuda" without any: the worker says what is wrong
    if workers is None:
        workers = max(1, usable_cores() // threads) if device == "cpu" else 1
    return [device] * workers


def run_local(
    job: Job,
    chunks: Sequence[int],
    places: Sequence[str | None],
    *,
    on_image: Callable[[], None],
    on_chunk: Callable[[Counts], None],
) -> None:
    """Do the chunks, each by one of the workers; `places` has a device for each worker.

    `on_image` is called in any thread, `on_chunk` in the caller's. The first failure ends all workers and is raised.

    Raises:
        SharpMaskError: see `ChunkRunner.run`.
    """
    stop = threading.Event()
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for chunk in chunks:
        waiting.put(chunk)
    done: queue.SimpleQueue[Counts | BaseException | None] = queue.SimpleQueue()
    runners = [ChunkRunner(job, device, stop, on_image) for device in places[: len(chunks)]]

    def work(runner: ChunkRunner) -> None:
        try:
            while not stop.is_set():
                try:
                    chunk = waiting.get_nowait()
                except queue.Empty:
                    break
                done.put(runner.run(chunk))
        except Stopped:
            pass
        except BaseException as error:
            done.put(error)
        finally:
            runner.close()
            done.put(None)

    threads = [threading.Thread(target=work, args=(runner,), daemon=True) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            outcome = done.get()
            if outcome is None:
                running -= 1
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                on_chunk(outcome)
    finally:
        stop.set()
        for runner in runners:
            runner.worker.kill()
        end = time.monotonic() + 10
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))  # one that waits for a slow server ends with the program
