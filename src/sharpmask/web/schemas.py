"""What goes over the wire, as it is checked and as the OpenAPI document describes it."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sharpmask.formats import PHOTO_FORMATS
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.ranking import DEFAULT_RANKING, Ranking
from sharpmask.web.limits import MAX_MASKS, MAX_TOP

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a misspelt name is told and not ignored


class ProposalSettings(_Strict):
    """How an image is searched."""

    top: Annotated[int, Field(ge=1, le=MAX_TOP)] = Field(
        default=300, description="Windows to decode, the best of all scales: at most as many masks."
    )
    zoom: Annotated[int, Field(ge=0, le=2)] = Field(
        default=0, description="0, 1 or 2 further scales for small objects; each takes more time."
    )
    threshold: float = Field(
        default=0.2, gt=0, lt=1, allow_inf_nan=False, description="Probability above which a pixel belongs to the mask."
    )
    ranking: Ranking = Field(
        default=DEFAULT_RANKING,
        description="soft: near-copies of better masks come later; paper: by the network's scores alone.",
    )
    nms: Share = Field(default=1.0, description="Drop masks that overlap a better one by a larger IoU; 1 keeps all.")
    min_score: Share = Field(default=0.0, description="Drop masks of a smaller score.")
    fit: Annotated[int, Field(ge=0, le=20_000)] = Field(
        default=640,
        description=(
            "An image whose longer side has more pixels than this is searched at the scales of one that has as many, "
            "so that large objects are found and time stays bounded; masks have the image's own resolution all the "
            "same. 0: search at the scales of the command line and of Python, however large the image is."
        ),
    )


class ImageInfo(BaseModel):
    file_name: str = Field(description="The last part of the name that the client gave.")
    width: int = Field(description="Pixels, after the EXIF orientation.")
    height: int


class Rle(_Strict):
    """A mask as COCO's compressed run-length code."""

    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(description="[height, width]")
    # Numbers in digits of 5 bits; a number of more than 7 digits is larger than any image.
    counts: str = Field(min_length=1, max_length=500_000, pattern=r"^([P-o]{0,6}[0-O])+$")


class Proposal(BaseModel):
    """A mask of one object; better ones come first."""

    score: float = Field(description="Probability that there is one whole object; only the order has meaning.")
    bbox: tuple[float, float, float, float] = Field(description="The mask's box: x, y, width, height in pixels.")
    area: int = Field(description="Pixels of the mask.")
    segmentation: Rle


class Found(BaseModel):
    """The masks of one image."""

    image: ImageInfo
    proposals: list[Proposal]
    seconds: float = Field(description="Time for this image without waiting.")


class Failed(BaseModel):
    """A file of a batch that gave no masks."""

    file_name: str
    status: int = Field(description="The status that the file alone would have got.")
    detail: str


class Batch(BaseModel):
    """One entry for each file, in their order."""

    results: list[Found | Failed]


class MaskToExport(_Strict):
    score: Share
    segmentation: Rle


class ImageToExport(_Strict):
    file_name: str = Field(min_length=1, max_length=255)
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    proposals: list[MaskToExport] = Field(max_length=MAX_MASKS)


class ExportOptions(_Strict):
    """What the writers can be told; each format uses what concerns it."""

    label: str = Field(default="object", min_length=1, max_length=200, pattern=r"\S", description="Name of the class.")
    shapes: Annotated[str, Field(pattern="^(masks|polygons)$")] | None = Field(
        default=None, description="masks or polygons, for cvat, label-studio (else masks) and labelme (else polygons)."
    )
    simplify: float = Field(
        default=0, ge=0, le=1000, allow_inf_nan=False, description="Pixels an outline may move to have fewer points."
    )
    from_name: str = Field(
        default="label", min_length=1, max_length=200, pattern=r"\S", description="Label Studio: label tag."
    )
    to_name: str = Field(
        default="image", min_length=1, max_length=200, pattern=r"\S", description="Label Studio: image tag."
    )
    image_prefix: str = Field(
        default="/data/local-files/?d=",
        max_length=1000,
        description="Label Studio: image address before the file name.",
    )

    def to_format_options(self) -> FormatOptions:
        return FormatOptions(**self.model_dump())


def _known(name: str) -> str:
    if name not in PHOTO_FORMATS:
        raise ValueError(f"there are: {', '.join(PHOTO_FORMATS)}")
    return name


class ExportRequest(_Strict):
    """Masks to be written in a format of another program. The page sends back those that it was given."""

    format: Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(PHOTO_FORMATS)})]
    images: list[ImageToExport] = Field(min_length=1)
    options: ExportOptions = ExportOptions()


class Info(BaseModel):
    """What this server is and allows."""

    version: str
    model: str
    formats: list[str]
    max_body: int = Field(description="Bytes of a request.")
    max_pixels: int = Field(description="Of an image.")
    max_files: int = Field(description="Of a batch.")
    timeout: float = Field(description="Seconds for an image, waiting included.")
    local: bool = Field(description="Whether only this machine can reach the server.")


class Health(BaseModel):
    status: str
    waiting: int = Field(description="Images in the queue.")
    running: bool = Field(description="Whether one is worked on.")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
