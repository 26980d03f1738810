"""Writing files so that a reader sees either the old content or the whole new content, never half of it."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sharpmask.errors import ConfigError, SharpMaskError

# Failures of the disk and not of the program: they may surface as an OSError without a file name.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def writable(name: str) -> str:
    """A file's name as text, with what is not Unicode (bytes of another encoding) written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block succeeds, remove it when the block fails.

    The temporary file exists (empty) when the block starts and has the suffix of `path`, so that writers which choose
    a format by suffix work. A link is followed; a device or pipe (such as /dev/stdout) is written directly.

    Raises:
        ConfigError: the folder does not exist or cannot be written to, or `path` is a folder.
        SharpMaskError: the disk is full, read-only or broken. Other exceptions of the block pass unchanged.
    """
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"cannot write {target}: it is a folder; give a file name")
    if target.exists() and not target.is_file():
        yield target
        return
    target = Path(os.path.realpath(target))
    folder = target.parent
    if not folder.is_dir():
        raise ConfigError(f"cannot write {target}: the folder {folder} does not exist; create it first")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:100]}.", suffix=f".tmp{target.suffix}", dir=folder)
    except OSError as error:
        kind = SharpMaskError if error.errno in _DISK_ERRORS else ConfigError
        raise kind(f"cannot write {target}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # without it a power cut after the rename may leave an empty file
        os.chmod(temporary, _default_mode(target))
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.errno in _DISK_ERRORS or error.filename in (name, temporary)):
            raise SharpMaskError(f"cannot write {target}: {error.strerror or error}") from error
        raise


def make_folder(path: Path) -> Path:
    """The folder, made where it is not there yet; ConfigError when it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return path


def _default_mode(target: Path) -> int:
    """Permissions for the new file: those of the file it replaces, otherwise what the umask gives an ordinary file."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
