"""The photos of an annotation file as uint8 arrays, kept in memory up to a limit."""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags
from torch.utils.data import get_worker_info
from tqdm import tqdm

from sharpmask.data.coco import CocoDataset, ImageRecord
from sharpmask.errors import DataError, ImageError
from sharpmask.images import open_image, read_image

DEFAULT_CACHE_BYTES = 2 * 2**30
# A photo may be damaged so that only reading it to its end tells. A run of days does not stop for a few: up to this
# many, or one in a hundred, are reported and passed over.
_UNREADABLE = 10


class UnreadablePhoto(DataError):
    """A photo that is missing, damaged or of another size than its record says."""


def read_photo(record: ImageRecord, image_dir: Path) -> np.ndarray:
    """The photo of a record as uint8 RGB (H, W, 3), of exactly the size the record states.

    An EXIF rotation is applied, as browsers and annotation tools do, unless only the stored orientation has the
    record's size.

    Raises DataError naming the file if it is missing, damaged or of another size.
    """
    path = image_dir / record.file_name
    try:
        photo = read_image(path)
        if photo.shape[:2] != (record.height, record.width) and photo.shape[:2] == (record.width, record.height):
            photo = _read_as_stored(path)
    except ImageError as error:
        raise DataError(f"{error}; it is image {record.id} of the annotations") from error
    if photo.shape[:2] != (record.height, record.width):
        raise DataError(
            f"{path}: is {photo.shape[1]}x{photo.shape[0]} pixels, its annotation record says "
            f"{record.width}x{record.height}"
        )
    return photo


def header_size_matches(record: ImageRecord, image_dir: Path) -> bool:
    """Whether the file's header states the record's size, upright or as stored, without decoding the pixels.

    Raises DataError naming the file if it is missing or no image.
    """
    path, wanted = image_dir / record.file_name, (record.width, record.height)
    try:
        with open_image(path) as file:
            if file.size == wanted:
                return True
            # asked only now: for some formats Pillow decodes the whole file to find it
            turned = file.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return turned and file.size[::-1] == wanted
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; it is image {record.id} of the annotations") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise DataError(f"{path}: cannot be read as an image ({error}); it is image {record.id}") from error


def _read_as_stored(path: Path) -> np.ndarray:
    with open_image(path) as file:
        file.load()
        file.getexif().pop(ExifTags.Base.Orientation, None)
        return read_image(file)


class PhotoCache:
    """Decoded photos of one dataset, kept until `limit_bytes` are used; what does not fit is decoded anew each time.

    Nothing is thrown out again: with random access every photo is as likely to be asked for as the one it would
    replace. In a DataLoader each worker keeps a cache of its own and takes an equal share of the limit; photos loaded
    by `preload` before the workers are forked are shared by all.
    """

    def __init__(self, dataset: CocoDataset, image_dir: str | Path, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.dataset = dataset
        self.image_dir = Path(image_dir)
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.unreadable: dict[int, str] = {}
        """what is wrong with the photos that could not be read, by image id; they are not tried again"""
        self._reported: set[int] = set()
        self._photos: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        # a spawned worker starts with an empty cache instead of receiving gigabytes through a pipe
        return {"dataset": self.dataset, "image_dir": self.image_dir, "limit_bytes": self.limit_bytes}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __getitem__(self, image_id: int) -> np.ndarray:
        """The photo of image `image_id`, uint8 (H, W, 3), not to be written to.

        Raises UnreadablePhoto with the message of `read_photo`.
        """
        photo = self._photos.get(image_id)
        if image_id in self.unreadable:
            raise UnreadablePhoto(self.unreadable[image_id])
        if photo is None:
            try:
                photo = read_photo(self.dataset.image_by_id[image_id], self.image_dir)
            except DataError as error:
                self.unreadable[image_id] = str(error)
                raise UnreadablePhoto(str(error)) from error
            worker = get_worker_info()
            share = self.limit_bytes // worker.num_workers if worker else self.limit_bytes
            with self._lock:
                if image_id not in self._photos and self.used_bytes + photo.nbytes <= share:
                    self._photos[image_id] = photo
                    self.used_bytes += photo.nbytes
        return photo

    def report_unreadable(self) -> None:
        """Tell of photos that cannot be read, once each; raises DataError when they are no longer an exception."""
        allowed = max(_UNREADABLE, len(self.dataset.image_by_id) // 100)
        for image_id, fault in self.unreadable.items():
            if image_id in self._reported:
                continue
            if len(self._reported) == allowed:
                raise DataError(
                    f"{self.dataset.path}: more than {allowed} photos cannot be read, which is no accident (one more: "
                    f"{fault}); `sharpmask check` lists them all"
                )
            self._reported.add(image_id)
            print(f"{fault}; it is passed over", file=sys.stderr)

    def readable(self, image_ids: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """The images that can be read, with their photos; the others are told of. Raises as `report_unreadable`."""
        for image_id in image_ids:
            try:
                photo = self[image_id]
            except UnreadablePhoto:
                self.report_unreadable()
                continue
            yield image_id, photo

    def preload(self, image_ids: list[int], *, progress: bool = False) -> int:
        """Decode the photos in the order given until the limit is reached; returns how many are in memory then.

        What cannot be read is left out, and found in `unreadable`.
        """
        for image_id in tqdm(image_ids, desc="reading photos", unit="photo", disable=None if progress else True):
            record = self.dataset.image_by_id[image_id]
            if self.used_bytes + 3 * record.width * record.height > self.limit_bytes:
                break
            with suppress(UnreadablePhoto):
                self[image_id]
        return len(self._photos)
