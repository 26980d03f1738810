"""Write the proposals of a classical method for comparison.

`selective-search` needs the extra `baselines` (OpenCV contrib). It gives boxes, no masks, ranked partly at random; the
scores say the rank only. The image ids are those of the annotations, by file name, so that `sharpmask evaluate` can set
the file beside a model's."""

import sys

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("method", choices=["selective-search"], help="the method")
    parser.add_argument("images", nargs="+", type=str, metavar="IMAGES", help="image files, folders or patterns")
    parser.add_argument(
        "--annotations", type=str, required=True, metavar="ANN.json", help="COCO file with the image ids"
    )
    parser.add_argument("--output", type=str, required=True, metavar="FILE.json", help="COCO results to write")
    parser.add_argument("--top", type=int, default=1000, help="proposals an image at most")
    parser.add_argument("--mode", choices=["fast", "quality"], default="fast", help="OpenCV's two settings")
    parser.add_argument(
        "--order",
        choices=["paper", "opencv"],
        default="paper",
        help="large regions first as in the paper, or OpenCV's own order (small ones first, much weaker)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random part of the ranking")


def run(args: jsonargparse.Namespace) -> int:
    from sharpmask.evaluation.baselines import write_selective_search

    done = write_selective_search(
        args.images,
        annotations=args.annotations,
        output=args.output,
        top=args.top,
        mode=args.mode,
        order=args.order,
        seed=args.seed,
    )
    print(
        f"{args.output}: {done.proposals:,} boxes of {done.images} images, "
        f"{done.seconds / max(done.images, 1):.2f} s an image (selective search, {args.mode}, {args.order} order)"
    )
    if done.skipped:
        print(f"skipped {len(done.skipped)} images that {args.annotations} does not list, e.g. {done.skipped[0]}")
    for message in done.failed:
        print(f"sharpmask baseline: {message}", file=sys.stderr)
    return 1 if done.failed else 0
