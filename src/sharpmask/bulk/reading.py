"""The bytes of a chunk's images, read ahead of their use, and the rule when an image may be given up.

A read that fails for a reason that may pass (a timeout, a reset, a 5xx answer) is tried again, with pauses. What fails
for good may be the image's fault or the source's: a server that is down, an unmounted disk or an expired key must not
turn a million images into a million errors. So an image is given up only if ANOTHER image of the source could be read
after its last failure; otherwise `SourceDown` ends the run, which can be started again when the source is back.
"""

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from typing import Any

from pyarrow import parquet

from sharpmask.bulk.storage import Patience, Stopped, describe, filesystem, is_transient, join, local_path
from sharpmask.errors import SharpMaskError

# Larger files are no photos; reading one could take all memory.
MAX_BYTES = 1 << 30
_AHEAD = 4  # images read while one is being worked on
_IN_A_ROW = 3  # failures in a row after which the source is checked at once


@dataclass(frozen=True, slots=True)
class Item:
    """One image of the source.

    Attributes:
        key: what the user knows it by; no two images of a source share one.
        path: file it is in, relative to the source's base, or absolute, or a URL.
        offset: its first byte in a tar file; None: the file is the image.
        length: its bytes, where the listing tells.
        row: its row in a Parquet file.
        version: a mark of the file that changes with its content, where the listing tells.
        error: why it cannot be read at all, as found while listing.
    """

    key: str
    path: str
    offset: int | None = None
    length: int | None = None
    row: int | None = None
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where the items of a listing are: `base` for relative paths; `column` of the images in Parquet files."""

    base: str
    column: str | None = None


class Unreadable(Exception):
    """An image that cannot be read; `transient` when a later try may succeed."""

    def __init__(self, text: str, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


class SourceDown(SharpMaskError):
    """The source as a whole does not answer."""


class ChunkReader:
    """Reads the images of one chunk.

    Args:
        items: the chunk's images.
        origin: where they are.
        patience: for each read.
        stop: ends pauses early, with `Stopped`.
    """

    def __init__(self, items: Sequence[Item], origin: Origin, patience: Patience, stop: threading.Event) -> None:
        self.items, self.origin, self.patience, self.stop = items, origin, patience, stop
        self._rows: dict[tuple[str, int], dict[int, bytes | None]] = {}  # (file, row group) -> row -> image
        self._lock = threading.Lock()

    def fetch(self, item: Item) -> bytes:
        """The file content of one image, with the reader's patience; `Unreadable` when there is none."""
        if item.error is not None:
            raise Unreadable(item.error)
        if item.length is not None and item.length > MAX_BYTES:
            raise Unreadable(f"{item.length / 1e9:.1f} GB are no photo")
        try:
            return self.patience.insist(lambda: self._read(item), self.stop)
        except (Unreadable, Stopped):
            raise
        except Exception as error:
            raise Unreadable(describe(error), is_transient(error)) from error

    def read_ahead(self) -> Iterator[tuple[int, bytes | Unreadable]]:
        """(place in the chunk, content or failure) for all items in order; a few are read at a time."""
        waiting: deque[tuple[int, Future[bytes | Unreadable]]] = deque()
        places = iter(range(len(self.items)))
        while True:
            while len(waiting) < _AHEAD and (place := next(places, None)) is not None:
                waiting.append((place, _in_background(self._outcome, self.items[place])))
            if not waiting:
                return
            place, future = waiting.popleft()
            yield place, future.result()

    def _outcome(self, item: Item) -> bytes | Unreadable:
        try:
            return self.fetch(item)
        except Unreadable as error:
            return error

    def _read(self, item: Item) -> bytes:
        path = join(self.origin.base, item.path)
        if item.row is not None:
            return self._row(path, item)
        end = None if item.offset is None or item.length is None else item.offset + item.length
        data = _read_file(path, item.offset, end, self.patience.timeout)
        if item.offset is not None and len(data) != item.length:
            raise Unreadable(f"{item.path} holds {len(data)} of the image's {item.length} bytes")
        return data

    def _row(self, path: str, item: Item) -> bytes:
        """An image in a Parquet file. The chunk's rows of a row group are read at the first need, in one go."""
        assert item.row is not None and self.origin.column is not None
        with self._lock, open_parquet(path) as file:
            first = 0
            for group in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if item.row < first + count:
                    break
                first += count
            else:
                raise Unreadable(f"{item.path} has {first} rows, no row {item.row}")
            if (path, group) not in self._rows:
                wanted = {i.row for i in self.items if i.path == item.path and i.row is not None} | {item.row}
                wanted = {row for row in wanted if first <= row < first + count}
                self._rows[path, group] = _read_rows(file, group, first, wanted, self.origin.column)
            content = self._rows[path, group].get(item.row)
        if content is None:
            raise Unreadable(f"{item.path} holds no image in row {item.row}")
        return content


