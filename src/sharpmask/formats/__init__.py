"""Proposals out, in the forms other programs read: one module a format, one table of their writers.

    with open_formats(["coco", "cvat"], output, FormatOptions()) as write:
        write(photo, proposals)  # photo by photo

A file that holds all photos appears under its name when the block succeeds, a photo's own file when it is written; both
appear whole or not at all. Formats with a file a photo have a folder of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from sharpmask.errors import ConfigError
from sharpmask.formats.coco import open_coco_polygons
from sharpmask.formats.cvat import open_cvat
from sharpmask.formats.geojson import open_geojson
from sharpmask.formats.geopackage import open_geopackage
from sharpmask.formats.label_map import open_label_map
from sharpmask.formats.label_studio import open_label_studio
from sharpmask.formats.labelme import open_labelme
from sharpmask.formats.options import FormatOptions, assert_used
from sharpmask.formats.parquet import open_parquet
from sharpmask.formats.yolo import open_yolo
from sharpmask.formats.youtube_vis import open_youtube_vis
from sharpmask.proposals.folder import Photo, Write, open_coco
from sharpmask.proposals.result import Proposals

__all__ = ["FORMATS", "PHOTO_FORMATS", "FormatOptions", "Photo", "assert_used", "open_formats", "parse_formats"]


def _open_coco(output: Path, options: FormatOptions) -> AbstractContextManager[Write]:
    return open_coco(output, label=options.label)


FORMATS: dict[str, Callable[[Path, FormatOptions], AbstractContextManager[Write]]] = {
    "coco": _open_coco,
    "coco-polygons": open_coco_polygons,
    "cvat": open_cvat,
    "geojson": open_geojson,
    "geopackage": open_geopackage,
    "label-map": open_label_map,
    "label-studio": open_label_studio,
    "labelme": open_labelme,
    "parquet": open_parquet,
    "yolo": open_yolo,
    "youtube-vis": open_youtube_vis,
}
PHOTO_FORMATS = [name for name in FORMATS if name != "youtube-vis"]  # those that need no video


def parse_formats(text: str) -> list[str]:
    """Names between commas, each once, in their order; ConfigError for an unknown one or none."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        what = f"no format '{unknown[0]}'" if unknown else "no format given"
        raise ConfigError(f"{what}; there are: {', '.join(FORMATS)}")
    return names


@contextmanager
def open_formats(names: Sequence[str], output: Path, options: FormatOptions | None = None) -> Iterator[Write]:
    """One writer for several formats, in an existing folder.

    Raises:
        ConfigError: an unknown format, or a folder that cannot be written to.
        MissingExtraError: a format's package is not installed.
    """
    chosen = parse_formats(",".join(names))
    with ExitStack() as stack:
        writers = [stack.enter_context(FORMATS[name](output, options or FormatOptions())) for name in chosen]

        def write(photo: Photo, proposals: Proposals) -> None:
            for writer in writers:
                writer(photo, proposals)

        yield write
