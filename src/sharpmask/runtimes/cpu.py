"""What the processor can do beyond fp32."""

import platform
from contextlib import suppress
from functools import cache


@cache
def _flags() -> frozenset[str]:
    """Names of the instruction sets as Linux tells them; empty elsewhere."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        for line in info:
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def has_bf16() -> bool:
    """Whether bf16 is multiplied by instructions of its own, not emulated: AVX-512 BF16, AMX, or Arm's."""
    return bool(_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def has_int8() -> bool:
    """Whether products of 8-bit numbers are summed in 32 bits (VNNI, AMX, Arm's dot products).

    Without, x86 sums pairs in 16 bits, which overflow where both weights are near their limits.
    """
    return bool(_flags() & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}) or platform.machine() == "arm64"
