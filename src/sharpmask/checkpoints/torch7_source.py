"""The bytes of a Torch7 file: numbers, characters and arrays in binary or ASCII form, each length checked."""

import re
import struct

import numpy as np

from sharpmask.checkpoints.torch7_values import DTYPES
from sharpmask.errors import ModelError


class Source:
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


class BinarySource(Source):
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
        return self._array(count, self.long_dtype if dtype == DTYPES["Long"] else dtype)

    def _array(self, count: int, dtype: np.dtype) -> np.ndarray:
        self.need(count * dtype.itemsize, f"{count} elements of type {dtype}")
        if count == 0:
            return np.empty(0, dtype)
        values = np.frombuffer(self.data, dtype, count, self.position)
        self.position += count * dtype.itemsize
        return values


class AsciiSource(Source):
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


def _fits(values: np.ndarray, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= values.min() and values.max() <= limits.max)
