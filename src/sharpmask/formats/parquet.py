"""Parquet: one file, `proposals.parquet`, one row a proposal (needs the extra `parquet`).

Columns: image_id int64, file_name string, width and height int32 (of the photo), rank int32 (from 1), score float32,
x, y, box_width, box_height float32 (the mask's box in pixels, upper left corner first), area int64 (pixels), counts
string (COCO's compressed run lengths; with `size` [height, width] it is a COCO RLE), stability float32 (null unless it
was asked for). A photo without proposals has no row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import MissingExtraError
from sharpmask.files import atomic_write
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals

_ROWS = 20_000  # a row group: many small ones would make the file large and slow to read


@contextmanager
def open_parquet(output: Path, options: FormatOptions) -> Iterator[Write]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "the format parquet") from error
    types = {
        "image_id": pa.int64(),
        "file_name": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "rank": pa.int32(),
        "score": pa.float32(),
        **dict.fromkeys(("x", "y", "box_width", "box_height"), pa.float32()),
        "area": pa.int64(),
        "counts": pa.string(),
        "stability": pa.float32(),
    }
    schema = pa.schema(list(types.items()), metadata={"format": "sharpmask proposals 1", "label": options.label})
    waiting: list[Any] = []
    with (
        atomic_write(output / "proposals.parquet") as temporary,
        parquet.ParquetWriter(temporary, schema, compression="zstd") as file,
    ):

        def flush() -> None:
            if waiting:
                file.write_table(pa.concat_tables(waiting))
                waiting.clear()

        def write(photo: Photo, proposals: Proposals) -> None:
            waiting.append(pa.table(_columns(photo, proposals), schema=schema))
            if sum(len(table) for table in waiting) >= _ROWS:
                flush()

        yield write
        flush()


def _columns(photo: Photo, proposals: Proposals) -> dict[str, Any]:
    count = len(proposals)
    left, top, right, bottom = proposals.boxes.T
    return {
        "image_id": np.full(count, photo.record["id"]),
        "file_name": [photo.record["file_name"]] * count,
        "width": np.full(count, photo.size[1], np.int32),
        "height": np.full(count, photo.size[0], np.int32),
        "rank": np.arange(1, count + 1, dtype=np.int32),
        "score": proposals.scores,
        "x": left,
        "y": top,
        "box_width": right - left,
        "box_height": bottom - top,
        "area": proposals.areas,
        "counts": [rle["counts"] for rle in proposals.rles],
        "stability": [None] * count if proposals.stability is None else proposals.stability,
    }
