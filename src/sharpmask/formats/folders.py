"""Folders for the formats that write a file a photo."""

from pathlib import Path

from sharpmask.errors import ConfigError


def make_folder(path: Path) -> Path:
    """The folder, made where it is not there yet; ConfigError when it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return path
