"""`sharpmask view` without the command line: proposals, photos and annotations to one HTML file.

The file asks for nothing from elsewhere: style, script, photos and masks are in it, and a content policy in it forbids
every request. Photos are added one at a time, so that memory does not grow with their number.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from tqdm import tqdm

import sharpmask
from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.inputs import Annotations, ImageId, Results, read_annotations, read_results
from sharpmask.evaluation.recall import AUC_FORMULA, evaluate_recall
from sharpmask.files import atomic_write
from sharpmask.report.content import ImageMatches, figures, gallery_entry, match_image, photo_content
from sharpmask.report.matches import FOUND_IOU, LIMITS
from sharpmask.report.photos import THUMBNAIL, PhotoFile, find_photos, jpeg_address, shown_size

Choice = Literal["spread", "missed"]
# Above this browsers take long to open the file.
LARGE_BYTES = 100_000_000
_QUALITY = 82


@dataclass
class ViewReport:
    """What was written: photos in the page and in the list, objects and how many of them were missed, bytes."""

    photos: int
    listed: int
    objects: int
    missed: int
    size: int = 0
    notes: list[str] = field(default_factory=list)


def write_view(
    proposals: str | Path,
    *,
    images: str | Path,
    output: str | Path,
    annotations: str | Path | None = None,
    top: int = 100,
    photos: int = 200,
    choose: Choice = "spread",
    size: int = 640,
    seed: int = 0,
    resamples: int = 1000,
    progress: bool = True,
) -> ViewReport:
    """Write a page that shows proposals over their photos.

    Args:
        proposals: COCO results with masks or only boxes.
        images: folder of the photos.
        output: the HTML file.
        annotations: COCO annotations to compare with. Without them the image list `images.json` beside `proposals`,
            which `sharpmask propose` writes, says which photo is which.
        top: proposals of each photo in the page; those that fit an object best are there in any case.
        photos: photos in the page at most. Figures are of all that are listed.
        choose: which photos where there are more: "spread" evenly over the list, or those with most "missed" objects.
        size: pixels of the longer side of a photo in the page; masks are shown at that size, too.
        seed, resamples: of the bootstrap intervals.

    Raises:
        ConfigError: a value outside its range, or `output` cannot be written.
        DataError: files that cannot be read or do not belong together; a photo that is missing or of another size.
    """
    progress = progress and sys.stderr.isatty()
    for name, value, least in (("top", top, 0), ("photos", photos, 1), ("size", size, 16)):
        if value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")
    if choose == "missed" and annotations is None:
        raise ConfigError("the photos with most missed objects are known with --annotations only")
    listed = read_annotations(_image_list(Path(proposals)) if annotations is None else annotations)
    results = read_results(proposals, listed)
    files, notes = _files(listed, results, Path(images))
    bar = tqdm(listed.image_ids, desc="matching", unit="image", disable=None if progress else True, leave=False)
    matched = {image_id: match_image(listed, results, image_id) for image_id in bar}
    chosen = _choose(list(files), matched, photos, choose)
    report = ViewReport(
        photos=len(chosen),
        listed=len(listed.image_ids),
        objects=sum(item.matches.ious.shape[1] for item in matched.values()),
        missed=sum(item.missed for item in matched.values()),
        notes=notes,
    )
    if len(chosen) < len(files):
        how = "spread evenly over the list" if choose == "spread" else "those with most missed objects"
        report.notes.append(f"{len(chosen)} of {len(files)} photos are in this page, {how}")
    head: dict[str, Any] = {
        "proposals": Path(proposals).name,
        "annotations": None if annotations is None else Path(annotations).name,
        "version": sharpmask.__version__,
        "shapes": "masks" if results.has_masks else "boxes",
        "top": top,
        "limits": list(LIMITS),
        "foundIou": FOUND_IOU,
        "listed": report.listed,
        "count": results.count,
        "objects": report.objects,
        "missed": report.missed,
        "notes": report.notes,
        "figures": [],
    }
    # The file is opened first: a folder that does not exist must not cost the time of the evaluation.
    with atomic_write(output) as temporary, open(temporary, "w", encoding="utf-8") as page:
        if annotations is not None and report.objects:
            recall = evaluate_recall(
                listed, results, name=Path(proposals).stem, seed=seed, resamples=resamples, progress=progress
            )
            head["figures"] = figures(recall)
            head["figuresNote"] = (
                f"Percent, class-agnostic, with the 95 % interval of a bootstrap over images ({resamples:,} resamples, "
                f"seed {seed}). {AUC_FORMULA}."
            )
            report.notes.extend(recall.notes)
        before, after = _template()
        page.write(before)
        entries = []
        for number, image_id in enumerate(
            tqdm(chosen, desc="photos", unit="photo", disable=None if progress else True, leave=False)
        ):
            photo = files[image_id]
            pixels = photo.read()
            whole = (pixels.shape[0], pixels.shape[1])
            content = photo_content(photo, whole, size, listed, results, matched[image_id], top)
            content["address"] = jpeg_address(pixels, (content["height"], content["width"]), _QUALITY)
            thumbnail = jpeg_address(pixels, shown_size(whole, THUMBNAIL), _QUALITY)
            entries.append(gallery_entry(photo, whole, matched[image_id], thumbnail))
            _embed(page, f"photo-{number}", content)
        _embed(page, "report", {**head, "photos": entries})
        page.write(after)
    report.size = os.path.getsize(output)
    return report


def _image_list(proposals: Path) -> Path:
    """`images.json` beside the proposals. Raises DataError with what to do where there is none."""
    path = proposals.with_name("images.json")
    if proposals.exists() and not path.exists():
        raise DataError(
            f"{path}: not there, so the photos' names are not known; give --annotations with the COCO file that the "
            "image ids come from"
        )
    return path


def _files(listed: Annotations, results: Results, folder: Path) -> tuple[dict[ImageId, PhotoFile], list[str]]:
    """The photos to choose from, and what to say about those that are missing.

    Photos with proposals must be there; annotations may list images that nobody has proposed on.
    """
    files = find_photos(listed, folder)
    names = {image_id: name for name, image_id in listed.file_names.items()}
    missing = [image_id for image_id in listed.image_ids if image_id not in files]
    needed = [image_id for image_id in missing if image_id in results.by_image]
    if needed:
        more = f" (and {len(needed) - 1} more)" if len(needed) > 1 else ""
        raise DataError(
            f"{folder}: holds no {names.get(needed[0], 'file')!r} of image {needed[0]}{more}, which {results.source} "
            "has proposals for; give the folder of these photos with --images"
        )
    if not files:
        raise DataError(f"{results.source}: holds no proposals of any photo in {folder}; there is nothing to show")
    if not missing:
        return files, []
    return files, [f"{len(missing)} listed images have neither proposals nor a photo in {folder}: they are not shown"]


def _choose(
    candidates: Sequence[ImageId], matched: dict[ImageId, ImageMatches], count: int, choose: Choice
) -> list[ImageId]:
    """At most `count` of the images, in the order of the list."""
    if len(candidates) <= count:
        return list(candidates)
    if choose == "missed":
        worst = set(sorted(candidates, key=lambda image_id: -matched[image_id].missed)[:count])
        return [image_id for image_id in candidates if image_id in worst]
    return [candidates[place] for place in np.linspace(0, len(candidates) - 1, count).round().astype(int)]


def _template() -> tuple[str, str]:
    """The page before and after its data, with style and script in place."""
    folder = resources.files("sharpmask.report") / "page"
    style, script, page = (
        (folder / name).read_text(encoding="utf-8") for name in ("style.css", "script.js", "page.html")
    )
    before, after = page.split("<!-- data -->")
    return before.replace("/* style */", style), after.replace("/* script */", script)


def _embed(page: TextIO, name: str, content: object) -> None:
    """Add data to the page; no text in it can end the element or open another."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    page.write(f'<script type="application/json" id="{name}">{text}</script>\n')
