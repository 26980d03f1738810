"""Measure proposals against COCO annotations, class-agnostic.

Prints AR@1/10/100/1000 of boxes and masks, AR by object size and AUC, each with a 95 % bootstrap interval over images.
Takes anybody's COCO results, and Parquet files and destinations of propose-bulk, whose images are known by file name.
Several files are set side by side, with the paired interval of the difference to the
first. Images of the annotations without any proposal count as missed."""

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("proposals", nargs="+", type=str, metavar="PROPOSALS", help="COCO results files, or Parquet")
    parser.add_argument(
        "--annotations", type=str, required=True, metavar="ANN.json", help="COCO `instances` annotations"
    )
    parser.add_argument("--names", nargs="+", type=str, help="a column name for each file (default: the file's name)")
    parser.add_argument("--iou-type", choices=["both", "bbox", "segm"], default="both", help="boxes, masks or both")
    parser.add_argument("--json", type=str, metavar="OUT.json", help="write all figures to this file")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--workers", type=int, help="processes (default: as many as cores where the results are large)")


def run(args: jsonargparse.Namespace) -> int:
    from contextlib import nullcontext

    from sharpmask.evaluation.report import evaluate_files, report_json
    from sharpmask.files import atomic_write

    # The file is opened first: a folder that does not exist must not cost the time of the evaluation.
    with atomic_write(args.json) if args.json else nullcontext() as out:
        recalls, text = evaluate_files(
            args.proposals,
            annotations=args.annotations,
            names=args.names,
            iou_types=("bbox", "segm") if args.iou_type == "both" else (args.iou_type,),
            seed=args.seed,
            resamples=args.resamples,
            workers=args.workers,
        )
        if out is not None:
            out.write_text(report_json(recalls), encoding="utf-8")
    print(text)
    return 0
