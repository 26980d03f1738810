"""The COCO record of each input image: from an annotation file by file name, otherwise a new one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpmask.errors import DataError, ImageError


class Records:
    """Records for `paths`; `known` tells whether they come from an annotation file.

    Raises:
        DataError: the annotation file cannot be used, or knows none of the images.
    """

    def __init__(self, annotations: Path | None, paths: Sequence[Path]) -> None:
        self._records = _read_image_records(annotations) if annotations else None
        self.known = self._records is not None
        if self._records is not None and not any(_find_record(self._records, path) for path in paths):
            raise DataError(f"{annotations}: lists none of the {len(paths)} input images; do the file names agree?")

    def find(self, number: int, path: Path) -> dict[str, Any]:
        """The record of a path; a new one has the id `number`. Raises ImageError when the annotations lack it."""
        if self._records is None:
            return {"id": number, "file_name": path.as_posix()}
        record = _find_record(self._records, path)
        if record is None:
            raise ImageError(f"{path}: not listed in the annotation file")
        return record

    def sized(self, record: dict[str, Any], path: Path, width: int, height: int) -> dict[str, Any]:
        """The record with the image's size; ImageError when it says another one."""
        listed = (record.get("width", width), record.get("height", height))
        if listed != (width, height):
            raise ImageError(
                f"{path}: is {width}x{height} (after applying its EXIF orientation), but the annotation file says "
                f"{listed[0]}x{listed[1]}; the masks would not fit"
            )
        return {**record, "width": width, "height": height}


def _read_image_records(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The image records of a COCO annotation file by the last part of their file names."""
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        records: dict[str, list[dict[str, Any]]] = {}
        for image in images:
            records.setdefault(Path(image["file_name"]).name, []).append({**image, "id": int(image["id"])})
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no COCO annotation file; it needs 'images' with 'id' and 'file_name'") from error
    return records


def _find_record(known: dict[str, list[dict[str, Any]]], path: Path) -> dict[str, Any] | None:
    """The record whose file name agrees with the most parts of the path, counted from the end; None without any."""

    def agreement(record: dict[str, Any]) -> int:
        pairs = zip(reversed(Path(record["file_name"]).parts), reversed(path.absolute().parts), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(Path(record["file_name"]).parts))

    return max(known.get(path.name, []), key=agreement, default=None)
