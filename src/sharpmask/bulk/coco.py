"""The results of a bulk run as COCO files, for pycocotools and all that reads them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute

from sharpmask.bulk.plan import Plan
from sharpmask.bulk.results import done_chunks, read_images, read_proposals
from sharpmask.errors import ConfigError
from sharpmask.proposals.folder import Photo, open_coco
from sharpmask.proposals.result import Proposals


def to_coco(plan: Plan, output: Path, *, top: int | None = None, min_score: float = 0.0) -> tuple[int, int]:
    """Write `proposals.json` (a COCO results list) and `images.json` (the images with their ids), as `propose` does.

    Args:
        plan: of a run; the chunks that are done are taken, images with errors left out.
        output: folder, made if need be.
        top: at most so many proposals an image, the best; None: all. A million images of a thousand each are no JSON.
        min_score: proposals of at least this probability.

    Returns: images and proposals written.

    Raises:
        ConfigError: the folder cannot be made, or `top` or `min_score` is out of range.
        DataError: results are missing or damaged.
    """
    if top is not None and top < 1:
        raise ConfigError(f"top {top}: must be at least 1")
    if not 0 <= min_score <= 1:
        raise ConfigError(f"min_score {min_score:g}: must lie between 0 and 1")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {output}: {error.strerror or error}") from error
    images = proposals = 0
    with open_coco(output) as write:
        for chunk in sorted(done_chunks(plan)):
            table = read_images(plan.place, chunk)
            rows = read_proposals(plan.place, chunk)
            begin = 0
            for image in table.to_pylist():
                part = rows.slice(begin, image["proposals"])
                begin += len(part)
                if image["error"] is not None:
                    continue
                found = as_proposals(part, (image["height"], image["width"])).filter(min_score=min_score)[:top]
                record = {
                    "id": image["image_id"],
                    "file_name": image["file_name"],
                    "width": image["width"],
                    "height": image["height"],
                }
                path = Path(image["file_name"])
                write(Photo(path, path.stem, record), found)
                images, proposals = images + 1, proposals + len(found)
    return images, proposals


def as_proposals(rows: pa.Table, image_size: tuple[int, int]) -> Proposals:
    """The `Proposals` of one image of (H, W) from its rows; windows are the boxes and scales NaN: rows have neither."""
    x, y, width, height = (rows.column(name).to_numpy() for name in ("x", "y", "box_width", "box_height"))
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    stability = rows.column("stability")
    return Proposals(
        scores=rows.column("score").to_numpy(),
        boxes=boxes,
        rles=[{"size": list(image_size), "counts": text} for text in rows.column("counts").to_pylist()],
        windows=boxes,
        scales=np.full(len(rows), np.nan, np.float32),
        image_size=image_size,
        areas=rows.column("area").to_numpy(),
        stability=stability.to_numpy() if len(rows) and compute.all(compute.is_valid(stability)).as_py() else None,
    )
