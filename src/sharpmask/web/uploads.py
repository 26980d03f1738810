"""Images from a request's body: which bytes are one, how large it is, and its pixels.

Names that clients give are labels and never paths.
"""

import io
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sharpmask.errors import ImageError
from sharpmask.images import open_image, read_image
from sharpmask.web.limits import Limits

# Pillow's names. Not all that it knows: some of its formats run other programs. AVIF came with Pillow 11.3.
Image.init()
FORMATS: list[str] = [
    name for name in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM") if name in Image.OPEN
]


class Refused(Exception):
    """A request or file that is not worked on, with the status to answer and why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Upload:
    """The bytes of a file and a harmless form of the name that came with it."""

    name: str
    data: bytes


def safe_name(name: str | None) -> str:
    """The last part of a file name, without what could make it a path or leave its line; "image" for none."""
    last = re.split(r"[/\\]", name or "")[-1]
    last = "".join(character for character in last if character.isprintable()).strip()
    return last[:120] if last.strip(".") else "image"


def file_stem(name: str) -> str:
    """A name for a file to be written about `name`: only characters, and not more, that every system allows."""
    return re.sub(r"[^\w .,()+&'@=-]", "_", PurePosixPath(name).stem)[:50].strip(" .") or "image"


async def read_one(request: Request) -> Upload:
    """The only file of a body: multipart with a field `file`, or the bytes themselves.

    Raises:
        Refused: another kind of body, no file or several.
    """
    kind = _media_type(request)
    if kind == "multipart/form-data":
        uploads = await _form_files(request, "file", 1)
        if not uploads:
            raise Refused(422, "no file in the field 'file'")
        return uploads[0]
    if kind.startswith("image/") or kind == "application/octet-stream":
        data = await request.body()
        if not data:
            raise Refused(422, "the request has no body: send the bytes of an image")
        return Upload("image", data)
    raise Refused(
        415,
        f"content type '{kind[:100]}': send multipart/form-data with a field 'file', or the bytes of an image as "
        "image/… or application/octet-stream",
    )


async def read_many(request: Request, limits: Limits) -> list[Upload]:
    """The files of a multipart body's field `files`.

    Raises:
        Refused: another kind of body, no file, or too many.
    """
    kind = _media_type(request)
    if kind != "multipart/form-data":
        raise Refused(415, f"content type '{kind[:100]}': send multipart/form-data with the fields 'files'")
    uploads = await _form_files(request, "files", limits.max_files)
    if not uploads:
        raise Refused(422, "no file in the field 'files'")
    return uploads


def check_image(upload: Upload, max_pixels: int) -> None:
    """Read the header only.

    Raises:
        Refused: no image (415), more pixels than allowed (413), or a damaged header (422).
    """
    _open(upload, max_pixels).close()


def decode(upload: Upload, max_pixels: int) -> np.ndarray:
    """The pixels (H,W,3) uint8 (see `sharpmask.images.read_image`).

    Raises:
        Refused: as `check_image`, and for damaged pixels (422).
    """
    with _open(upload, max_pixels) as image:
        try:
            return read_image(image, max_pixels=max_pixels)
        except ImageError as error:
            raise Refused(422, f"{upload.name}: {_reason(error)}") from error
        except Exception as error:  # decoders raise nearly anything on damaged data
            raise Refused(422, f"{upload.name}: damaged or truncated image ({error})") from error


def _open(upload: Upload, max_pixels: int) -> Image.Image:
    try:
        image = open_image(io.BytesIO(upload.data), FORMATS)
    except UnidentifiedImageError as error:
        raise Refused(415, f"{upload.name}: not an image of a known format; there are: {', '.join(FORMATS)}") from error
    except Exception as error:
        raise Refused(422, f"{upload.name}: damaged image ({error})") from error
    width, height = image.size
    if width * height > max_pixels:
        raise Refused(
            413,
            f"{upload.name}: {width}x{height} is {width * height / 1e6:.4g} megapixels, more than the limit of "
            f"{max_pixels / 1e6:g}; make it smaller",
        )
    return image


def _reason(error: ImageError) -> str:
    return re.sub(r"^the PIL image:? ", "", str(error))


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _form_files(request: Request, field: str, most: int) -> list[Upload]:
    """The files of a field; other fields are refused, since they would be settings that have no effect."""
    try:
        async with request.form(max_files=most, max_fields=8) as form:
            uploads = []
            for name, part in form.multi_items():
                if name != field or not isinstance(part, UploadFile):
                    raise Refused(422, f"the field '{name[:100]}': only files in the field '{field}' are read")
                uploads.append(Upload(safe_name(part.filename), await part.read()))
            return uploads
    except HTTPException as error:  # the parser's: a body that is no multipart, or too many parts
        if "Too many files" in error.detail:
            raise Refused(413, f"more than {most} file{'s'[: most > 1]} in one request") from error
        raise Refused(400, f"the multipart body cannot be read: {error.detail}") from error
