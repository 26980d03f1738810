"""What a writer can be told."""

from collections.abc import Sequence
from dataclasses import dataclass

from sharpmask.errors import ConfigError

SHAPES = ("masks", "polygons")
COORDINATES = ("auto", "ground", "wgs84", "pixels")


@dataclass(frozen=True)
class FormatOptions:
    """Settings of the writers; each format uses those that concern it.

    Attributes:
        simplify: pixels by which an outline may move to have fewer points; 0 keeps every pixel.
        shapes: "masks" or "polygons" where a format can hold either; None: as the format's module says.
        label: the name of the only class.
        from_name, to_name: Label Studio: the names of the label tag and of the image tag in the labelling set-up.
        coordinates: GeoJSON and GeoPackage: "auto" or "ground", those of the photo's own coordinate system where it has
            one, else pixels; "wgs84", longitude and latitude; "pixels".
        image_prefix: Label Studio: what stands before each file name in the task's image address.

    Raises:
        ConfigError: a value outside its range.
    """

    simplify: float = 0.0
    shapes: str | None = None
    label: str = "object"
    from_name: str = "label"
    to_name: str = "image"
    image_prefix: str = "/data/local-files/?d="
    coordinates: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.simplify < float("inf"):
            raise ConfigError(f"simplify {self.simplify:g}: must be a number of pixels, 0 or more")
        if self.shapes not in (None, *SHAPES):
            raise ConfigError(f"shapes '{self.shapes}': must be {' or '.join(SHAPES)}")
        if self.coordinates not in COORDINATES:
            raise ConfigError(f"coordinates '{self.coordinates}': must be one of {', '.join(COORDINATES)}")
        for name in ("label", "from_name", "to_name"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name} is empty: give a name")


_OUTLINES = ("coco-polygons", "cvat", "geojson", "geopackage", "label-studio", "labelme", "yolo")
# The formats that a setting is for; `label` is for all that have names.
USED_BY = {
    "simplify": _OUTLINES,
    "shapes": ("cvat", "label-studio", "labelme"),
    "from_name": ("label-studio",),
    "to_name": ("label-studio",),
    "image_prefix": ("label-studio",),
    "coordinates": ("geojson", "geopackage"),
}


def assert_used(options: FormatOptions, formats: Sequence[str]) -> None:
    """Refuse settings that none of the formats looks at.

    Raises:
        ConfigError: which setting, and what it is for.
    """
    for name, users in USED_BY.items():
        if getattr(options, name) != getattr(FormatOptions(), name) and not set(users) & set(formats):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option} has no effect with --format {','.join(formats)}; it is for: {', '.join(users)}"
            )
