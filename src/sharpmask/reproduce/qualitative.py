"""What the masks look like: for chosen photos the best proposal of each true object, DeepMask beside SharpMask."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sharpmask.checkpoints import DEFAULT_MODEL
from sharpmask.errors import ConfigError
from sharpmask.evaluation.inputs import ImageId, read_json
from sharpmask.evaluation.masks import Rle, mask_ious
from sharpmask.files import atomic_write, file_digest
from sharpmask.images import read_image
from sharpmask.report.matches import FOUND_IOU, best_matches
from sharpmask.reproduce.drawing import draw_matches, draw_sheet, draw_truth
from sharpmask.reproduce.measure import Validation, photo_key, read_lines, read_validation
from sharpmask.reproduce.methods import Method, open_method, weights_digest
from sharpmask.reproduce.page import Panel, Shown, render_page
from sharpmask.reproduce.study import Options, Row

_POOL, _COUNT, _FAILURES = 100, 6, 3


@dataclass(frozen=True)
class Match:
    """The proposal of highest IoU with one true object, None of IoU 0 where none overlaps it."""

    iou: float
    rle: Rle | None

    @property
    def found(self) -> bool:
        """Whether its IoU is greater than .5."""
        return self.iou > FOUND_IOU


def run_qualitative(options: Options) -> Path:
    """Write a page of pictures, `options.output`/qualitative/qualitative.html; returns its path.

    Beside it are all pictures as PNG, and on one sheet, qualitative.jpg.

    Photos are those of `options.images` (ids or file names), or `options.count` drawn with the seed; the failure cases
    are those other ones of the first `options.photos` of whose objects SharpMask finds the smallest share. With
    `options.licenses` all are photos with one of these licence ids.

    Raises:
        ConfigError: an image that the data does not have, or one without objects or under another licence, or data
            without photos of such a licence.
    """
    folder = options.output / "qualitative"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    everything = read_validation(options.data.val)
    licensed = _licensed(options, everything.truth.image_ids)
    pool = [i for i in licensed[: options.photos or _POOL] if everything.truth.objects.get(i)]
    chosen = _chosen(options, everything, pool, licensed)
    model = options.model or DEFAULT_MODEL
    rows = (
        Row("deepmask", "DeepMask", options.deepmask or model, coarse=True),
        Row("sharpmask", "SharpMask", model),
    )
    wanted = list(dict.fromkeys([*chosen, *pool]))
    matches = {row.label: _matches(row, options, everything, wanted, folder) for row in rows}
    best = matches[rows[1].label]
    others = [image_id for image_id in pool if image_id not in chosen]
    failures = sorted(others, key=lambda i: (_share(best[i]), -len(best[i])))
    failures = failures[: _FAILURES if options.failures is None else options.failures]
    title = f"{len(chosen)} photos " + ("as asked for" if options.images else f"drawn with seed {options.seed}")
    groups = {
        title: chosen,
        f"Failure cases: of {len(others)} other photos those of whose objects SharpMask finds least": failures,
    }
    shown = {
        name: [_shown(image_id, everything, matches, folder) for image_id in ids] for name, ids in groups.items() if ids
    }
    with atomic_write(folder / "qualitative.jpg") as temporary:
        sheet = draw_sheet([[panel.picture for panel in photo.panels] for photos in shown.values() for photo in photos])
        sheet.save(temporary, "JPEG", quality=88)
    page = folder / "qualitative.html"
    with atomic_write(page) as temporary:
        sources = f"SharpMask `{model}`, DeepMask " + (
            f"`{options.deepmask}`" if options.deepmask else "that within it"
        )
        temporary.write_text(render_page(shown, f"{options.data.name}; {sources}"), encoding="utf-8")
    return page


def _licensed(options: Options, image_ids: list[ImageId]) -> list[ImageId]:
    """The images that have one of the licences asked for, in their order; all where none is asked for."""
    if not options.licenses:
        return image_ids
    file = options.data.val.annotations
    licences = {image["id"]: image.get("license") for image in read_json(file)["images"]}
    licensed = [image_id for image_id in image_ids if licences[image_id] in options.licenses]
    if not licensed:
        there = ", ".join(sorted({str(licence) for licence in licences.values() if licence is not None})) or "none"
        wanted = ", ".join(map(str, options.licenses))
        raise ConfigError(f"{file} has no image with the license {wanted}; its images have: {there}")
    return licensed


def _chosen(options: Options, everything: Validation, pool: list[ImageId], licensed: list[ImageId]) -> list[ImageId]:
    truth = everything.truth
    if options.images:
        by_text = {str(image_id): image_id for image_id in truth.image_ids}
        by_text |= {Path(name).name: image_id for name, image_id in truth.file_names.items()}
        unknown = [name for name in options.images if name not in by_text]
        if unknown:
            raise ConfigError(f"{truth.source} has no image with the id or file name {', '.join(unknown)}")
        bare = [name for name in options.images if not truth.objects.get(by_text[name])]
        if bare:
            raise ConfigError(f"no object is annotated in {', '.join(bare)}, so that there is nothing to compare with")
        barred = [name for name in options.images if by_text[name] not in licensed]
        if barred:
            raise ConfigError(f"{', '.join(barred)}: not under one of the licences that --licenses names")
        return list(dict.fromkeys(by_text[name] for name in options.images))
    several = [image_id for image_id in pool if len(truth.objects[image_id]) > 1] or pool
    if not several:
        raise ConfigError(f"{truth.source} has no objects in its first {options.photos or _POOL} images")
    count = min(len(several), _COUNT if options.count is None else options.count)
    places = np.random.default_rng(options.seed).choice(len(several), size=count, replace=False)
    return [several[place] for place in sorted(places.tolist())]


def _matches(
    row: Row, options: Options, everything: Validation, wanted: list[ImageId], folder: Path
) -> dict[ImageId, list[Match]]:
    """The matches of each photo's objects; what an earlier run wrote down is taken from there."""
    identity = {"weights": weights_digest(row.model), "annotations": file_digest(options.data.val.annotations)}
    file = folder / f"{row.name}.jsonl"
    done = read_lines(file, identity)
    todo = [image_id for image_id in wanted if photo_key(image_id) not in done]
    if todo:
        method = open_method(row, options)
        with open(file, "a", encoding="utf-8") as out:
            for image_id in tqdm(todo, desc=f"{row.label}", unit="photo", leave=False):
                line = {"image_id": image_id, "best": _best(method, everything, image_id)}
                out.write(json.dumps(line) + "\n")
                out.flush()
                done[photo_key(image_id)] = line
    return {image_id: [Match(iou, rle) for iou, rle in done[photo_key(image_id)]["best"]] for image_id in wanted}


