"""The models that the authors published for Torch7, and where those that were fetched are kept."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """A published model file.

    Attributes:
        url: where it is.
        md5: checksum that users have reported, not an official one; a difference is told, not refused.
        licence: of the weights.
    """

    url: str
    md5: str
    licence: str = "BSD-3-Clause with patent grant (Facebook, 2016)"


_BASE = "https://dl.fbaipublicfiles.com/deepmask/models"
PUBLISHED = {
    "deepmask-fair": Published(f"{_BASE}/deepmask/model.t7", "b4db9112a422acf74c75c9c15bbc3987"),
    "sharpmask-fair": Published(f"{_BASE}/sharpmask/model.t7", "1767d49a3150617b9abfcd054c135afb"),
}


def cache_folder() -> Path:
    """Where fetched models are kept: $SHARPMASK_CACHE, or sharpmask in the user's cache folder."""
    if chosen := os.environ.get("SHARPMASK_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sharpmask"


def published_path(name: str) -> Path | None:
    """The weights file of a published model that was fetched before; None if it was not, or no such model is known."""
    path = cache_folder() / name / f"{name}.safetensors"
    return path if name in PUBLISHED and path.is_file() else None
