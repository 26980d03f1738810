"""Average recall of millions of masks: `sharpmask evaluate` and pycocotools on the same files, in the same run.

    python benchmarks/evaluate_scale.py [--images 5000] [--proposals 1000] [--subset 150] [--workers 2] [--scratch DIR]

Writes synthetic annotations and a COCO results file (2 GB for the full 5 million masks) and measures boxes and masks
with 1, 10, 100 and 1,000 proposals: pycocotools on the first `--subset` images, which is what fits into memory; ours on
the same images, with one process and with several, and on all images. Each measurement is a process of its own, for
its peak of memory. Exits with 1 if any recall differs from pycocotools'.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

HEIGHT, WIDTH = 480, 640
SHAPES, VARIANTS = 400, 8  # different masks: outlines, each with variants that overlap it
LIMITS = [1, 10, 100, 1000]


def make_masks(rng: np.random.Generator) -> list[list[dict[str, Any]]]:
    """Blobs with wavy outlines, of 16 to 400 pixels; the variants of one are moved and stretched."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    families = []
    for _ in range(SHAPES):
        w, h = np.exp(rng.uniform(np.log(16), np.log(400), 2))
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        waves, phase = rng.integers(3, 12), rng.uniform(0, 6)
        family = []
        for spread in np.linspace(0, 0.25, VARIANTS):
            moved_x, moved_y = x + rng.normal(0, spread) * w, y + rng.normal(0, spread) * h
            stretched = np.exp(rng.normal(0, spread, 2))
            across = (columns - moved_x) / (w * stretched[0] / 2)
            down = (rows - moved_y) / (h * stretched[1] / 2)
            edge = 1 + 0.15 * np.sin(waves * np.arctan2(down, across) + phase)
            rle = mask_utils.encode(np.asfortranarray(across**2 + down**2 < edge**2, np.uint8))
            if not (area := int(mask_utils.area(rle))):
                continue
            segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
            family.append({"segmentation": segmentation, "bbox": mask_utils.toBbox(rle).tolist(), "area": area})
        if family:
            families.append(family)
    return families


