"""Let a trained model find what the next one is to learn from.

labels: in photos marked as not exhaustively annotated, masks that the model is sure of are added as annotations, marked
with "pseudo": true. negatives: in the exhaustively annotated ones, windows that it takes for objects though there is
none, as a list for `sharpmask train negatives=LIST deepmask.hard_negatives=0.5`."""

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", choices=["labels", "negatives"], help="what to look for")
    parser.add_argument("annotations", type=str, metavar="ANN.json", help="COCO `instances` annotations")
    parser.add_argument("--images", type=str, required=True, metavar="DIR", help="folder of their images")
    parser.add_argument("--output", type=str, required=True, metavar="OUT.json", help="file to write")
    parser.add_argument("--model", type=str, default=None, help="bundled model or .safetensors file")
    parser.add_argument("--min-score", type=float, default=0.9, help="least probability of what is taken")
    parser.add_argument("--min-stability", type=float, default=0.7, metavar="IOU", help="labels: least stability")
    parser.add_argument(
        "--nms", type=float, default=0.5, metavar="IOU", help="labels: largest overlap with annotations and one another"
    )
    parser.add_argument("--most", type=int, default=20, help="largest number from one photo")
    parser.add_argument("--top", type=int, default=200, help="windows to look at in each photo")
    parser.add_argument("--zoom", type=int, default=0, help="0, 1 or 2 further scales for small objects (slower)")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, cuda:1, …; default: cuda where available")


def run(args: Namespace) -> int:
    from sharpmask import load
    from sharpmask.files import atomic_write
    from sharpmask.training.mining import add_labels, check_limits, hard_negatives

    check_limits(args.min_score, args.min_stability, args.nms, args.most)
    labels = args.what == "labels"
    proposer = load(
        args.model,
        top=args.top,
        zoom=args.zoom,
        ranking="paper",  # the limits are of the network's own scores
        device=args.device,
        stability_offset=1.0 if labels else None,
    )
    # The file is opened first: a folder that does not exist must not cost the time of the search.
    with atomic_write(Path(args.output)) as out:
        if labels:
            content, count = add_labels(
                proposer,
                args.annotations,
                args.images,
                min_score=args.min_score,
                min_stability=args.min_stability,
                nms=args.nms,
                most=args.most,
            )
            out.write_text(json.dumps(content), encoding="utf-8")
            print(f"{count} labels added in {args.output}")
        else:
            windows = hard_negatives(proposer, args.annotations, args.images, min_score=args.min_score, most=args.most)
            out.write_text(json.dumps(windows), encoding="utf-8")
            print(f"{len(windows)} negatives in {args.output}")
    return 0
