"""Write one HTML file to look at proposals: a gallery, each photo's masks by rank, and, with annotations, average
recall and which objects were found and missed.

The file holds everything it shows and opens offline. It takes anybody's COCO results, boxes too."""

import sys

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("proposals", type=str, metavar="PROPOSALS.json", help="COCO results file")
    parser.add_argument("--images", type=str, required=True, metavar="DIR", help="folder of the photos")
    parser.add_argument(
        "--annotations",
        type=str,
        default=None,
        metavar="ANN.json",
        help="COCO annotations to compare with; default: none, photos as in the images.json beside the proposals",
    )
    parser.add_argument("--output", type=str, default="report.html", metavar="FILE.html", help="the page to write")
    parser.add_argument("--top", type=int, default=100, help="proposals of each photo in the page")
    parser.add_argument("--photos", type=int, default=200, help="photos in the page at most; figures are of all")
    parser.add_argument(
        "--choose",
        choices=["spread", "missed"],
        default="spread",
        help="which photos where there are more: evenly over the list, or those with most missed objects",
    )
    parser.add_argument("--size", type=int, default=640, metavar="PX", help="longer side of the photos in the page")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")


def run(args: jsonargparse.Namespace) -> int:
    from sharpmask.report.write import LARGE_BYTES, write_view

    done = write_view(
        args.proposals,
        images=args.images,
        output=args.output,
        annotations=args.annotations,
        top=args.top,
        photos=args.photos,
        choose=args.choose,
        size=args.size,
        seed=args.seed,
        resamples=args.resamples,
    )
    for note in done.notes:
        print(note)
    compared = f", {done.missed} of {done.objects} objects missed" if args.annotations else ""
    print(f"{args.output}: {done.photos} of {done.listed} photos{compared}, {done.size / 1e6:.1f} MB")
    if done.size > LARGE_BYTES:
        print(
            "sharpmask view: browsers take long to open so large a file; lower --photos, --size or --top",
            file=sys.stderr,
        )
    return 0
