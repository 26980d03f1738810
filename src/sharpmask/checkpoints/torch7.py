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
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import ModelError

MAX_DEPTH = 200  # objects within objects; a SharpMask needs 24
MAX_OBJECTS = 500_000  # values of any kind in one file; a SharpMask holds about 7,000, keys included
MAX_FILE_BYTES = 8 << 30

# Element types of storages and tensors. CUDA classes were written as their CPU counterparts.
_ELEMENTS = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2",
    "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "<i1", "Byte": "<u1",
}  # fmt: skip
_DTYPES = {name: np.dtype(code) for name, code in _ELEMENTS.items()}
_DTYPES |= {f"Cuda{name}": dtype for name, dtype in _DTYPES.items() if name != "Float"} | {"Cuda": _DTYPES["Float"]}
_TENSORS = {f"torch.{name}Tensor": dtype for name, dtype in _DTYPES.items()}
_STORAGES = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()}

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN, _FUNCTION, _LEGACY_RECURSIVE, _RECURSIVE = range(9)


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
        dtype = _TENSORS[self.class_name]
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


class _Source:
    """The bytes of one file and the position in them; what binary and ASCII reading have in common."""

    object_bytes = 4  # the least that any object takes

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.position = data, name, 0

    def error(self, problem: str, at: int | None = None) -> ModelError:
        position = self.position if at is None else at
        return ModelError(
            f"{self.name}: at byte {position}: {problem}; the file is damaged, cut short or not a Torch7 file"
        )

    def need(self, count: int, what: str) -> None:
        left = len(self.data) - self.position
        if count < 0:
            raise self.error(f"{what} with a negative length")
        if count > left:
            raise self.error(f"{what} needs {count} bytes, but {left} are left")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        self.position += count
        return self.data[self.position - count : self.position]

    def integer(self) -> int:
        raise NotImplementedError

    def double(self) -> float:
        raise NotImplementedError

    def longs(self, count: int) -> list[int]:
        raise NotImplementedError

    def characters(self, count: int, what: str) -> bytes:
        raise NotImplementedError

    def skip(self, count: int, what: str) -> None:
        raise NotImplementedError

    def elements(self, count: int, dtype: np.dtype) -> np.ndarray:
        raise NotImplementedError


class _Binary(_Source):
    def __init__(self, data: bytes, name: str, long_size: int) -> None:
        super().__init__(data, name)
        self.long_dtype = np.dtype(f"<i{long_size}")

    def integer(self) -> int:
        self.need(4, "an integer")
        self.position += 4
        return int(struct.unpack_from("<i", self.data, self.position - 4)[0])

    def double(self) -> float:
        self.need(8, "a number")
        self.position += 8
        return float(struct.unpack_from("<d", self.data, self.position - 8)[0])

    def longs(self, count: int) -> list[int]:
        return [int(value) for value in self._array(count, self.long_dtype)]

    def characters(self, count: int, what: str) -> bytes:
        return self.take(count, what)

    def skip(self, count: int, what: str) -> None:
        self.need(count, what)
        self.position += count

    def elements(self, count: int, dtype: np.dtype) -> np.ndarray:
        return self._array(count, self.long_dtype if dtype == _DTYPES["Long"] else dtype)

    def _array(self, count: int, dtype: np.dtype) -> np.ndarray:
        self.need(count * dtype.itemsize, f"{count} elements of type {dtype}")
        if count == 0:
            return np.empty(0, dtype)
        values = np.frombuffer(self.data, dtype, count, self.position)
        self.position += count * dtype.itemsize
        return values


