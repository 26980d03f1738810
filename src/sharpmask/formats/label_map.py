"""Label maps: `label_map/<name>.png` for each photo, 16-bit grey: 0 where nothing is, else the rank (from 1) of the
best proposal that holds the pixel. Masks that better ones cover wholly do not appear."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from sharpmask.errors import ConfigError
from sharpmask.files import atomic_write, make_folder
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals

_MOST = 65535


@contextmanager
def open_label_map(output: Path, options: FormatOptions) -> Iterator[Write]:
    folder = make_folder(output / "label_map")

    def write(photo: Photo, proposals: Proposals) -> None:
        if len(proposals) > _MOST:
            raise ConfigError(f"{photo.path}: {len(proposals)} masks, but a 16-bit label map holds {_MOST}; take fewer")
        target = folder / f"{photo.name}.png"
        if target.resolve() == photo.path.resolve():
            raise ConfigError(f"{target}: is an input and would be overwritten; choose another output folder")
        with atomic_write(target) as temporary:
            Image.fromarray(proposals.label_map().astype(np.uint16)).save(temporary, "PNG")

    yield write
