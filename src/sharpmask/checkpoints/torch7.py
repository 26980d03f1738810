"""Reading Torch7 serialisation (`.t7`, binary and ASCII) as plain data, without running anything that is in it.

`read_torch7` turns a file into a tree of Python values:

| in Lua                         | here                                                                      |
|--------------------------------|---------------------------------------------------------------------------|
| nil, boolean, number, string   | None, bool, float, str (bytes that are not UTF-8 become surrogates)        |
| table                          | `LuaTable`; whole-number keys are ints                                    |
| object of a torch class        | `TorchObject`: class name, version, fields                                 |
| torch.XTensor, torch.XStorage  | `Tensor`, `Storage`: numpy views of the file's own bytes (read-only)       |
| function                       | `LuaFunction`: only the length of its code; up-values are read and dropped |

Identity is kept: what was one object in Lua is one object here, so tensors that shared a storage share it again.

A file may come from anywhere. Every length is compared with what is left of the file before anything is allocated,
views are checked against their storage, nesting and the number of objects are bounded and the reader does not recurse,
so that a damaged or hostile file ends in one `ModelError` that names the byte, with memory in proportion to the file.

The format (torch7 File.lua, DiskFile): an object is an int32 type, then for tables, torch objects and newer functions
an int32 index; an index seen before means the same object again. `long` takes 8 bytes on the machines such models
come from.
"""

import re
import struct
from pathlib import Path
from typing import Any

from sharpmask.checkpoints.torch7_source import AsciiSource, BinarySource, Source
from sharpmask.checkpoints.torch7_values import (
    STORAGES,
    TENSORS,
    BooleanKey,
    LuaFunction,
    LuaTable,
    Storage,
    Tensor,
    TorchObject,
)
from sharpmask.errors import ModelError

MAX_DEPTH = 200  # objects within objects; a SharpMask needs 24
MAX_OBJECTS = 500_000  # values of any kind in one file; a SharpMask holds about 7,000, keys included
MAX_FILE_BYTES = 8 << 30

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN, _FUNCTION, _LEGACY_RECURSIVE, _RECURSIVE = range(9)


class _Open:
    """An object whose parts are still being read."""

    __slots__ = ("has_key", "holder", "key", "left")

    def __init__(self, holder: LuaTable | TorchObject | Tensor | LuaFunction, left: int = 1) -> None:
        self.holder, self.left = holder, left
        self.key: Any = None
        self.has_key = False