def write_case(folder: Path, images: int, subset: int, proposals: int, objects: int) -> None:
    """`ann.json` and `results.json` of all images, `ann_subset.json` and `results_subset.json` of the first ones."""
    rng = np.random.default_rng(0)
    families = make_masks(rng)
    flat = [mask for family in families for mask in family]
    owners = np.repeat(np.arange(len(families)), list(map(len, families)))
    texts = [f'"segmentation": {json.dumps(m["segmentation"])}, "bbox": {json.dumps(m["bbox"])}' for m in flat]
    by_family = [np.flatnonzero(owners == number) for number in range(len(families))]
    truth: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    with open(folder / "results.json", "w") as whole, open(folder / "results_subset.json", "w") as part:
        for image_id in range(1, images + 1):
            truth["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "height": HEIGHT, "width": WIDTH})
            there = rng.choice(len(families), objects, replace=False)
            for family in there:
                record = {"id": len(truth["annotations"]) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0}
                truth["annotations"].append({**record, **families[family][0]})
            # A fifth are variants of the objects, the rest is anything.
            near = np.concatenate([by_family[family] for family in there])
            chosen = np.where(
                rng.random(proposals) < 0.2, rng.choice(near, proposals), rng.choice(len(flat), proposals)
            )
            scores = np.round(rng.random(proposals), 4)
            records = ", ".join(
                f'{{"image_id": {image_id}, "category_id": 1, {texts[mask]}, "score": {score}}}'
                for mask, score in zip(chosen.tolist(), scores.tolist(), strict=True)
            )
            whole.write(("[" if image_id == 1 else ", ") + records)
            if image_id <= subset:
                part.write(("[" if image_id == 1 else ", ") + records)
        whole.write("]")
        part.write("]")
    (folder / "ann.json").write_text(json.dumps(truth))
    few = {**truth, "images": truth["images"][:subset]}
    few["annotations"] = [record for record in truth["annotations"] if record["image_id"] <= subset]
    (folder / "ann_subset.json").write_text(json.dumps(few))


def with_pycocotools(annotations: str, results: str) -> dict[str, Any]:
    """Recalls by IoU type, nested lists (T, areas, limits)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        loaded = truth.loadRes(results)
        for iou_type in ("bbox", "segm"):
            evaluation = COCOeval(truth, loaded, iou_type)
            evaluation.params.useCats = 0
            evaluation.params.maxDets = LIMITS
            evaluation.evaluate()
            evaluation.accumulate()
            found[iou_type] = evaluation.eval["recall"][:, 0].tolist()
    return found


def with_sharpmask(annotations: str, results: str, workers: int) -> dict[str, Any]:
    from sharpmask.evaluation.recall import evaluate_recall

    recall = evaluate_recall(annotations, results, workers=workers)
    return {
        iou_type: np.stack([np.nan_to_num(figures.recalls, nan=-1) for figures in areas.values()], axis=1).tolist()
        for iou_type, areas in recall.areas.items()
    }


def measure(program: str, annotations: Path, results: Path, workers: int = 1) -> dict[str, Any]:
    """Run one program in a process of its own: seconds, MB of it and of its largest child, recalls."""
    command = [sys.executable, __file__, "--measure", program, str(annotations), str(results), str(workers)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def measured(program: str, annotations: str, results: str, workers: int) -> dict[str, Any]:
    began = time.perf_counter()
    if program == "pycocotools":
        recalls = with_pycocotools(annotations, results)
    else:
        recalls = with_sharpmask(annotations, results, workers)
    seconds = time.perf_counter() - began
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"seconds": seconds, "megabytes": own, "child": children, "recalls": recalls}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--proposals", type=int, default=1000, help="of an image")
    parser.add_argument("--objects", type=int, default=7, help="of an image")
    parser.add_argument("--subset", type=int, default=150, help="images for pycocotools")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scratch", type=Path, help="folder with room for the files (default: the system's)")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        program, annotations, results, workers = args.measure
        print(json.dumps(measured(program, annotations, results, int(workers))))
        return 0
    subset = min(args.subset, args.images)
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder = Path(name)
        write_case(folder, args.images, subset, args.proposals, args.objects)
        sizes = {images: (folder / f"results{'' if images == args.images else '_subset'}.json").stat().st_size
                 for images in (subset, args.images)}  # fmt: skip
        few = folder / "ann_subset.json", folder / "results_subset.json"
        runs = [
            ("pycocotools", subset, 1, measure("pycocotools", *few)),
            ("sharpmask", subset, 1, measure("sharpmask", *few)),
            ("sharpmask", subset, args.workers, measure("sharpmask", *few, args.workers)),
            ("sharpmask", args.images, args.workers,
             measure("sharpmask", folder / "ann.json", folder / "results.json", args.workers)),
        ]  # fmt: skip
    theirs = runs[0][3]
    print(f"{args.proposals:,} proposals and {args.objects} objects an image of {WIDTH}x{HEIGHT}; boxes and masks\n")
    print("| program | images | masks | file, MB | processes | s | ms an image | times faster | peak memory, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for program, images, workers, run in runs:
        rate = run["seconds"] / images
        memory = f"{run['megabytes']:,.0f}" + (f" + {workers} x {run['child']:,.0f}" if run["child"] > 1 else "")
        print(
            f"| {program} | {images:,} | {images * args.proposals:,} | {sizes[images] / 1e6:,.0f} | {workers} | "
            f"{run['seconds']:.1f} | {1000 * rate:.1f} | {theirs['seconds'] / subset / rate:.1f} | {memory} |"
        )
    worst = max(
        float(np.abs(np.array(run["recalls"][kind]) - np.array(theirs["recalls"][kind])).max())
        for run in (runs[1][3], runs[2][3])
        for kind in ("bbox", "segm")
    )
    print(f"\nLargest difference of any recall from pycocotools' on the same images: {worst:g}")
    print(f"mask AR@1000 of them: {np.array(theirs['recalls']['segm'])[:, 0, 3].mean():.4f}")
    return 0 if worst == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
