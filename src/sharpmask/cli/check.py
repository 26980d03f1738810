"""Check COCO annotations and their images before training: every record, mask and image is read once.

Prints what is wrong, with counts and up to five examples of each kind. Exit status 1 if there are errors; warnings
alone leave it 0.
"""

import sys

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("annotations", type=str, metavar="ANN.json", help="COCO instances file")
    parser.add_argument("--images", type=str, required=True, metavar="DIR", help="folder that file_name is relative to")


def run(args: jsonargparse.Namespace) -> int:
    from sharpmask.data.check import check

    report = check(args.annotations, args.images, progress=sys.stderr.isatty())
    print(report)
    return 1 if report.error_count else 0
