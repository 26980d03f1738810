"""Masks that a client sends back, checked and written in the formats of other programs."""

import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sharpmask.formats import Photo, open_formats
from sharpmask.proposals.folder import photo_names
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import decode_counts, encode_runs, runs_of_ones
from sharpmask.web.jobs import Stop, Stopped
from sharpmask.web.limits import MAX_RUNS, Limits
from sharpmask.web.schemas import ExportRequest, ImageToExport
from sharpmask.web.uploads import Refused, file_stem, safe_name

MEDIA_TYPES = {
    ".geojson": "application/geo+json",
    ".gpkg": "application/geopackage+sqlite3",
    ".json": "application/json",
    ".png": "image/png",
    ".txt": "text/plain",
    ".xml": "application/xml",
    ".zip": "application/zip",
}
OTHER_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Exported:
    """A file to be sent: the only one that a format wrote, or a ZIP of several."""

    name: str
    data: bytes

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES.get(Path(self.name).suffix, OTHER_TYPE)


def check_export(request: ExportRequest, limits: Limits) -> list[Proposals]:
    """The masks of each image.

    Raises:
        Refused: an image or a mask that is too large (413), or a code that is no mask of the image (422).
    """
    if len(request.images) > limits.max_files:
        raise Refused(413, f"{len(request.images)} images: at most {limits.max_files} in one request")
    return [_checked_proposals(image, limits.max_pixels) for image in request.images]


def export(request: ExportRequest, proposals: Sequence[Proposals], stop: Stop) -> Exported:
    """Write `proposals`, those of the images of `request`, in its format.

    Raises:
        SharpMaskError: the format refuses them or is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="sharpmask-") as name:
        folder = Path(name)
        # Writers that point to the photo get one beside their own file: where users are told to put it.
        paths = [folder / request.format / safe_name(image.file_name) for image in request.images]
        names = photo_names([Path(str(i), f"{file_stem(path.name)}.image") for i, path in enumerate(paths)])
        with open_formats([request.format], folder, request.options.to_format_options()) as write:
            for number, (image, path, stem, masks) in enumerate(
                zip(request.images, paths, names.values(), proposals, strict=True), start=1
            ):
                if stop():
                    raise Stopped
                record = {"id": number, "file_name": path.name, "width": image.width, "height": image.height}
                write(Photo(path, stem, record), masks)
        return _collect(folder, file_stem(paths[0].name), request.format)


def _collect(folder: Path, stem: str, format_name: str) -> Exported:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(files) == 1:
        name = files[0].name
        return Exported(name if Path(name).stem == stem else f"{stem}-{name}", files[0].read_bytes())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(folder).as_posix())
    return Exported(f"{stem}-{format_name}.zip", packed.getvalue())


def _checked_proposals(image: ImageToExport, max_pixels: int) -> Proposals:
    """The masks in their simplest code, best first."""
    name = safe_name(image.file_name)
    size = (image.height, image.width)
    if image.height * image.width > max_pixels:
        raise Refused(413, f"{name}: {image.width}x{image.height} is more than the limit of {max_pixels} pixels")
    starts, ends = [], []
    for number, mask in enumerate(image.proposals, start=1):
        rle = mask.segmentation.model_dump()
        which = f"{name}, mask {number}"
        if tuple(rle["size"]) != size:
            raise Refused(422, f"{which}: its size {list(rle['size'])} is not that of the image, {list(size)}")
        counts = decode_counts(rle)
        if counts.size > 2 * MAX_RUNS:
            raise Refused(413, f"{which}: {counts.size // 2} runs of pixels, more than the limit of {MAX_RUNS}")
        if counts.min() < 0 or counts.sum() != image.height * image.width:
            raise Refused(422, f"{which}: its counts are not those of {image.height * image.width} pixels")
        begin, end = runs_of_ones(rle)
        if begin.size == 0:
            raise Refused(422, f"{which}: has no pixels")
        starts.append(begin)
        ends.append(end)
    lengths = [len(begin) for begin in starts]
    encoded = encode_runs(
        np.repeat(np.arange(len(lengths)), lengths),
        np.concatenate([np.zeros(0, np.int64), *starts]),
        np.concatenate([np.zeros(0, np.int64), *ends]),
        len(lengths),
        size,
    )
    scores = np.array([mask.score for mask in image.proposals], np.float32)
    found = Proposals(
        scores=scores,
        boxes=encoded.boxes,
        rles=encoded.rles,
        windows=encoded.boxes,
        scales=np.full(len(lengths), np.nan, np.float32),
        image_size=size,
        areas=encoded.areas,
    )
    return found[np.argsort(-scores, kind="stable")]
