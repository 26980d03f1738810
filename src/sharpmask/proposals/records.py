"""The COCO record of each input image: from an annotation file by file name, otherwise a new one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpmask.errors import DataError, ImageError
from sharpmask.files import writable


class Records:
    """Records for `paths`; `known` tells whether they come from an annotation file.

    A record belongs to the path whose end agrees best with its file name.

    Raises:
        DataError: the annotation file cannot be used, or knows none of the images.
    """

    def __init__(self, annotations: Path | None, paths: Sequence[Path]) -> None:
        self.known = annotations is not None
        if annotations is None:
            return
        records = _read_image_records(annotations)
        self._found = {path: _find_record(records, path) for path in paths}
        self._owners: dict[Any, tuple[int, list[Path]]] = {}  # record id -> agreement, and the paths that agree so well
        for path, (record, agreement) in self._found.items():
            if record is None:
                continue
            best, owners = self._owners.get(record["id"], (0, []))
            if agreement > best:
                self._owners[record["id"]] = agreement, [path]
            elif agreement == best:
                owners.append(path)
        if not self._owners:
            raise DataError(f"{annotations}: lists none of the {len(paths)} input images; do the file names agree?")

    def find(self, number: int, path: Path) -> dict[str, Any]:
        """The record of a path; a new one has the id `number`.

        Raises:
            ImageError: the annotations lack it, or another of the paths may as well be the one they mean.
        """
        if not self.known:
            return {"id": number, "file_name": writable(path.as_posix())}
        record, _ = self._found[path]
        if record is None:
            raise ImageError(f"{path}: not listed in the annotation file")
        owners = self._owners[record["id"]][1]
        if owners != [path]:
            other = next(owner for owner in owners if owner != path)
            raise ImageError(
                f"{path}: the annotation file's '{record['file_name']}' may be this or {other}; give it folders as well"
                if path in owners
                else f"{path}: not listed in the annotation file, whose '{record['file_name']}' is {other}"
            )
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
        images = json.loads(path.read_bytes())["images"]
        records: dict[str, list[dict[str, Any]]] = {}
        for image in images:
            if isinstance(image["id"], bool) or not isinstance(image["id"], int):
                raise DataError(f"{path}: has the image id {image['id']!r}; ids of images are whole numbers")
            records.setdefault(Path(image["file_name"]).name, []).append(image)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no COCO annotation file; it needs 'images' with 'id' and 'file_name'") from error
    return records


def _find_record(known: dict[str, list[dict[str, Any]]], path: Path) -> tuple[dict[str, Any] | None, int]:
    """The record whose file name agrees with the most parts of the path, counted from the end, and how many these are;
    None and 0 without any."""

    def agreement(record: dict[str, Any]) -> int:
        pairs = zip(reversed(Path(record["file_name"]).parts), reversed(path.absolute().parts), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(Path(record["file_name"]).parts))

    record = max(known.get(path.name, []), key=agreement, default=None)
    return record, 0 if record is None else agreement(record)
