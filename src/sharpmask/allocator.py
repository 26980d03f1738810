"""Memory that is kept instead of handed back to the system after every tensor.

A network's large tensors are freed and asked for again thousands of times. The C library (glibc) maps each of them
anew, and the system fills the pages with zeros one by one, which takes a good part of a training step on a CPU. Told to
keep freed memory, it takes them from there. Nothing that is computed changes. The price is that the process stays as
large as it once was, so it is for programs that do one thing and end, and never done by `import sharpmask`.
"""

import ctypes
import os
from contextlib import suppress

SWITCH = "SHARPMASK_KEEP_MEMORY"
# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next tensor, for the rest of this process and its children by fork.

    Does nothing where the C library is another one, where SHARPMASK_KEEP_MEMORY is 0, and where the environment sets
    glibc's allocator itself (MALLOC_… or GLIBC_TUNABLES). Returns whether it was done.
    """
    settings = [name for name in os.environ if name.startswith("MALLOC_")]
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if os.environ.get(SWITCH) == "0" or settings or tuned or not _is_glibc():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    # Large blocks come from the heap as small ones do, and the heap never shrinks (-1).
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def _is_glibc() -> bool:
    with suppress(AttributeError, ValueError, OSError):  # no such question, or no such answer, elsewhere
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    return False