class _Ascii(_Source):
    """Numbers are separated by white space; one line feed after a group belongs to it; characters stand as they are."""

    object_bytes = 2
    _TOKEN = re.compile(rb"[ \t\r\n\v\f]*([^ \t\r\n\v\f]{1,64})")
    _INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")
    _PIECE = 1 << 16  # text of a long array is split in pieces, so that the list of its words stays small

    def _word(self, what: str) -> bytes:
        match = self._TOKEN.match(self.data, self.position)
        if match is None:
            raise self.error(f"{what} is missing")
        self.position = match.end()
        return match[1]

    def _line_end(self) -> None:
        if self.data[self.position : self.position + 1] == b"\n":
            self.position += 1

    def _integer(self, what: str) -> int:
        word = self._word(what)
        if not self._INTEGER.fullmatch(word):
            raise self.error(f"{what} expected, found {word[:20]!r}")
        return int(word)

    def integer(self) -> int:
        value = self._integer("an integer")
        self._line_end()
        return value

    def double(self) -> float:
        word = self._word("a number")
        try:
            value = float(word)
        except ValueError:
            raise self.error(f"a number expected, found {word[:20]!r}") from None
        self._line_end()
        return value

    def longs(self, count: int) -> list[int]:
        self.need(2 * count - 1 if count > 0 else count, f"{count} integers")
        values = [self._integer("an integer") for _ in range(count)]
        if count:
            self._line_end()
        return values

    def characters(self, count: int, what: str) -> bytes:
        taken = self.take(count, what)
        if count:
            self._line_end()
        return taken

    def skip(self, count: int, what: str) -> None:
        self.need(count, what)
        self.position += count
        if count:
            self._line_end()

    def elements(self, count: int, dtype: np.dtype) -> np.ndarray:
        if count == 0:
            return np.empty(0, dtype)
        if dtype.itemsize == 1:  # bytes are written as they are in ASCII files, too
            self.need(count, f"{count} bytes")
            values = np.frombuffer(self.data, dtype, count, self.position)
            self.position += count
        else:
            self.need(2 * count - 1, f"{count} elements")
            values = np.empty(count, dtype)
            done = 0
            while done < count:
                words = self._words(count - done)
                try:
                    parsed = np.array(words, dtype="S").astype(np.int64 if dtype.kind == "i" else np.float64)
                    if dtype.kind == "i" and not _fits(parsed, dtype):
                        raise OverflowError
                    with np.errstate(over="ignore"):
                        values[done : done + len(words)] = parsed
                except (ValueError, OverflowError):
                    raise self.error(f"{count} numbers expected, found something else") from None
                done += len(words)
            values.flags.writeable = False
        self._line_end()
        return values

    def _words(self, limit: int) -> list[bytes]:
        """The next white-space separated words of about one piece of text, at most `limit` of them."""
        start = self.position
        piece = self.data[start : start + self._PIECE]
        if len(piece) == self._PIECE:  # do not cut a word in two
            cut = max(piece.rfind(b" "), piece.rfind(b"\n"))
            piece = piece[: max(cut, 0)]
        words = piece.split(None, limit)
        if not words or len(words[0]) > 64:
            raise self.error("numbers are missing")
        if len(words) > limit:  # split() leaves the rest of the text as one more entry
            self.position = start + len(piece) - len(words.pop())
            # the line feed after the group is taken by the caller, further white space is skipped with the next word
            if self.data[self.position - 1 : self.position] == b"\n":
                self.position -= 1
        else:
            self.position = start + len(piece.rstrip())
        if max(map(len, words)) > 64:
            raise self.error("a number of more than 64 characters")
        return words


class _Open:
    """An object whose parts are still being read."""

    __slots__ = ("has_key", "holder", "key", "left")

    def __init__(self, holder: "LuaTable | TorchObject | Tensor | LuaFunction", left: int = 1) -> None:
        self.holder, self.left = holder, left
        self.key: Any = None
        self.has_key = False


class _Reader:
    """Reads one object from a source with an explicit stack of the objects that are not complete yet."""

    def __init__(self, source: _Source) -> None:
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

    def _open(self, holder: "LuaTable | TorchObject | Tensor | LuaFunction", left: int = 1) -> tuple[None, bool]:
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
        if name in _STORAGES:
            (size,) = source.longs(1)
            source.need(size, f"a {name} of {size} elements")
            storage = self.known[index] = Storage(name, source.elements(size, _STORAGES[name]))
            return storage, True
        if name in _TENSORS:
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
        if not isinstance(storage, Storage) or _STORAGES[storage.class_name] != _TENSORS[tensor.class_name]:
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


def _fits(values: np.ndarray, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= values.min() and values.max() <= limits.max)


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
    reader = _Reader(_Ascii(data, name) if ascii_file else _Binary(data, name, long_size))
    value = reader.read()
    rest = data[reader.source.position :] if len(data) - reader.source.position < 64 else b"more"
    if rest and not (ascii_file and not rest.strip()):
        raise reader.source.error(f"{len(data) - reader.source.position} bytes are left over after the object")
    return value
