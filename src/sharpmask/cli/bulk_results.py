"""Count or convert the results of propose-bulk; without options it tells how far the run is."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("destination", metavar="DEST", help="the destination that was given to propose-bulk")
    add("--verify", action="store_true", help="count every image and proposal again from the files")
    add("--to-coco", type=str, default=None, metavar="DIR", help="write proposals.json and images.json for pycocotools")
    add("--top", type=int, default=None, help="--to-coco: only the best so many of an image")
    add("--min-score", type=float, default=0.0, help="--to-coco: only proposals of at least this probability")


def run(args: Namespace) -> int:
    from sharpmask.bulk.plan import read_plan
    from sharpmask.bulk.results import count, verify
    from sharpmask.bulk.storage import Place
    from sharpmask.errors import ConfigError, DataError

    if args.to_coco is None and (args.top is not None or args.min_score):
        raise ConfigError("--top and --min-score have no effect without --to-coco")
    plan = read_plan(Place(args.destination))
    if plan is None:
        raise DataError(f"{args.destination} holds no run of propose-bulk (no _plan/plan.json)")
    total = count(plan)
    print("\n".join(total.lines()))
    if args.to_coco:
        from sharpmask.bulk.coco import to_coco

        images, proposals = to_coco(plan, Path(args.to_coco), top=args.top, min_score=args.min_score)
        print(f"{proposals} proposals of {images} images in {args.to_coco}/proposals.json")
    if not args.verify:
        return 0
    problems = verify(plan)
    for problem in problems:
        print(f"sharpmask bulk-results: {problem}", file=sys.stderr)
    print(f"verified: {len(problems)} problems" if problems else "verified: every image once, nothing missing")
    return 1 if problems else 0
