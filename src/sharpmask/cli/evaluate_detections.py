"""Measure detections (boxes and masks with a class) against COCO annotations.

Prints COCO's twelve figures for boxes and masks, equal to pycocotools', and PASCAL VOC's AP50; AP with a 95 % bootstrap
interval over images. Several files are set side by side, with the paired interval of the difference to the first."""

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("detections", nargs="+", type=str, metavar="DETECTIONS.json", help="COCO results files")
    parser.add_argument(
        "--annotations", type=str, required=True, metavar="ANN.json", help="COCO `instances` annotations"
    )
    parser.add_argument("--names", nargs="+", type=str, help="a column name for each file (default: the file's name)")
    parser.add_argument(
        "--iou-type", choices=["auto", "bbox", "segm"], default="auto", help="auto: what the files have"
    )
    parser.add_argument(
        "--classes", type=str, default=None, metavar="NAME,NAME,…", help="measure these only (default: all)"
    )
    parser.add_argument("--by-class", action="store_true", help="print the AP of each class")
    parser.add_argument(
        "--min-score",
        type=float,
        default=None,
        help="print also how much is right and found by the detections with at least this score",
    )
    parser.add_argument("--json", type=str, metavar="OUT.json", help="write all figures to this file")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--resamples", type=int, default=200, help="of the bootstrap; 0: no intervals")


def run(args: jsonargparse.Namespace) -> int:
    from contextlib import nullcontext
    from pathlib import Path

    from sharpmask.errors import ConfigError
    from sharpmask.evaluation.detection_tables import detection_json, detection_table
    from sharpmask.evaluation.detections import evaluate_detections
    from sharpmask.files import atomic_write

    names = args.names or [Path(path).stem for path in args.detections]
    if args.names is None and len(set(names)) < len(names):
        names = args.detections
    if len(names) != len(args.detections) or len(set(names)) < len(names):
        raise ConfigError(f"{len(args.detections)} results files need as many different names, not {', '.join(names)}")
    if args.seed < 0 or args.resamples < 0:
        raise ConfigError("--seed and --resamples must not be negative")
    # The file is opened first: a folder that does not exist must not cost the time of the evaluation.
    with atomic_write(args.json) if args.json else nullcontext() as out:
        scores = [
            evaluate_detections(
                args.annotations,
                path,
                name=name,
                iou_types=None if args.iou_type == "auto" else (args.iou_type,),
                classes=args.classes.split(",") if args.classes else (),
                resamples=args.resamples,
                seed=args.seed,
                min_score=args.min_score,
            )
            for path, name in zip(args.detections, names, strict=True)
        ]
        if out is not None:
            out.write_text(detection_json(scores), encoding="utf-8")
    print(detection_table(scores, by_class=args.by_class))
    return 0
