"""coco-mini, the photos that the bundled models were trained and measured on, cut out of COCO 2017.

    python benchmarks/coco_subset.py ANNOTATIONS IMAGES OUTPUT

ANNOTATIONS is COCO's folder with instances_train2017.json and instances_val2017.json, IMAGES that with train2017/ and
val2017/. OUTPUT gets instances_train.json (1,540 photos) and instances_val.json (103), and links to the photos in
train/ and val/. Which photos, and of those that are annotated in part which annotations, stands in coco_mini.json
beside this file. 1,033 of the photos to train on are of COCO's validation set. The bundled models were trained on
copies of the training photos that had been compressed once more (JPEG, quality 75).
"""

import argparse
import json
from pathlib import Path
from typing import Any

from sharpmask.errors import DataError
from sharpmask.evaluation.inputs import read_json
from sharpmask.files import atomic_write, make_folder

LIST = Path(__file__).with_name("coco_mini.json")
SETS = ("train2017", "val2017")


def cut(annotations: Path, images: Path, output: Path, listed: dict[str, Any]) -> dict[str, int]:
    """Write the parts of `listed`; returns how many photos each has.

    Raises:
        DataError: a file of COCO, or a photo of it, is missing.
    """
    contents = {name: read_json(annotations / f"instances_{name}.json") for name in SETS}
    photos = {photo["id"]: (name, photo) for name in SETS for photo in contents[name]["images"]}
    objects: dict[int, list[dict[str, Any]]] = {}
    for name in SETS:
        for annotation in contents[name]["annotations"]:
            objects.setdefault(annotation["image_id"], []).append(annotation)
    counts = {}
    for part, lists in listed.items():
        partly = {int(key): set(ids) for key, ids in lists["partly"].items()}
        wanted = sorted([*lists["exhaustive"], *partly])
        missing = [image_id for image_id in wanted if image_id not in photos]
        if missing:
            raise DataError(f"{annotations}: has no image {missing[0]} (and {len(missing) - 1} more); is it COCO 2017?")
        folder = make_folder(output / part)
        records, kept = [], []
        for image_id in wanted:
            name, photo = photos[image_id]
            records.append({**photo, "exhaustive": image_id not in partly})
            ids = partly.get(image_id)
            kept += [entry for entry in objects.get(image_id, []) if ids is None or entry["id"] in ids]
            source, link = (images / name / photo["file_name"]).resolve(), folder / photo["file_name"]
            if not source.is_file():
                raise DataError(f"{source}: no such photo")
            if not link.exists():
                link.symlink_to(source)
        content = {"images": records, "annotations": kept, "categories": contents[SETS[0]]["categories"]}
        with atomic_write(output / f"instances_{part}.json") as target:
            target.write_text(json.dumps(content) + "\n", encoding="utf-8")
        counts[part] = len(records)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("annotations", "images", "output"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    for part, count in cut(**vars(arguments), listed=read_json(LIST)).items():
        print(f"{part}: {count:,} photos")


if __name__ == "__main__":
    main()
