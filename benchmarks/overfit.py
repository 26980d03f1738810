"""Can the networks learn at all? Both stages on a handful of photos until patch IoU is above .9, in about two minutes.

    python benchmarks/overfit.py --annotations ANN.json --images DIR --trunk-weights TRUNK.safetensors

Prints the validation figures of both stages on the photos trained on, and exits with 1 if the mean IoU stays below .9.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from sharpmask.allocator import keep_freed_memory
from sharpmask.training.config import StageConfig, TrainConfig
from sharpmask.training.run import train


def handful(annotations: Path, count: int) -> dict[str, object]:
    """A COCO dict of the first `count` exhaustive photos with one to three large objects; smaller ones are left out."""
    data = json.loads(annotations.read_text())
    by_image: dict[int, list[dict[str, object]]] = {}
    for entry in data["annotations"]:
        by_image.setdefault(entry["image_id"], []).append(entry)
    chosen = []
    for image in data["images"]:
        entries = by_image.get(image["id"], [])
        large = [e for e in entries if not e["iscrowd"] and e["area"] > 96**2]
        if image.get("exhaustive", True) and 1 <= len(large) <= 3 and len(entries) == len(large):
            chosen.append(image)
    chosen = chosen[:count]
    kept = {image["id"] for image in chosen}
    return {**data, "images": chosen, "annotations": [a for a in data["annotations"] if a["image_id"] in kept]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--trunk-weights", default=None)
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs=2, default=(200, 360), help="of the two stages")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subset = Path(folder) / "handful.json"
        content = handful(args.annotations, args.photos)
        subset.write_text(json.dumps(content))
        common = {
            "optimiser": "adamw",
            "schedule": "cosine",
            "milestones": (),
            "factors": (),
            "balance": "annotation",
            "warmup": 20,
            "clip": 5.0,
            "weight_decay": 0.0,
        }
        config = TrainConfig(
            annotations=str(subset),
            images=args.images,
            val_annotations=str(subset),
            val_images=args.images,
            output=folder + "/run",
            model="sharpmask-lite0",
            trunk_weights=args.trunk_weights,
            deepmask=StageConfig(
                steps=args.steps[0], batches="joint", batch_size=16, learning_rate=2e-3, mask_weight=16, **common
            ),
            sharpmask=StageConfig(steps=args.steps[1], batches="mask", batch_size=16, learning_rate=3e-3, **common),
            workers=0,
            validate_every=80,
        )
        began = time.monotonic()
        train(config)
        seconds = time.monotonic() - began
        log = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    measured = [entry for entry in log if "mean_iou" in entry]
    for entry in measured:
        where = f"{entry['stage']:>9} step {entry['step']:>4}"
        print(f"{where}: mean IoU {entry['mean_iou']:.3f}, median {entry['median_iou']:.3f}")
    print(f"{len(content['images'])} photos, {len(content['annotations'])} objects, {seconds:.0f} s")
    return 0 if measured[-1]["mean_iou"] > 0.9 else 1


if __name__ == "__main__":
    keep_freed_memory()
    raise SystemExit(main())
