"""Find and name the objects in images: COCO results with classes, boxes and masks, and pictures with names.

The proposals are those of `sharpmask propose`; the detector says what each is and corrects its box. The output folder
gets bbox.json, segm.json and a picture of each image."""

import sys

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from sharpmask.cli.propose import allow_negative_lists, parse_scales
from sharpmask.errors import ConfigError


def add_arguments(parser: ArgumentParser) -> None:
    allow_negative_lists(parser)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images: files, patterns such as 'a/*.jpg', folders (the images in them; "
        "those in sub-folders, too: 'a/**/*.jpg')",
    )
    parser.add_argument(
        "--detector",
        type=str,
        default=None,
        help="bundled detector or file made by `sharpmask train-detector`; default: detector-lite2",
    )
    parser.add_argument("--model", type=str, default=None, help="proposal model: bundled one or .safetensors file")
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--proposals", type=int, default=100, help="proposals an image that are looked at")
    parser.add_argument("--zoom", type=int, default=0, help="0, 1 or 2 further scales for small objects (slower)")
    parser.add_argument(
        "--scales", type=str, default=None, metavar="S,S,…", help="exponents of two in place of the default scales"
    )
    parser.add_argument("--min-score", type=float, default=0.05, help="drop detections below this probability")
    parser.add_argument(
        "--nms", type=float, default=0.3, metavar="IOU", help="drop boxes that overlap a better one of their class more"
    )
    parser.add_argument(
        "--vote",
        type=float,
        default=0.5,
        metavar="IOU",
        help="average the boxes of a class that overlap this much, weighted by score; 0: each stays, as in Fast R-CNN",
    )
    parser.add_argument("--top", type=int, default=100, help="detections an image at most")
    parser.add_argument(
        "--refine",
        action="store_true",
        help="compute each mask anew for the detector's box, in place of the mask of the nearest proposal",
    )
    parser.add_argument(
        "--proposal-counts",
        type=str,
        default=None,
        metavar="N,N,…",
        help="write also what comes out with only the first N proposals: bbox_N.json, segm_N.json",
    )
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, cuda:1, …; default: cuda where available")
    parser.add_argument(
        "--overlay", action=ActionYesNo(no_prefix="no-"), default=True, help="write a picture of each image"
    )
    parser.add_argument("--overlay-score", type=float, default=0.5, help="least probability of what is drawn")
    parser.add_argument(
        "--annotations", type=str, default=None, metavar="ANN.json", help="take image ids from this COCO file by name"
    )


def run(args: Namespace) -> int:
    from pathlib import Path

    from sharpmask.detection.detector import Detector
    from sharpmask.detection.folder import detect_files
    from sharpmask.images import assert_apart, find_images

    counts = _counts(args.proposal_counts, args.proposals)
    assert_apart(args.inputs, Path(args.output))
    paths = find_images(args.inputs)
    detector = Detector.load(
        args.detector,
        model=args.model,
        proposals=args.proposals,
        zoom=args.zoom,
        scales=parse_scales(args.scales),
        device=args.device,
        min_score=args.min_score,
        nms=args.nms,
        vote=args.vote or None,
        top=args.top,
        refine=args.refine,
    )
    report = detect_files(
        detector,
        paths,
        Path(args.output),
        overlay=args.overlay,
        overlay_score=args.overlay_score,
        annotations=Path(args.annotations) if args.annotations else None,
        counts=counts,
    )
    place = f"{args.output}/bbox.json and segm.json"
    print(f"{report.detections} detections in {report.images} of {len(paths)} images in {place}")
    if report.failures:
        print(f"sharpmask detect: {len(report.failures)} of {len(paths)} images failed", file=sys.stderr)
    return 1 if report.failures else 0


def _counts(text: str | None, most: int) -> list[int]:
    """Numbers separated by commas; ConfigError where one is none, or more than there are proposals."""
    if text is None:
        return []
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ConfigError(f"--proposal-counts {text}: give whole numbers and commas, for example 10,30,100") from None
    if not 1 <= counts[0] <= counts[-1] <= most:
        raise ConfigError(f"--proposal-counts {text}: must lie between 1 and --proposals, {most}")
    return counts
