"""What a report shows, as plain JSON types: an entry of the gallery for each photo, and a photo's masks and objects.

Letters: D proposals of an image, best first; G its objects; h w the size a photo is shown in.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sharpmask.errors import DataError
from sharpmask.evaluation.inputs import Annotations, ImageId, Results
from sharpmask.evaluation.masks import Rle, box_ious, mask_ious
from sharpmask.evaluation.recall import AREAS, METRICS, TOP, Recall
from sharpmask.evaluation.tables import percent
from sharpmask.report.matches import Matches, best_matches
from sharpmask.report.photos import PhotoFile, mask_area, shown_mask, shown_size

# Numbers of proposals at which the curve of AR is drawn.
_CURVE = np.unique(np.logspace(0, 3, 61).round().astype(int))


@dataclass(frozen=True)
class ImageMatches:
    """One listed image: how many proposals it has and how well they fit its objects."""

    proposals: int
    matches: Matches

    @property
    def missed(self) -> int:
        """Objects that none of the first 1,000 proposals finds."""
        return int(self.matches.missed[-1])


def match_image(listed: Annotations, results: Results, image_id: ImageId) -> ImageMatches:
    """Compare an image's proposals with its objects: by masks, or by boxes where the proposals have no masks.

    Raises:
        DataError: naming the record that cannot be read.
    """
    kinds = {"boxes": not results.has_masks, "masks": results.has_masks}
    found = results.detections(image_id, listed, limit=TOP, **kinds)
    truth = listed.truth(image_id, **kinds)
    if results.has_masks:
        ious = mask_ious(found.rles or [], truth.rles or [])
    else:
        assert found.boxes_xywh is not None and truth.boxes_xywh is not None
        ious = box_ious(found.boxes_xywh, truth.boxes_xywh)
    return ImageMatches(len(results.by_image.get(image_id, [])), best_matches(ious))


def gallery_entry(photo: PhotoFile, size: tuple[int, int], matched: ImageMatches, thumbnail: str) -> dict[str, Any]:
    """The photo's entry in the gallery; `size` is its (H, W)."""
    ious = matched.matches.ious
    return {
        "id": photo.image_id,
        "name": photo.name,
        "width": size[1],
        "height": size[0],
        "proposals": matched.proposals,
        "objects": ious.shape[1],
        "missed": matched.matches.missed.tolist(),
        "fit": [round(float(row.mean()), 4) if row.size else None for row in ious],
        "thumbnail": thumbnail,
    }


def photo_content(
    photo: PhotoFile,
    size: tuple[int, int],
    longest: int,
    listed: Annotations,
    results: Results,
    matched: ImageMatches,
    top: int,
) -> dict[str, Any]:
    """The `top` best proposals of a photo of (H, W), those that fit an object best, and its objects, for a page that
    shows the photo at `longest` pixels at most.

    Each mask is {"counts": run lengths at (h, w)}, each box {"box": xywh in pixels of the photo}.

    Raises:
        DataError: a mask is of another size than the photo.
    """
    kinds = {"boxes": not results.has_masks, "masks": results.has_masks}
    found = results.detections(photo.image_id, listed, limit=TOP, **kinds)
    truth = listed.truth(photo.image_id, **kinds)
    height, width = shown_size(size, longest)
    places = matched.matches.places
    chosen = sorted({*range(min(top, len(found.scores))), *places[places >= 0].tolist()})

    def shape(rles: list[Rle] | None, boxes: np.ndarray | None, place: int, source: str) -> dict[str, Any]:
        if rles is None:
            assert boxes is not None
            return {"box": boxes[place].round(2).tolist(), "area": round(float(boxes[place, 2:].prod()))}
        if tuple(rles[place]["size"]) != size:
            rows, columns = rles[place]["size"]
            raise DataError(
                f"{source}: a mask of image {photo.image_id} is {columns}x{rows} pixels, but {photo.path} is "
                f"{size[1]}x{size[0]}; give the photos the masks were made for"
            )
        return {"counts": shown_mask(rles[place], (height, width)), "area": mask_area(rles[place])}

    return {
        "width": width,
        "height": height,
        "proposals": [
            {
                "rank": place + 1,
                "score": float(f"{found.scores[place]:.6g}"),
                **shape(found.rles, found.boxes_xywh, place, results.source),
            }
            for place in chosen
        ],
        "objects": [
            {
                "category": listed.category_names.get(record.get("category_id"), "object"),
                "ranks": (places[:, number] + 1).tolist(),  # 0: no proposal overlaps it
                "ious": matched.matches.ious[:, number].round(3).tolist(),
                **shape(truth.rles, truth.boxes_xywh, number, listed.source),
            }
            for number, record in enumerate(truth.records)
        ],
    }


def figures(recall: Recall) -> list[dict[str, Any]]:
    """The average recall of boxes and masks as tables of text in percent, and the curves to draw."""
    titles = {"bbox": "boxes", "segm": "masks"}
    tables = []
    for iou_type in sorted(recall.areas, reverse=True):  # masks first
        areas = recall.areas[iou_type]
        rows = [[metric, *(percent(areas[area].estimates[metric]) for area in AREAS)] for metric in METRICS]
        objects = ["objects", *(f"{int(areas[area].objects.sum()):,}" for area in AREAS)]
        curves = {
            area: [[int(count), round(float(areas[area].curve[count - 1]), 4)] for count in _CURVE]
            for area in AREAS
            if areas[area].objects.any()
        }
        tables.append({"title": titles[iou_type], "columns": list(AREAS), "rows": [objects, *rows], "curves": curves})
    return tables
