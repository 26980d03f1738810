"""Proposals as rows of a Parquet file, one row a proposal: the columns that every Parquet file of this package has.

Columns: image_id int64, file_name string, width and height int32 (of the photo), rank int32 (from 1), score float32,
x, y, box_width, box_height float32 (the mask's box in pixels, upper left corner first), area int64 (pixels), counts
string (COCO's compressed run lengths; with `size` [height, width] it is a COCO RLE), stability float32 (null where
it was not computed, as by the papers' ranking). A photo without proposals has no row.

Needs the package pyarrow, and nothing of torch: writers run beside the processes that compute.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from sharpmask.proposals.result import Proposals

FORMAT = "sharpmask proposals 1"


def proposal_schema(label: str = "object") -> pa.Schema:
    """The columns; the file's own data say the format's version and the name of the only class."""
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
    return pa.schema(list(types.items()), metadata={"format": FORMAT, "label": label})


def proposal_table(image_id: int, file_name: str, proposals: "Proposals", schema: pa.Schema) -> pa.Table:
    """The rows of one image."""
    count = len(proposals)
    left, top, right, bottom = proposals.boxes.T
    columns: dict[str, Any] = {
        "image_id": np.full(count, image_id),
        "file_name": [file_name] * count,
        "width": np.full(count, proposals.image_size[1], np.int32),
        "height": np.full(count, proposals.image_size[0], np.int32),
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
    return pa.table(columns, schema=schema)
