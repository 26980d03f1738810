"""What a Torch7 file holds, as plain Python values; `torch7` says which Lua value becomes which."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from sharpmask.errors import ModelError

# Element types of storages and tensors. CUDA classes were written as their CPU counterparts.
_ELEMENTS = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2",
    "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "<i1", "Byte": "<u1",
}  # fmt: skip
DTYPES = {name: np.dtype(code) for name, code in _ELEMENTS.items()}
DTYPES |= {f"Cuda{name}": dtype for name, dtype in DTYPES.items() if name != "Float"} | {"Cuda": DTYPES["Float"]}
TENSORS = {f"torch.{name}Tensor": dtype for name, dtype in DTYPES.items()}
STORAGES = {f"torch.{name}Storage": dtype for name, dtype in DTYPES.items()}


class BooleanKey(Enum):
    """A boolean as a table key (Python's True would be the same key as 1)."""

    FALSE = False
    TRUE = True


@dataclass(eq=False, slots=True)
class LuaTable:
    """A Lua table, compared by identity. Keys are ints, floats, strings, `BooleanKey` or objects of this module."""

    items: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Any) -> Any:
        return self.items[key]

    def __contains__(self, key: Any) -> bool:
        return key in self.items

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        return self.items.get(key, default)

    def sequence(self) -> list[Any]:
        """The values of keys 1, 2, 3 … up to the first gap (what Lua's ipairs visits)."""
        return list(self._run())

    def _run(self) -> Iterator[Any]:
        number = 1
        while number in self.items:
            yield self.items[number]
            number += 1


@dataclass(eq=False, slots=True)
class TorchObject:
    """An object of a torch class such as nn.Sequential. `fields` is the table of its fields."""

    class_name: str
    version: int
    fields: LuaTable = field(default_factory=LuaTable, repr=False)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, or `default`."""
        return self.fields.items.get(name, default)


@dataclass(eq=False, slots=True)
class LuaFunction:
    """A stored Lua function. Its code is skipped; only the length is known."""

    code_bytes: int


@dataclass(eq=False, slots=True)
class Storage:
    """A flat array. `data` (n,) is a read-only view of the file."""

    class_name: str
    data: np.ndarray = field(repr=False)


@dataclass(eq=False, slots=True)
class Tensor:
    """A strided view of a storage. `offset` counts elements from 0. Without dimensions it is empty."""

    class_name: str
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: Storage | None = field(default=None, repr=False)

    @property
    def numel(self) -> int:
        """Number of elements; 0 for an empty tensor."""
        count = 1 if self.size else 0
        for extent in self.size:
            count *= extent
        return count

    def array(self) -> np.ndarray:
        """The elements as a read-only numpy view of shape `size`, (0,) when empty. Bounds were checked at reading.

        Raises:
            ModelError: the tensor repeats elements (stride 0), so that a copy could be far larger than the file.
        """
        dtype = TENSORS[self.class_name]
        if self.storage is None or not self.size:
            return np.empty(0, dtype)
        if self.numel > len(self.storage.data):
            raise ModelError(
                f"a {self.class_name} of size {'x'.join(map(str, self.size))} on a storage of {len(self.storage.data)} "
                "elements repeats its elements; such a tensor cannot hold weights"
            )
        step = self.storage.data.itemsize
        strides = tuple(
            stride * step if extent > 1 else step for extent, stride in zip(self.size, self.stride, strict=True)
        )
        return np.ndarray(self.size, self.storage.data.dtype, self.storage.data, self.offset * step, strides)
