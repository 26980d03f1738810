"""The photos of a report: their files, and their pixels and masks at the size in which a page shows them.

Letters: H W the photo's size in pixels, h w the size shown.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from sharpmask.data.coco import ImageRecord
from sharpmask.data.photos import read_photo
from sharpmask.errors import DataError
from sharpmask.evaluation.inputs import Annotations, ImageId
from sharpmask.images import read_image
from sharpmask.proposals.rle import Rle, decode_counts

THUMBNAIL = 256  # pixels of the longer side in the gallery


@dataclass(frozen=True)
class PhotoFile:
    """One photo that is listed: its id, name as listed, file, and (H, W) where the list says it."""

    image_id: ImageId
    name: str
    path: Path
    size: tuple[int, int] | None

    def read(self) -> np.ndarray:
        """The pixels, uint8 RGB (H, W, 3). Raises DataError: unreadable, or of another size than listed."""
        if self.size is None:
            return read_image(self.path)
        height, width = self.size
        record = ImageRecord(id=cast(int, self.image_id), file_name=str(self.path), height=height, width=width)
        return read_photo(record, Path())


def find_photos(listed: Annotations, folder: Path) -> dict[ImageId, PhotoFile]:
    """The files of the listed images that are there, by id, in the order of the list.

    A file name may hold folders, also such as lie above `folder`: the longest end of it that is a file in `folder`
    counts.

    Raises:
        DataError: `folder` is none, or two images would have the same file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; give the folder that holds the images")
    names = {image_id: name for name, image_id in listed.file_names.items()}
    found: dict[ImageId, PhotoFile] = {}
    owner: dict[Path, str] = {}
    for image_id in listed.image_ids:
        name = names.get(image_id, "")
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
        ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
        path = next((end for end in ends if end.is_file()), None)
        if path is None:
            continue
        if path in owner:
            raise DataError(
                f"{listed.source}: {owner[path]} and {name} would both be {path}; give the folder that the file names "
                "are relative to"
            )
        owner[path] = name
        found[image_id] = PhotoFile(image_id, name, path, listed.sizes[image_id])
    return found


def shown_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(h, w) of a photo of (H, W) whose longer side is at most `longest` pixels."""
    shrink = min(1.0, longest / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))


def jpeg_address(pixels: np.ndarray, size: tuple[int, int], quality: int) -> str:
    """The photo at (h, w) as a `data:` address that a page can embed."""
    image = Image.fromarray(pixels)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def mask_area(rle: Rle) -> int:
    """Pixels of the mask."""
    return int(decode_counts(rle)[1::2].sum())


def shown_mask(rle: Rle, size: tuple[int, int]) -> str:
    """The compressed run lengths of the mask at (h, w): each shown pixel is what lies under its middle.

    Only pixels that are shown are looked up, so that masks of large photos cost no more than small ones.
    """
    height, width = rle["size"]
    if (height, width) == size:
        return rle["counts"] if isinstance(rle["counts"], str) else rle["counts"].decode("ascii")
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.int64)
    edges = decode_counts(rle).cumsum()
    inside = np.searchsorted(edges, rows[:, None] + columns * height, side="right") % 2 == 1
    code: dict[str, Any] = coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))
    return code["counts"].decode("ascii")
