"""Many image files to COCO results with classes, and a picture of each.

Written into the output folder: `bbox.json` and `segm.json`, COCO results lists of the detector's boxes and of the masks
(two files, since pycocotools measures the sizes of masks by their box where a record has one), `images.json` (a COCO
data set without annotations that gives ids and class names; left out when the ids come from an annotation file), and
`<name>_overlay.png` for each image. For a study of the number of proposals `bbox_N.json` and `segm_N.json` besides.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from sharpmask.detection.detector import Detector
from sharpmask.detection.overlay import draw_detections
from sharpmask.errors import ImageError
from sharpmask.files import atomic_write, make_folder
from sharpmask.images import read_image
from sharpmask.proposals.folder import overlay_paths
from sharpmask.proposals.records import Records


@dataclass
class DetectReport:
    """What a run did: images, detections, and the message for each image that failed."""

    images: int = 0
    detections: int = 0
    failures: list[str] = field(default_factory=list)


class _Results:
    """A COCO results list that is written as it comes, complete under its name when the block succeeds."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        temporary = stack.enter_context(atomic_write(path))
        self.file = stack.enter_context(temporary.open("w", encoding="utf-8"))
        self.file.write("[")
        self.empty = True

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            self.file.write(("\n" if self.empty else ",\n") + json.dumps(record, separators=(",", ":")))
            self.empty = False

    def finish(self) -> None:
        self.file.write("\n]\n")


def detect_files(
    detector: Detector,
    paths: Sequence[Path],
    output: Path,
    *,
    overlay: bool = True,
    overlay_score: float = 0.5,
    annotations: Path | None = None,
    counts: Sequence[int] = (),
    errors: TextIO | None = None,
    progress: bool = True,
) -> DetectReport:
    """Detect in each file and write the results.

    A file that cannot be read, or that the annotations do not know, is reported on `errors` (default: standard error)
    and left out; the rest is done. Ids are those of `annotations` by file name, otherwise 1, 2, … in the order of
    `paths`. The result files appear when all images are done.

    Args:
        overlay_score: least probability of what is drawn.
        counts: write also what comes out with only the first so many proposals of each image.

    Raises:
        ConfigError: the output folder cannot be made or written to.
        DataError: the annotation file cannot be used, or knows none of the images.
    """
    records = Records(annotations, paths)
    make_folder(output)
    overlays = overlay_paths(paths, output)
    report = DetectReport()
    images: list[dict[str, Any]] = []
    with ExitStack() as stack:
        suffixes: dict[int | None, str] = {None: "", **{count: f"_{count}" for count in counts}}
        files = {
            (count, kind): _Results(stack, output / f"{kind}{suffix}.json")
            for count, suffix in suffixes.items()
            for kind in ("bbox", "segm")
        }
        bar = stack.enter_context(tqdm(total=len(paths), unit="image", disable=None if progress else True))
        for number, path in enumerate(paths, start=1):
            try:
                record = records.find(number, path)
                pixels = read_image(path, max_pixels=detector.proposer.max_pixels)
                record = records.sized(record, path, pixels.shape[1], pixels.shape[0])
            except ImageError as error:
                report.failures.append(str(error))
                tqdm.write(f"sharpmask detect: {error}", file=errors or sys.stderr)
                bar.update()
                continue
            proposals = detector.proposer.propose(pixels)
            scored = detector.score(pixels, proposals)
            for count in suffixes:
                found = detector.choose(pixels, proposals, scored, count)
                for kind in ("bbox", "segm"):
                    files[(count, kind)].add(found.to_coco(record["id"], kind))
                if count is None:
                    report.detections += len(found)
                    if overlay:
                        with atomic_write(overlays[path]) as picture:
                            draw_detections(pixels, found, min_score=overlay_score).save(picture)
            images.append(record)
            report.images += 1
            bar.update()
        for file in files.values():
            file.finish()
    if annotations is None:
        categories = [{"id": entry.id, "name": entry.name} for entry in detector.classes]
        content = {"images": images, "annotations": [], "categories": categories}
        with atomic_write(output / "images.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    else:
        (output / "images.json").unlink(missing_ok=True)  # that of an earlier run has other ids
    return report