class _Reader:
    """Reads one object from a source with an explicit stack of the objects that are not complete yet."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known: dict[int, Any] = {}
        self.stack: list[_Open] = []
        self.count = 0

    def read(self) -> Any:
        self.stack.clear()
        while True:
            value, complete = self._begin()
            if not complete:
                continue
            while self.stack:
                top = self.stack[-1]
                self._hand_over(top, value)
                if top.left:
                    break
                value = self.stack.pop().holder
            if not self.stack:
                return value

    def _begin(self) -> tuple[Any, bool]:
        """Reads the head of an object. Returns (value, True), or (None, False) when its parts follow."""
        source = self.source
        start = source.position
        self.count += 1
        if self.count > MAX_OBJECTS:
            raise source.error(f"more than {MAX_OBJECTS} objects")
        kind = source.integer()
        if kind == _NIL:
            return None, True
        if kind == _NUMBER:
            return source.double(), True
        if kind == _BOOLEAN:
            return source.integer() == 1, True
        if kind == _STRING:
            return source.characters(source.integer(), "a string").decode("utf-8", "surrogateescape"), True
        if kind == _FUNCTION:  # the oldest kind has no index
            return self._function(None)
        if kind not in (_TABLE, _TORCH, _LEGACY_RECURSIVE, _RECURSIVE):
            raise source.error(f"unknown object type {kind}", start)
        index = source.integer()
        if index in self.known:
            return self.known[index], True
        if kind == _TABLE:
            return self._table(index)
        if kind == _TORCH:
            return self._torch(index, start)
        return self._function(index)

    def _open(self, holder: LuaTable | TorchObject | Tensor | LuaFunction, left: int = 1) -> tuple[None, bool]:
        if len(self.stack) >= MAX_DEPTH:
            raise self.source.error(f"objects nested more than {MAX_DEPTH} deep")
        self.stack.append(_Open(holder, left))
        return None, False

    def _table(self, index: int) -> tuple[Any, bool]:
        size = self.source.integer()
        self.source.need(size * 2 * self.source.object_bytes - (size > 0), f"a table of {size} entries")
        table = self.known[index] = LuaTable()
        return self._open(table, size) if size else (table, True)

    def _function(self, index: int | None) -> tuple[Any, bool]:
        size = self.source.integer()
        self.source.skip(size, "the code of a function")
        function = LuaFunction(size)
        if index is not None:
            self.known[index] = function
        return self._open(function)

    def _torch(self, index: int, start: int) -> tuple[Any, bool]:
        source = self.source
        name, version = self._class_name(), 0
        if match := re.fullmatch(r"V (\d{1,9})", name):  # files older than the version numbers have the class name here
            name, version = self._class_name(), int(match[1])
        if name in STORAGES:
            (size,) = source.longs(1)
            source.need(size, f"a {name} of {size} elements")
            storage = self.known[index] = Storage(name, source.elements(size, STORAGES[name]))
            return storage, True
        if name in TENSORS:
            tensor = self.known[index] = self._tensor(name)
            return self._open(tensor)
        if name.startswith(("torch.", "tds.")):
            raise source.error(f"class {name!r} is stored in a form of its own that is not understood", start)
        thing = self.known[index] = TorchObject(name, version)
        return self._open(thing)

    def _class_name(self) -> str:
        at = self.source.position
        size = self.source.integer()
        if not 0 < size <= 128:
            raise self.source.error(f"a class name of {size} characters", at)
        text = self.source.characters(size, "a class name")
        if not re.fullmatch(rb"[A-Za-z0-9_. ]+", text):
            raise self.source.error(f"impossible class name {text[:40]!r}", at)
        return text.decode()

    def _tensor(self, name: str) -> Tensor:
        source, at = self.source, self.source.position
        dimensions = source.integer()
        if not 0 <= dimensions <= 32:
            raise source.error(f"a tensor with {dimensions} dimensions", at)
        size, stride = source.longs(dimensions), source.longs(dimensions)
        (offset,) = source.longs(1)
        if any(extent < 1 for extent in size) or any(step < 0 for step in stride):
            raise source.error(f"a tensor of size {size} and stride {stride}", at)
        return Tensor(name, tuple(size), tuple(stride), offset - 1)

    def _hand_over(self, top: _Open, value: Any) -> None:
        """Gives a finished value to the object that waits for it."""
        holder = top.holder
        if isinstance(holder, LuaTable):
            if not top.has_key:
                if value is None or value != value:
                    raise self.source.error("a table key that is nil or not a number")
                top.key, top.has_key = _as_key(value), True
                return
            if value is not None:
                holder.items[top.key] = value
            top.has_key = False
        elif isinstance(holder, TorchObject):
            if not isinstance(value, LuaTable):
                raise self.source.error(
                    f"class {holder.class_name!r} does not hold a table of fields, so it is not understood"
                )
            holder.fields = value
        elif isinstance(holder, Tensor):
            self._attach(holder, value)
        top.left -= 1

    def _attach(self, tensor: Tensor, storage: Any) -> None:
        """Ties a tensor to its storage, once every element it may touch is known to lie inside."""
        if storage is None and not tensor.size:
            return
        if not isinstance(storage, Storage) or STORAGES[storage.class_name] != TENSORS[tensor.class_name]:
            raise self.source.error(f"a {tensor.class_name} whose storage is {_describe(storage)}")
        if tensor.size:
            last = tensor.offset + sum(
                (extent - 1) * step for extent, step in zip(tensor.size, tensor.stride, strict=True)
            )
            if tensor.offset < 0 or last >= len(storage.data):
                raise self.source.error(
                    f"a {tensor.class_name} of elements {tensor.offset} to {last} in a storage of {len(storage.data)}"
                )
        tensor.storage = storage


def _as_key(value: Any) -> Any:
    if isinstance(value, bool):
        return BooleanKey(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _describe(value: Any) -> str:
    return getattr(value, "class_name", None) or type(value).__name__


def read_torch7(source: str | Path | bytes, *, long_size: int = 8) -> Any:
    """Read the object in a Torch7 file, binary or ASCII (told apart by the first byte).

    Args:
        source: a path, or the bytes of a file.
        long_size: bytes of a `long` in a binary file: 8, or 4 for files from 32-bit machines and Windows.

    Raises:
        ModelError: the file cannot be read, is cut short, altered, or nothing that Torch7 wrote.
    """
    if long_size not in (4, 8):
        raise ValueError(f"long_size is 4 or 8, not {long_size}")
    if isinstance(source, bytes):
        data, name = source, "Torch7 data"
    else:
        path = Path(source)
        name = str(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ModelError(f"{name}: larger than {MAX_FILE_BYTES} bytes; no model of this kind is that large")
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{name}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise ModelError(f"{name}: empty file")
    ascii_file = data[:1] in b"012345678"
    if not ascii_file and (len(data) < 4 or not 0 <= struct.unpack_from("<i", data)[0] <= _RECURSIVE):
        raise ModelError(f"{name}: not a Torch7 file (it starts with {data[:8]!r})")
    if ascii_file and not data.endswith(b"\n"):  # a number cut in two would look like another number
        raise ModelError(f"{name}: does not end with a line feed, as every ASCII Torch7 file does; it is cut short")
    reader = _Reader(AsciiSource(data, name) if ascii_file else BinarySource(data, name, long_size))
    value = reader.read()
    rest = data[reader.source.position :] if len(data) - reader.source.position < 64 else b"more"
    if rest and not (ascii_file and not rest.strip()):
        raise reader.source.error(f"{len(data) - reader.source.position} bytes are left over after the object")
    return value
