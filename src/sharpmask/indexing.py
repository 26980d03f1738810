"""Indices as NumPy takes them, for records that hold a list and arrays of one length; and a part of a list."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

Key = int | slice | Sequence[int] | Sequence[bool] | np.ndarray


def places(key: Key, count: int, what: str) -> np.ndarray:
    """(K,) int64: which of `count` entries an index names; one number names one entry.

    Raises:
        IndexError: there is no such entry; `what` is the word for one in its message.
    """
    if isinstance(key, (int, np.integer)):
        if not -count <= key < count:
            raise IndexError(f"{what} {key} of {count}")
        key = [int(key)]
    elif isinstance(key, (list, tuple)) and not key:
        key = slice(0, 0)  # NumPy takes an empty list for one of floats
    return np.arange(count)[key]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread: files are often ordered by image or category."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]
