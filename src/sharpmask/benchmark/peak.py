"""The rate of the machine's best matrix products, which no network can exceed."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch

PRECISIONS = ("fp32", "bf16", "int8")
# Matrices of this side, smallest first; the best rate of all counts. Processors without instructions for a precision
# are hundreds of times slower in it, and there the larger matrices would take minutes and change nothing.
_SIDES = {"cpu": (512, 1024, 2048), "cuda": (8192,)}
_PATIENCE = 0.5  # seconds for one product


def matrix_peaks(device: torch.device, *, seconds: float = 0.3) -> dict[str, float]:
    """Operations a second, two for each multiply-add, of square matrix products by precision, with PyTorch's threads.

    The best of the ways there are: on a CPU the products of the BLAS library and those of oneDNN, which differ by more
    than twice on some processors. A precision that PyTorch cannot multiply in here is left out.

    Args:
        device: of the products.
        seconds: to spend at least on each way and size.
    """
    peaks = {}
    with torch.inference_mode():
        for precision in PRECISIONS:
            rates: list[float] = []
            for side in _SIDES[device.type]:
                if rates and 2.0 * side**3 / max(rates) > _PATIENCE:
                    break
                rates += [
                    _rate(product, 2.0 * side**3, seconds, device) for product in _products(precision, side, device)
                ]
            if rates:
                peaks[precision] = max(rates)
    return peaks


def _products(precision: str, side: int, device: torch.device) -> Iterator[Callable[[], object]]:
    """Functions that multiply two matrices of that precision."""
    # Operators that this PyTorch or processor does not have raise one of these.
    absent = suppress(RuntimeError, AttributeError, NotImplementedError)
    if precision == "int8":
        a, b = (torch.randint(-128, 128, (side, side), dtype=torch.int8, device=device) for _ in range(2))
        with absent:
            torch._int_mm(a, b)
            yield lambda: torch._int_mm(a, b)
        return
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    x, y = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    yield lambda: x @ y
    with absent:
        if device.type == "cpu":
            packed = torch.ops.mkldnn._reorder_linear_weight(y, side)
            torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
            yield lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _rate(product: Callable[[], object], operations: float, seconds: float, device: torch.device) -> float:
    """The best rate of several calls, the first of which does not count."""
    best, spent, calls = 0.0, 0.0, 0
    while spent < seconds or calls < 3:
        begin = time.perf_counter()
        product()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - begin
        if calls:
            best = max(best, operations / took)
        spent, calls = spent + took, calls + 1
    return best
