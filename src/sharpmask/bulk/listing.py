"""A source to the images in it, one `Item` each, in an order that is the same every time.

A source is a folder (with its sub-folders), a pattern, or a file; what its files are decides how images are found:
image files are images themselves; a text file has a path or URL a line; Parquet files have a column of images or of
paths; tar files are WebDataset shards, whose members with an image's suffix are images. What is damaged there (a shard
that ends too early, a name that cannot be written down) becomes an item with an `error`, so that nothing goes missing
silently; what cannot be reached at all ends the listing.
"""

import itertools
import os
import posixpath
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from glob import glob, has_magic
from hashlib import blake2b

from sharpmask.bulk.reading import Item
from sharpmask.bulk.shards import Columns, find_columns, index_tar, is_damage, rows
from sharpmask.bulk.storage import (
    File,
    Patience,
    describe,
    filesystem,
    is_url,
    join,
    local_path,
    stat_local,
    stat_remote,
    walk,
)
from sharpmask.errors import ConfigError, DataError, SharpMaskError
from sharpmask.files import writable
from sharpmask.images import SUFFIXES

KINDS = ("images", "list", "parquet", "webdataset")
_SUFFIX_KINDS = {
    **dict.fromkeys(SUFFIXES, "images"),
    **dict.fromkeys((".txt", ".lst", ".list"), "list"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    ".tar": "webdataset",
}
_SHARDS_AT_A_TIME = 8
_PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    Attributes:
        kind: one of KINDS; None: by the files' suffixes.
        column: the column of images or paths in Parquet files; None: the only one that can be it.
        key_column: the column of keys in Parquet files; None: the path, or file and row number.

    Raises:
        ConfigError: a kind that does not exist.
    """

    kind: str | None = None
    column: str | None = None
    key_column: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, *KINDS):
            raise ConfigError(f"source format '{self.kind}': must be one of {', '.join(KINDS)}")


class Listing:
    """The images of a source. Iterate once.

    Attributes:
        kind: one of KINDS.
        base: the folder or URL that relative paths in the items start from.
        column: the Parquet column that holds the images themselves; None when it holds paths, or there is none.
        repeated: so far in the iteration: images that were named again, and are taken once.
        left_out: so far in the iteration: files that are neither images nor lists of them, by their suffix.

    Raises:
        ConfigError: the source does not exist, holds no images, or needs options.
        DataError: it cannot be listed.
    """

    def __init__(self, source: str, options: SourceOptions | None = None) -> None:
        self.source, self.options = source.rstrip("/") if len(source) > 1 else source, options or SourceOptions()
        self.repeated = self.left_out = 0
        self.base = _base(self.source)
        try:
            self._is_folder = _is_folder(self.source)
            if self._is_folder:
                path = local_path(self.source)
                self.base = self.source if path is None else os.path.abspath(path)
            # What was named itself is taken whatever its suffix; of a folder or pattern, what is known.
            self._is_named = not self._is_folder and not _has_wildcard(self.source)
            self._kind: str | None = self.options.kind
            self._files: Iterator[File] = self._select(
                walk(self.source) if self._is_folder else _matches(self.source, self.base)
            )
            first = next(self._files, None)
            if first is None:
                raise ConfigError(f"{source}: holds no images, Parquet files or tar shards")
            assert self._kind is not None
            self.kind = self._kind
            self._files = itertools.chain([first], self._files)
            self.columns: Columns | None = None
            if self.kind == "parquet":
                self.columns = self._find_columns()
            elif self.options.column or self.options.key_column:
                raise ConfigError(f"{source} holds {self.kind}: --column and --key-column are for Parquet")
        except SharpMaskError:
            raise
        except Exception as error:
            raise DataError(f"cannot list {source}: {describe(error)}") from error
        self.column = self.columns.image if self.columns and self.columns.holds_images else None

    def _find_columns(self) -> Columns:
        """From the first file that is not damaged."""
        tried = []
        for file in self._files:
            tried.append(file)
            try:
                columns = find_columns(self.base, file.name, self.options.column, self.options.key_column)
            except Exception as error:
                if not is_damage(error):
                    raise
                continue
            self._files = itertools.chain(tried, self._files)
            return columns
        raise DataError(f"{self.source}: {tried[0].name} is no Parquet file, or damaged")

    def __iter__(self) -> Iterator[Item]:
        unique = self.kind == "list" or (self.kind == "parquet" and not self.column)
        seen: set[bytes] = set()
        try:
            for item in self._items():
                mark = blake2b(item.key.encode(), digest_size=12).digest() if unique or self.options.key_column else b""
                if mark and mark in seen:
                    if self.options.key_column:
                        raise DataError(
                            f"{self.source}: two images have the key '{item.key}' in the column "
                            f"'{self.options.key_column}'; choose a column of keys that differ"
                        )
                    self.repeated += 1
                    continue
                if mark:
                    seen.add(mark)
                yield item
        except SharpMaskError:
            raise
        except Exception as error:
            raise DataError(f"cannot list {self.source}: {describe(error)}") from error

    def _items(self) -> Iterator[Item]:
        if self.kind == "webdataset":
            yield from self._members()
            return
        for file in self._files:
            if self.kind == "images":
                yield _image(file)
            elif self.kind == "list":
                yield from _lines(self.base, file)
            else:
                assert self.columns is not None
                yield from rows(self.base, file, self.columns)

    def _members(self) -> Iterator[Item]:
        """The images of all shards. Some shards behind a URL are read at a time: their headers lie far apart."""
        waiting: deque[Future[list[Item | None]]] = deque()
        with ThreadPoolExecutor(1 if local_path(self.base) is not None else _SHARDS_AT_A_TIME) as pool:
            while True:
                while len(waiting) < _SHARDS_AT_A_TIME and (file := next(self._files, None)) is not None:
                    index = partial(lambda file: list(index_tar(self.base, file)), file)
                    waiting.append(pool.submit(Patience().insist, index))
                if not waiting:
                    return
                for item in waiting.popleft().result():
                    if item is None:
                        self.repeated += 1
                    else:
                        yield item

    def _select(self, files: Iterator[File]) -> Iterator[File]:
        """The files of one kind: the given one, or that of the first file, and then no others."""
        for file in files:
            kind = _SUFFIX_KINDS.get(posixpath.splitext(file.name)[1].lower())
            if file.name.endswith(_PACKED_TARS) and self._kind in (None, "webdataset"):
                raise ConfigError(f"{self.source}: {file.name} cannot be read piece by piece; unpack it to .tar")
            if not self._is_folder and self.options.kind:
                kind = self.options.kind
            if kind is None and self._is_named:
                raise ConfigError(f"{self.source}: what it holds cannot be told by its suffix; add --source-format")
            loose_list = kind == "list" and not self._is_named and not self.options.kind  # captions beside photos
            if kind is None or loose_list or (self.options.kind and kind != self._kind):
                self.left_out += 1
                continue
            self._kind = self._kind or kind
            if kind != self._kind:
                raise ConfigError(
                    f"{self.source}: holds {self._kind} and {kind} ({file.name}); choose one with --source-format"
                )
            yield file


def _image(file: File) -> Item:
    path, key = file.name, writable(file.name)
    error = None if key == path else "its name is not valid UTF-8; rename it"
    return Item(key, key if error else path, length=file.size, version=file.version, error=error)


def _lines(base: str, file: File) -> Iterator[Item]:
    """The lines of a text file that are not empty: paths relative to its folder, absolute ones, or URLs."""
    path = join(base, file.name)
    local = local_path(path)
    if local is not None:
        opened = open(local, "rb")  # noqa: SIM115 - closed below
    else:
        fs, inner = filesystem(path)
        opened = Patience().insist(lambda: fs.open(inner, "rb"))
    with opened as lines:
        for number, raw in enumerate(lines):
            line = raw.strip(b"\r\n \t").removeprefix(b"\xef\xbb\xbf" if number == 0 else b"")
            if not line:
                continue
            text = line.decode("utf-8", "backslashreplace")
            broken = b"\x00" in line or text.encode() != line
            yield Item(text, text, error="not valid UTF-8" if broken else None)


def _base(source: str) -> str:
    """The folder of a file or pattern: what stands before the first part with a wildcard, without the file's name."""
    fixed = re.split(r"[{*]" if is_url(source) else r"[{*?\[]", source, maxsplit=1)[0]
    path = local_path(fixed)
    return posixpath.dirname(fixed) if path is None else os.path.abspath(os.path.dirname(path))


def _is_folder(source: str) -> bool:
    path = local_path(source)
    if path is not None:
        return os.path.isdir(path)
    if _expand(source) != [source] or "*" in source or posixpath.splitext(source)[1].lower() in _SUFFIX_KINDS:
        return False
    fs, inner = filesystem(source)
    return bool(Patience().insist(lambda: fs.isdir(inner)))


def _has_wildcard(source: str) -> bool:
    path = local_path(source)
    return "*" in source if path is None else any(has_magic(p) and not os.path.exists(p) for p in _expand(path))


def _matches(source: str, base: str) -> Iterator[File]:
    """The files that a file name or pattern means, in order, named relative to `base`."""
    for part in _expand(source):
        path = local_path(part)
        if path is not None:
            path = os.path.abspath(path)
            found = [path] if os.path.exists(path) or not has_magic(path) else sorted(glob(path, recursive=True))
            found = [match for match in found if not os.path.isdir(match)]
            if not found or not os.path.exists(found[0]):
                raise ConfigError(f"{part}: no such file or folder, or nothing matches")
            yield from (stat_local(match, os.path.relpath(match, base)) for match in found)
            continue
        fs, inner = filesystem(part)
        top = len(filesystem(base)[1].rstrip("/")) + 1
        try:
            if "*" in part:
                entries = Patience().insist(partial(fs.glob, inner, detail=True))
            else:
                entries = {inner: Patience().insist(partial(fs.info, inner))}
        except FileNotFoundError:
            entries = {}
        if not entries:
            raise ConfigError(f"{part}: no such file, or nothing matches")
        yield from (stat_remote(entries[name], name[top:]) for name in sorted(entries))


def _expand(source: str) -> list[str]:
    """Braces as in a shell: {000..012} for numbers, {a,b} for words."""
    parts = re.split(r"\{([^{}]*)\}", source)
    choices: list[list[str]] = []
    for place, part in enumerate(parts):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        if place % 2 == 0:
            choices.append([part])
        elif span:
            width = len(span[1]) if span[1].startswith("0") else 0
            choices.append([f"{number:0{width}d}" for number in range(int(span[1]), int(span[2]) + 1)])
        elif "," in part:
            choices.append(part.split(","))
        else:
            choices.append([f"{{{part}}}"])
    return ["".join(choice) for choice in itertools.product(*choices)]
