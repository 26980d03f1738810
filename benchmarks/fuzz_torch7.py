"""Alter Torch7 files at random and read and import them: nothing but success or ModelError may come of it.

    python benchmarks/fuzz_torch7.py FILE.t7 [FILE.t7 ...] --inputs 2000 --seed 0

For each input one file gets 1 to 4 alterations: flipped bits, overwritten bytes, a length or type field blown up, a
piece removed, repeated or overwritten with another one, the end cut off. Half of them hit the structure (types,
indices, lengths, sizes), which is small beside the weights. Every input is read, and imported where it can be read,
with a time limit and with Python's and numpy's allocations traced; the process may use ADDRESS_SPACE bytes in all.
Prints the outcomes; the exit status is 1 if any input crashed, hung or took too much memory.
"""

import argparse
import random
import resource
import signal
import struct
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from sharpmask.checkpoints import torch7
from sharpmask.checkpoints.torch7_import import import_torch7
from sharpmask.checkpoints.torch7_source import BinarySource
from sharpmask.errors import ModelError

SECONDS = 20.0  # of processor time; an unaltered file takes 0.1 to 0.3 s
MEMORY_RATIO = 8.0  # traced allocations per byte of the file, beside the file itself ...
MEMORY_BASE = 4 << 20  # ... and this much for error messages and the network's Python objects
ADDRESS_SPACE = 8 << 30  # PyTorch's libraries alone reserve several GB
NUMBERS = (-(1 << 31), -2, -1, 0, 1, 2, 5, 9, 127, 255, 1 << 16, 1 << 24, (1 << 31) - 1)
LONGS = (-(1 << 63), -1, 0, 1, 1 << 31, 1 << 32, 1 << 40, 1 << 61, 1 << 62, (1 << 63) - 1)


class _TimeUp(BaseException):
    """Not an Exception, so that nothing that is being tested can swallow it."""


@dataclass
class Result:
    """Outcomes of a run: "imported", "read" (but not a model), "ModelError", or a failure's description."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest_ratio: float = 0.0

    def __str__(self) -> str:
        lines = [f"{sum(self.outcomes.values())} inputs"]
        lines += [f"  {count:6d}  {outcome}" for outcome, count in self.outcomes.most_common()]
        lines.append(
            f"slowest {self.slowest:.2f} s of processor, largest allocation {self.largest_ratio:.1f} times the file"
        )
        return "\n".join(lines + [f"FAILURE {failure}" for failure in self.failures])


def structure(data: bytes) -> list[int]:
    """Offsets in a binary file at which the reader reads types, indices, lengths and sizes."""
    offsets: list[int] = []
    source = BinarySource(data, "original", 8)
    integer, longs = source.integer, source.longs

    def traced_integer() -> int:
        offsets.append(source.position)
        return integer()

    def traced_longs(count: int) -> list[int]:
        offsets.extend(range(source.position, source.position + 8 * count, 8))
        return longs(count)

    source.integer, source.longs = traced_integer, traced_longs  # type: ignore[method-assign]
    torch7._Reader(source).read()
    return offsets


def alter(data: bytes, offsets: list[int], rng: random.Random) -> bytes:
    """One altered copy."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            break
        at = rng.choice(offsets) if rng.random() < 0.5 else rng.randrange(len(out))
        at = min(at, len(out) - 1)
        kind = rng.randrange(9)
        size = rng.choice((1, 4, 8, 16, rng.randint(1, 4096)))
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + size] = rng.randbytes(min(size, 8))
        elif kind in (2, 3):
            out[at : at + 4] = struct.pack("<i", rng.choice(NUMBERS))
        elif kind == 4:
            out[at : at + 8] = struct.pack("<q", rng.choice(LONGS))
        elif kind == 5:
            del out[at : at + size]
        elif kind == 6:
            out[at:at] = out[at : at + size]
        elif kind == 7:
            source = rng.choice(offsets)
            out[at : at + size] = data[source : source + size]
        else:
            del out[at:]
    return bytes(out)


def attempt(data: bytes, consume: Callable[[bytes], Any]) -> str:
    """What becomes of one input: "ok", "ModelError" or a description that starts with "!"."""
    try:
        consume(data)
    except ModelError as error:
        return "ModelError" if len(str(error)) < 2000 else "! an error message of more than 2000 characters"
    except _TimeUp:
        return f"! still running after {SECONDS:g} s"
    except BaseException as error:
        return f"! {type(error).__name__}: {error}"
    return "ok"


def fuzz(files: dict[str, bytes], inputs: int, seed: int) -> Result:
    """Try altered copies of these binary files."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _TimeUp

    places = {name: structure(data) for name, data in files.items()}
    names = sorted(files)
    result = Result()
    previous = signal.signal(signal.SIGPROF, stop)
    tracemalloc.start()
    try:
        for number in range(inputs):
            rng = random.Random(f"{seed} {number}")
            name = names[number % len(names)]
            data = alter(files[name], places[name], rng)
            began = time.process_time()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                outcome = attempt(data, torch7.read_torch7)
                if outcome == "ok":
                    outcome = attempt(data, import_torch7)
                    outcome = {"ok": "imported", "ModelError": "read, but refused by the importer (ModelError)"}.get(
                        outcome, outcome
                    )
                elif outcome == "ModelError":
                    outcome = "refused by the reader (ModelError)"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            result.slowest = max(result.slowest, time.process_time() - began)
            used = tracemalloc.get_traced_memory()[1] - before
            result.largest_ratio = max(result.largest_ratio, used / max(len(files[name]), 1))
            if used > MEMORY_RATIO * len(data) + MEMORY_BASE:
                outcome = f"! {used} bytes for a file of {len(data)}"
            result.outcomes["failure" if outcome.startswith("!") else outcome] += 1
            if outcome.startswith("!"):
                result.failures.append(f"{name}, seed {seed}, input {number}: {outcome[2:][:300]}")
    finally:
        tracemalloc.stop()
        signal.signal(signal.SIGPROF, previous)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    names = {"/".join(path.parts[-2:]): path.read_bytes() for path in options.files}
    result = fuzz(names, options.inputs, options.seed)
    print(result)
    print(f"peak resident memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
