"""Peak memory of finding the objects of a photo, in a process that does nothing else."""

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

import torch


def peak_memory(task: Callable[[], torch.device]) -> int | None:
    """Bytes that a new process needs at most for `task`, Python and its libraries included; on a GPU, the memory of
    its tensors instead. None where the system does not tell.

    Args:
        task: what to do there; it must be possible to pickle it. Returns the device that it worked on.
    """
    # A process that was forked would begin with this one's memory.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_run, task, torch.get_num_threads()).result()


def _run(task: Callable[[], torch.device], threads: int) -> int | None:
    torch.set_num_threads(threads)
    device = task()
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resident_peak()


def resident_peak() -> int | None:
    """The largest resident memory of this process so far, in bytes; None where the system does not tell."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return None
