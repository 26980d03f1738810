"""Folders and files that are local or behind an fsspec URL, and the rule which failures are worth another try.

A path without "://" is local and needs no fsspec. Everything else goes through the file system that fsspec has for the
URL's scheme; its credentials and addresses come from the environment (AWS_ENDPOINT_URL, FSSPEC_S3_KEY, …).
"""

import os
import random
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

from sharpmask.errors import ConfigError, MissingExtraError, SharpMaskError

T = TypeVar("T")
# Stores in which a file appears whole when its upload ends; elsewhere it is written beside and renamed.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "memory"}
# Failures that another try does not mend. What is in neither list (timeouts, resets, throttling, 5xx) may pass.
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError)
_PERMANENT_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ParamValidationError"}  # botocore's


class Stopped(Exception):
    """Another part of the run has failed: this one ends without a result."""


def is_url(path: str) -> bool:
    return "://" in path


def local_path(path: str) -> str | None:
    """The path on this machine that a path or file:// URL means; None for another URL."""
    if path.startswith("file://"):
        return path.removeprefix("file://")
    return None if is_url(path) else path


def join(base: str, name: str) -> str:
    """`name` below the folder `base`, or `name` itself where it is a URL or an absolute path."""
    if not base or is_url(name) or (not is_url(base) and os.path.isabs(name)):
        return name
    return f"{base.rstrip('/')}/{name}" if is_url(base) else os.path.join(base, name)


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL and the path within it.

    Raises:
        MissingExtraError: fsspec is not installed.
        ConfigError: the scheme is not known, or its package is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("fsspec", "bulk", f"the address {url}") from error
    scheme = url.split("://", 1)[0]
    try:
        # Listings are not kept: they would fill the memory, and miss what changed since.
        options = {} if scheme in ("http", "https", "memory") else {"use_listings_cache": False}
        fs, path = url_to_fs(url, **options)
    except ImportError as error:
        raise ConfigError(f"addresses with {scheme}:// need one more package ({error}): install it with pip") from None
    except ValueError as error:
        raise ConfigError(f"{url}: {error}") from None
    return fs, path


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, _PERMANENT) or type(error).__name__ in _PERMANENT_NAMES:
        return False
    status = getattr(error, "status", None)  # aiohttp's ClientResponseError
    return not (isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429))


def describe(error: BaseException) -> str:
    """One line about an error from below, which may have no text of its own."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"the server answers {status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, FileNotFoundError):
        return "no such file"
    text = (getattr(error, "strerror", None) or str(error) or "").strip().splitlines()
    if isinstance(error, TimeoutError) and not text:
        return "no answer in time"
    return text[0][:300] if text else type(error).__name__


@dataclass(frozen=True)
class Patience:
    """How often and how long to try to read or write.

    Attributes:
        attempts: tries in all, while failures are of a kind that may pass.
        timeout: seconds for one try (remote files of the asynchronous kinds: S3, Google, Azure, HTTP).
        delay: seconds before the second try; doubled before each further one, with a random part against crowds.
    """

    attempts: int = 4
    timeout: float = 60.0
    delay: float = 0.5

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"read attempts {self.attempts}: must be at least 1")
        if not self.timeout > 0:
            raise ConfigError(f"read timeout {self.timeout:g}: must be more than 0 seconds")

    def insist(self, action: Callable[[], T], stop: threading.Event | None = None) -> T:
        """The action's result; its last error when all tries failed. `Stopped` when `stop` is set between two."""
        for attempt in range(1, self.attempts + 1):
            try:
                return action()
            except Exception as error:
                if attempt == self.attempts or not is_transient(error):
                    raise
            pause = self.delay * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
            if (stop or threading.Event()).wait(pause):
                raise Stopped
        raise AssertionError("not reached")


