"""Write a small synthetic data set in COCO's format, to try training on: the tutorial uses it.

DIR gets train.json, val.json and the folders train/ and val/ with photos of woven shapes on a woven ground."""

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("output", type=str, metavar="DIR", help="folder to write to")
    parser.add_argument("--train", type=int, default=60, help="photos to train on")
    parser.add_argument("--val", type=int, default=20, help="photos to validate on")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same photos")


def run(args: jsonargparse.Namespace) -> int:
    from sharpmask.data.sample import write_sample

    files = write_sample(args.output, train=args.train, val=args.val, seed=args.seed)
    print(f"{' and '.join(map(str, files))}: {args.train} and {args.val} photos")
    return 0
