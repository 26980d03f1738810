"""For tests: where the oracle files are, and a small writer of Torch7 files, binary or ASCII, for any case by hand."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpmask.checkpoints.torch7_values import BooleanKey, LuaFunction, LuaTable, Storage, Tensor, TorchObject

ORACLE = Path(__file__).resolve().parents[3] / "shared" / "torch7-oracle"
needs_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason=f"no Torch7 oracle files at {ORACLE}")


def oracle_files(pattern: str = "*/*.t7") -> list[str]:
    """The oracle's files that fit a pattern, as names relative to its folder."""
    return sorted(str(path.relative_to(ORACLE)) for path in ORACLE.glob(pattern))


class Writer:
    """Writes objects as Torch7 does. `code` is what a function's code is written as."""

    def __init__(
        self, *, ascii_file: bool = False, long_size: int = 8, versioned: bool = True, code: bytes = b"\0\1\n2"
    ) -> None:
        self.ascii_file, self.long_size, self.versioned, self.code = ascii_file, long_size, versioned, code
        self.out = bytearray()
        self.known: dict[int, int] = {}
        self.alive: list[Any] = []

    def ints(self, *values: int) -> None:
        self._numbers(values, "<i")

    def longs(self, *values: int) -> None:
        self._numbers(values, "<q" if self.long_size == 8 else "<i")

    def doubles(self, *values: float) -> None:
        self._numbers(values, "<d")

    def _numbers(self, values: tuple, code: str) -> None:
        if self.ascii_file:
            text = " ".join(repr(value) if code == "<d" else str(value) for value in values)
            self.out += (text + "\n").encode() if values else b""
        else:
            for value in values:
                self.out += struct.pack(code, value)

    def characters(self, text: bytes) -> None:
        self.ints(len(text))
        self.raw(text)

    def raw(self, text: bytes) -> None:
        self.out += text + (b"\n" if self.ascii_file and text else b"")

    def write(self, value: Any) -> "Writer":
        if value is None:
            self.ints(0)
        elif isinstance(value, bool | BooleanKey):
            self.ints(5)
            self.ints(int(value.value if isinstance(value, BooleanKey) else value))
        elif isinstance(value, int | float):
            self.ints(1)
            self.doubles(float(value))
        elif isinstance(value, str):
            self.ints(2)
            self.characters(value.encode("utf-8", "surrogateescape"))
        elif isinstance(value, dict):
            self.write(LuaTable(value))
        else:
            self._referenced(value)
        return self

    def _referenced(self, value: Any) -> None:
        self.ints(3 if isinstance(value, LuaTable) else 8 if isinstance(value, LuaFunction) else 4)
        if id(value) in self.known:
            self.ints(self.known[id(value)])
            return
        self.alive.append(value)
        self.known[id(value)] = len(self.known) + 1
        self.ints(self.known[id(value)])
        if isinstance(value, LuaTable):
            self.ints(len(value))
            for key, entry in value.items.items():
                self.write(key)
                self.write(entry)
        elif isinstance(value, LuaFunction):
            self.characters(self.code)
            self.write({1: {"name": "_ENV"}, 2: {"name": "x", "value": 1.5}})
        else:
            if self.versioned:
                self.characters(b"V 1")
            self.characters(value.class_name.encode())
            self._body(value)

    def _body(self, value: Any) -> None:
        if isinstance(value, TorchObject):
            self.write(value.fields)
        elif isinstance(value, Storage):
            self.longs(len(value.data))
            if not self.ascii_file:
                long = value.class_name.endswith("LongStorage") and self.long_size == 4
                self.out += (value.data.astype("<i4") if long else value.data).tobytes()
            elif value.data.itemsize == 1:
                self.raw(value.data.tobytes())
            elif len(value.data):
                self.out += (
                    " ".join(f"{x:.9g}" if value.data.dtype.kind == "f" else str(x) for x in value.data) + "\n"
                ).encode()
        else:
            self.ints(len(value.size))
            self.longs(*value.size)
            self.longs(*value.stride)
            self.longs(value.offset + 1)
            self.write(value.storage)


def dump(value: Any, **options: Any) -> bytes:
    """The bytes of a Torch7 file that holds this object."""
    return bytes(Writer(**options).write(value).out)


def tensor(values: np.ndarray, kind: str = "Float") -> Tensor:
    """A contiguous tensor of its own storage; no elements, no dimensions, as in Torch7."""
    if not values.size:
        return Tensor(f"torch.{kind}Tensor", (), (), 0, None)
    steps = tuple(int(np.prod(values.shape[axis + 1 :])) for axis in range(values.ndim))
    return Tensor(f"torch.{kind}Tensor", values.shape, steps, 0, Storage(f"torch.{kind}Storage", values.ravel()))
