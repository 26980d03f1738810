"""Freed memory is kept by the commands that are told to, and by nothing else."""

import os
import subprocess
import sys

import pytest

from sharpmask.allocator import SWITCH, keep_freed_memory

# Page faults of asking for 64 MB twenty times, after a first time.
MEASURE = """
import resource
{before}
def fill():
    return b"x" * (64 << 20)
fill()
first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)
"""
KEEP = "from sharpmask.allocator import keep_freed_memory; keep_freed_memory()"


def faults(before: str, **environment: str) -> int:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", SWITCH))}
    command = [sys.executable, "-c", MEASURE.format(before=before)]
    return int(subprocess.run(command, env={**clean, **environment}, capture_output=True, check=True).stdout)


def is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError):
        return False


@pytest.mark.skipif(not is_glibc(), reason="needs glibc")
def test_memory_is_asked_for_once_where_it_is_kept() -> None:
    pages = faults("import sharpmask")  # the import alone changes nothing
    assert pages > 20 * 16  # were all of them huge pages, 20 * 32
    assert faults(KEEP) < pages / 10
    assert faults(KEEP, **{SWITCH: "0"}) > pages / 2


def test_own_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert not keep_freed_memory()
    monkeypatch.delattr(os, "confstr")
    assert not keep_freed_memory()