def _best(method: Method, everything: Validation, image_id: ImageId) -> list[tuple[float, Rle | None]]:
    """For each object of a photo the highest IoU of a proposal, and its mask; 0 and none where none overlaps."""
    rles: list[Any] = [record["segmentation"] for record in method.propose(everything.paths[image_id], image_id)]
    objects = everything.truth.truth(image_id, boxes=False, masks=True).rles or []
    best = best_matches(mask_ious(rles, objects))
    pairs = zip(best.ious[-1].tolist(), best.places[-1].tolist(), strict=True)
    return [(iou, None if place < 0 else rles[place]) for iou, place in pairs]


def _share(matches: list[Match]) -> float:
    return sum(match.found for match in matches) / len(matches)


def _shown(
    image_id: ImageId, everything: Validation, matches: dict[str, dict[ImageId, list[Match]]], folder: Path
) -> Shown:
    """Draw a photo with the true objects and with each model's matches."""
    path = everything.paths[image_id]
    pixels = read_image(path)
    objects = everything.truth.truth(image_id, boxes=False, masks=True).rles or []
    panels = [Panel("annotated", f"{len(objects)} objects", draw_truth(pixels, objects))]
    for label, by_photo in matches.items():
        found = by_photo[image_id]
        picture = draw_matches(pixels, objects, [match.rle if match.found else None for match in found])
        mean = np.mean([match.iou for match in found])
        caption = f"{sum(m.found for m in found)} of {len(found)} objects found, mean IoU of the best masks {mean:.2f}"
        panels.append(Panel(label, caption, picture))
    for panel in panels:
        with atomic_write(folder / f"{path.stem}_{panel.title.lower()}.png") as temporary:
            panel.picture.save(temporary)
    return Shown(path.name, panels)
