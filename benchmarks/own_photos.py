"""What starting from the bundled model gains over an ImageNet trunk on a few hundred photos of one's own.

    python benchmarks/own_photos.py OUTPUT --annotations TRAIN.json --images DIR --val-annotations VAL.json
        --val-images DIR --trunk-weights tf_efficientnet_lite0.fp16.safetensors [--categories kitchen food]
        [--photos 300] [--steps 600] [--refine-steps 200] [--set FIELD=VALUE …]

Such photos are made from COCO: of the exhaustively annotated ones those with objects of the named categories (or
supercategories), filled up with others to `--photos`, with the annotations of these categories alone. Whatever else is
in them is background, as for somebody who wants these objects and no others. Both starts see the same photos for as
many steps; mask AR@10/100/1000 is measured on the validation photos that have such objects, beside the bundled model as
it is. The bundled model was trained on these training photos as well, and on none of the validation photos; on those
the best weights of each stage are chosen, for all three. The command goes on where it was stopped.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from sharpmask.cli.main import main as sharpmask
from sharpmask.errors import ConfigError
from sharpmask.evaluation.inputs import read_json
from sharpmask.evaluation.recall import compare_recalls, evaluate_recall
from sharpmask.evaluation.tables import percent, percent_points
from sharpmask.files import atomic_write, make_folder
from sharpmask.training.ledger import LEDGER

METRICS = ("AR@10", "AR@100", "AR@1000")


def restricted(annotations: str, categories: list[str], photos: int | None) -> dict[str, Any]:
    """A COCO file with the annotations of some categories or supercategories.

    Args:
        photos: how many exhaustive photos: those with such objects, then others, in an order that depends on nothing
            but their ids; None: those with such objects.
    """
    found: dict[str, Any] = dict(read_json(annotations))
    chosen = {c["id"] for c in found["categories"] if c["name"] in categories or c.get("supercategory") in categories}
    if not chosen:
        known = sorted({c.get("supercategory", c["name"]) for c in found["categories"]})
        raise ConfigError(f"{annotations} has none of the categories {', '.join(categories)}; there are: {known}")
    found["categories"] = [c for c in found["categories"] if c["id"] in chosen]
    found["annotations"] = [a for a in found["annotations"] if a["category_id"] in chosen]
    with_objects = {a["image_id"] for a in found["annotations"] if not a.get("iscrowd")}
    usable = sorted((p for p in found["images"] if p.get("exhaustive", True)), key=lambda p: p["id"])
    random.Random(0).shuffle(usable)
    usable.sort(key=lambda p: p["id"] not in with_objects)
    count = sum(p["id"] in with_objects for p in usable) if photos is None else photos
    found["images"] = usable[:count]
    kept = {p["id"] for p in found["images"]}
    found["annotations"] = [a for a in found["annotations"] if a["image_id"] in kept]
    return found


def run(arguments: argparse.Namespace) -> str:
    """Train and measure what is not there yet; returns the table."""
    output = make_folder(arguments.output)
    parts = {
        "train": restricted(arguments.annotations, arguments.categories, arguments.photos),
        "val": restricted(arguments.val_annotations, arguments.categories, None),
    }
    for name, part in parts.items():
        with atomic_write(output / f"{name}.json") as target:
            target.write_text(json.dumps(part), encoding="utf-8")
    photos = [str(Path(arguments.val_images) / photo["file_name"]) for photo in parts["val"]["images"]]
    settings = [
        f"annotations={output / 'train.json'}",
        f"images={arguments.images}",
        f"val_annotations={output / 'val.json'}",
        f"val_images={arguments.val_images}",
        f"measure_photos={len(photos)}",
        f"validate_every={max(1, arguments.steps // 3)}",
        f"deepmask.steps={arguments.steps}",
        f"sharpmask.steps={arguments.refine_steps}",
        "workers=0",
    ]
    starts = {
        "from ImageNet": [
            "start_from=null",
            f"trunk_weights={arguments.trunk_weights}",
            # as in `small-cpu`, which is made for this start
            "deepmask.learning_rate=1.0e-3",
            "sharpmask.learning_rate=1.0e-3",
        ],
        "from the bundled model": [],
    }
    results = {}
    for name, own in starts.items():
        folder = output / name.replace(" ", "-")
        if not (folder / LEDGER).exists():
            print(f"{name}: training", flush=True)
            changes = [*settings, *own, f"output={folder}", *arguments.set]
            command(["train", "--config", "finetune", "--resume", *changes])
        results[name] = folder / "val_proposals.json"
    folder = output / "bundled"
    if not (folder / "proposals.json").exists():
        options = ["--annotations", str(output / "val.json"), "--no-overlay", "--output", str(folder)]
        command(["propose", *photos, *options])
    results["the bundled model as it is"] = folder / "proposals.json"
    objects = {name: sum(not a.get("iscrowd") for a in part["annotations"]) for name, part in parts.items()}
    head = (
        f"{len(parts['train']['images'])} training photos with {objects['train']} objects, {len(photos)} validation "
        f"photos with {objects['val']}; {arguments.steps} + {arguments.refine_steps} steps; percent"
    )
    return f"{head}\n\n{table(parts['val'], results)}"


def command(arguments: list[str]) -> None:
    if sharpmask(arguments) != 0:
        raise SystemExit(f"sharpmask {arguments[0]} failed, see above")


def table(truth: dict[str, Any], results: dict[str, Path]) -> str:
    """Figures of every result, and the differences to the first."""
    recalls = {
        name: evaluate_recall(truth, path, name=name, iou_types=["segm"], progress=False)
        for name, path in results.items()
    }
    lines = [f"| start | {' | '.join(f'mask {metric}' for metric in METRICS)} |", "|---|---:|---:|---:|"]
    for name, recall in recalls.items():
        estimates = recall.areas["segm"]["all"].estimates
        lines.append(f"| {name} | {' | '.join(percent(estimates[metric]) for metric in METRICS)} |")
    first, *others = recalls.values()
    for other in others:
        difference = compare_recalls(first, other, iou_type="segm")
        cells = " | ".join(percent_points(difference[metric]) for metric in METRICS)
        lines.append(f"| {other.name}, minus {first.name} | {cells} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("output", type=Path)
    options.add_argument("--annotations", required=True)
    options.add_argument("--images", required=True)
    options.add_argument("--val-annotations", required=True)
    options.add_argument("--val-images", required=True)
    options.add_argument("--trunk-weights", required=True)
    options.add_argument("--categories", nargs="+", default=["kitchen", "food"])
    options.add_argument("--photos", type=int, default=300)
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--refine-steps", type=int, default=200)
    options.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="other settings of both runs")
    return options


if __name__ == "__main__":
    print(run(parser().parse_args()))