class Place:
    """The folder a run writes to. Files in it appear whole or not at all.

    Raises (all methods):
        SharpMaskError: the place cannot be read or written, with what to do about it.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        path = local_path(url)
        self.url, self.patience = (url if path is None else os.path.abspath(path)).rstrip("/"), patience or Patience()
        self.folder = None if path is None else Path(self.url)
        self._remote: tuple[Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_remote": None}  # connections do not travel

    def __str__(self) -> str:
        return self.url

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder, keep other runs out of it, and remove what a killed one left half-written.

        Remote places have no locks: two runs there do work twice, but, as every chunk's files have the same names, not
        results.

        Raises:
            ConfigError: the folder cannot be made, or another run is writing to it.
        """
        if self.folder is None:
            yield
            return
        temporary = self.folder / "_tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            lock = open(temporary / "lock", "w")  # noqa: SIM115 - closed below
        except OSError as error:
            raise ConfigError(f"cannot use the folder {self.folder}: {error.strerror or error}") from error
        with lock:
            if not _lock(lock):
                raise ConfigError(f"another run is writing to {self}: wait for it, or choose another folder")
            for leftover in temporary.glob("*.tmp"):
                leftover.unlink(missing_ok=True)
            yield
        shutil.rmtree(temporary, ignore_errors=True)

    def write(self, name: str, data: Any) -> None:
        """Put a whole file (bytes-like) in place under `name`, over an older one of that name."""
        if self.folder is not None:
            target = self.folder / name
            # Not beside the target: a kill would leave a file there that readers of the folder take for a result.
            beside = self.folder / "_tmp" / f"{uuid.uuid4().hex}.tmp"
            try:
                beside.parent.mkdir(parents=True, exist_ok=True)
                target.parent.mkdir(exist_ok=True)
                with open(beside, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, target)
            except OSError as error:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
                raise SharpMaskError(f"cannot write {target}: {error.strerror or error}") from error
            return
        fs, path = self._fs(name)
        try:
            self.patience.insist(lambda: _put(fs, path, bytes(data)))
        except Exception as error:
            raise SharpMaskError(f"cannot write {self.url}/{name}: {describe(error)}") from error

    def read(self, name: str) -> bytes:
        """The content of a file; FileNotFoundError when there is none."""
        if self.folder is not None:
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                raise
            except OSError as error:
                raise SharpMaskError(f"cannot read {self.folder / name}: {error.strerror or error}") from error
        fs, path = self._fs(name)
        return self._ask(name, lambda: fs.cat_file(path))

    def names(self, folder: str) -> set[str]:
        """Names of the files directly in a sub-folder; none when it does not exist."""
        if self.folder is not None:
            try:
                return {entry.name for entry in os.scandir(self.folder / folder) if entry.is_file()}
            except FileNotFoundError:
                return set()
            except OSError as error:
                raise SharpMaskError(f"cannot list {self.folder / folder}: {error.strerror or error}") from error
        fs, path = self._fs(folder)
        try:
            found = self._ask(folder, lambda: fs.ls(path, detail=True))
        except FileNotFoundError:
            return set()
        return {entry["name"].rsplit("/", 1)[-1] for entry in found if entry["type"] == "file"}

    def exists(self, name: str) -> bool:
        if self.folder is not None:
            return (self.folder / name).is_file()
        fs, path = self._fs(name)
        return bool(self._ask(name, lambda: fs.exists(path)))

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)
            return
        fs, path = self._fs(name)
        with suppress(FileNotFoundError):
            self._ask(name, lambda: fs.rm_file(path))

    def _fs(self, name: str = "") -> tuple[Any, str]:
        if self._remote is None:
            self._remote = filesystem(self.url)
        fs, root = self._remote
        return fs, f"{root}/{name}" if name else root

    def _ask(self, name: str, action: Callable[[], T]) -> T:
        try:
            return self.patience.insist(action)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise SharpMaskError(f"cannot read {self.url}/{name}: {describe(error)}") from error


def _lock(file: TextIO) -> bool:
    """Whether the file could be locked; also True where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without
        return True
    return True


def _put(fs: Any, path: str, data: bytes) -> None:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & _OBJECT_STORES:
        fs.pipe_file(path, data)
        return
    folder, name = path.rsplit("/", 1)
    fs.makedirs(folder, exist_ok=True)
    beside = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
    fs.pipe_file(beside, data)
    fs.mv(beside, path)


@dataclass(frozen=True)
class File:
    """A file of a source: `name` relative to the source's base, bytes, and a mark that changes with its content."""

    name: str
    size: int | None = None
    version: str | None = None


def walk(root: str) -> Iterator[File]:
    """All files below a folder whose names do not begin with a dot, in a fixed order; names relative to it.

    Links are followed, each folder once.

    Raises:
        OSError and what the file system raises: a folder that cannot be listed.
    """
    path = local_path(root)
    yield from _walk_remote(root) if path is None else _walk_local(path)


def _walk_local(root: str) -> Iterator[File]:
    def fail(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=fail):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield stat_local(os.path.join(folder, name), os.path.relpath(os.path.join(folder, name), root))


def stat_local(path: str, name: str) -> File:
    """The record of a local file; without size where it cannot be looked at, which reading it will report."""
    try:
        status = os.stat(path)
    except OSError:
        return File(name)
    return File(name, status.st_size, str(status.st_mtime_ns))


def _walk_remote(root: str) -> Iterator[File]:
    fs, top = filesystem(root)
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        listed = Patience().insist(partial(fs.ls, folder, detail=True))
        entries = sorted(listed, key=lambda entry: entry["name"])
        folders = []
        for entry in entries:
            # Markers of empty "folders" in object stores carry the folder's own name.
            name = entry["name"].rstrip("/")
            if name == folder.rstrip("/") or name.rsplit("/", 1)[-1].startswith("."):
                continue
            if entry["type"] == "directory":
                folders.append(entry["name"])
            elif not entry["name"].endswith("/"):
                yield stat_remote(entry, name[len(top.rstrip("/")) + 1 :])
        waiting += reversed(folders)


def stat_remote(entry: dict[str, Any], name: str) -> File:
    """The record of a file from fsspec's description of it."""
    mark = next((entry[key] for key in ("ETag", "etag", "mtime", "LastModified") if entry.get(key)), None)
    return File(name, entry.get("size"), None if mark is None else str(mark))