class SourceCheck:
    """Decides whether the source still answers.

    Args:
        samples: gives items from all over the source, some of which should be readable.
        record: never stop; take every unreadable image for its own fault.
    """

    def __init__(self, samples: Callable[[], Sequence[Item]], *, record: bool = False) -> None:
        self.samples, self.record = samples, record
        self._last_good: Item | None = None

    def saw(self, item: Item) -> None:
        """An image was read."""
        self._last_good = item

    def require(self, reader: ChunkReader, failed: Item, why: str) -> None:
        """Return when an image other than `failed` can be read now; `SourceDown` when none can."""
        if self.record:
            return
        if self._last_good is not None and self._any_of([self._last_good], reader, failed):
            return
        if self._any_of(self.samples(), reader, failed):
            return
        raise SourceDown(
            f"the source does not answer: {failed.key} ({why}), and no other image that was tried could be read; run "
            "the same command again when it does, or with --when-all-fail record if these images are really gone"
        )

    def _any_of(self, items: Sequence[Item], reader: ChunkReader, failed: Item) -> bool:
        """Whether one of some images other than `failed` can be read; all are asked for at once."""
        others = [item for item in items if item.error is None and item.key != failed.key]
        probe = ChunkReader(others, reader.origin, replace(reader.patience, attempts=2), reader.stop)
        answers = as_completed({_in_background(self._sees, probe, item) for item in others})
        return any(answer.result() for answer in answers)

    def _sees(self, probe: ChunkReader, item: Item) -> bool:
        try:
            probe.fetch(item)
        except Unreadable:
            return False
        self.saw(item)
        return True


def read_chunk(reader: ChunkReader, check: SourceCheck) -> Iterator[tuple[int, bytes | str]]:
    """(place, content) of each readable image, then (place, reason) of each that is given up by the module's rule.

    Raises:
        SourceDown: the source as a whole does not answer.
    """
    failed: dict[int, Unreadable] = {}
    in_a_row = 0
    for place, outcome in reader.read_ahead():
        item = reader.items[place]
        if not isinstance(outcome, Unreadable):
            in_a_row = 0
            check.saw(item)
            yield place, outcome
        elif item.error is not None:
            yield place, item.error
        else:
            failed[place] = outcome
            in_a_row += 1
            if in_a_row == _IN_A_ROW:  # soon, and not after a whole chunk of timeouts
                check.require(reader, item, str(outcome))
                in_a_row = 0
    if not failed:
        return
    _require_for_last(reader, check, failed)
    again = [place for place, outcome in failed.items() if outcome.transient]
    for place in again:
        try:
            content = reader.fetch(reader.items[place])
        except Unreadable as error:
            failed[place] = error
        else:
            del failed[place]
            check.saw(reader.items[place])
            yield place, content
    if again and failed:
        _require_for_last(reader, check, failed)
    for place, outcome in failed.items():
        yield place, str(outcome)


def _require_for_last(reader: ChunkReader, check: SourceCheck, failed: dict[int, Unreadable]) -> None:
    place = list(failed)[-1]
    check.require(reader, reader.items[place], str(failed[place]))


def _in_background(action: Callable[..., Any], *args: Any) -> "Future[Any]":
    """Run in a daemon thread: a program that ends does not wait for a server that does not answer."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(action(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _read_file(path: str, begin: int | None, end: int | None, timeout: float) -> bytes:
    """A file or the bytes begin…end of it."""
    local = local_path(path)
    if local is not None:
        status = os.stat(local)
        if stat.S_ISDIR(status.st_mode):
            raise Unreadable("a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("not an ordinary file")  # reading a pipe could last for ever
        if begin is None and status.st_size > MAX_BYTES:
            raise Unreadable(f"{status.st_size / 1e9:.1f} GB are no photo")
        with open(local, "rb") as file:
            file.seek(begin or 0)
            return file.read() if end is None else file.read(end - (begin or 0))
    fs, inner = filesystem(path)
    if not getattr(fs, "async_impl", False):
        return bytes(fs.cat_file(inner, start=begin, end=end))
    from fsspec.asyn import sync

    if begin is None and path.startswith(("http://", "https://")):
        return bytes(sync(fs.loop, _get, fs, inner, timeout=timeout))
    return bytes(sync(fs.loop, fs._cat_file, inner, start=begin, end=end, timeout=timeout))


async def _get(fs: Any, url: str) -> bytes:
    """A file by HTTP, refused as soon as it is known to be too large (fsspec would read it all)."""
    session = await fs.set_session()
    async with session.get(fs.encode_url(url), **fs.kwargs) as answer:
        fs._raise_not_found_for_status(answer, url)
        parts, size = [], 0
        async for part in answer.content.iter_chunked(1 << 20):
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                raise Unreadable(f"more than {MAX_BYTES / 1e9:.1f} GB are no photo")
        return b"".join(parts)


def open_parquet(path: str) -> Any:
    """A `pyarrow.parquet.ParquetFile`, local or behind a URL; use it as a context."""
    local = local_path(path)
    if local is not None:
        return parquet.ParquetFile(local)
    fs, inner = filesystem(path)
    return parquet.ParquetFile(fs.open(inner, "rb"))


def _read_rows(file: Any, group: int, first: int, wanted: set[int], column: str) -> dict[int, bytes | None]:
    """The images of some rows of a row group, which is streamed: it may be larger than memory."""
    found: dict[int, bytes | None] = {}
    place = first
    for batch in file.iter_batches(batch_size=32, row_groups=[group], columns=[column]):
        values = batch.column(0)
        for index in range(len(values)):
            if place + index in wanted:
                value = values[index].as_py()
                found[place + index] = value.get("bytes") if isinstance(value, dict) else value
        place += len(values)
        if place > max(wanted):
            break
    return found
