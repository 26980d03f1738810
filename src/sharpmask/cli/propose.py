"""Find the objects in images: ranked masks as COCO JSON, and a picture of the best of each image."""

import re
import sys
from pathlib import Path

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from sharpmask.errors import ConfigError


def add_arguments(parser: ArgumentParser) -> None:
    # argparse takes "-2.5,-2" for an option; a list of numbers after a minus is a value here.
    parser._negative_number_matcher = re.compile(r"^-[\d.][-+\d.,eE]*$")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files, folders or patterns such as 'a/*.jpg'")
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--model", type=str, default=None, help="bundled model or .safetensors file")
    parser.add_argument("--top", type=int, default=1000, help="windows to decode: at most as many proposals an image")
    parser.add_argument("--zoom", type=int, default=0, help="0, 1 or 2 further scales for small objects (slower)")
    parser.add_argument(
        "--scales",
        type=str,
        default=None,
        metavar="S,S,…",
        help="exponents of two in place of -2.5,-2,-1.5,-1,-0.5,0,0.5",
    )
    parser.add_argument("--threshold", type=float, default=0.2, help="pixel probability above which a mask is set")
    parser.add_argument(
        "--nms", type=float, default=None, metavar="IOU", help="drop masks that overlap a better one more than this"
    )
    parser.add_argument("--min-score", type=float, default=0.0, help="drop proposals below this probability")
    parser.add_argument("--min-area", type=float, default=0.0, help="drop masks of fewer pixels")
    parser.add_argument("--max-area", type=float, default=None, help="drop masks of more pixels")
    parser.add_argument(
        "--compat",
        choices=["torch7"],
        default=None,
        help="repeat the Torch7 release's whole-image arithmetic, quirks included",
    )
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, cuda:1, …; default: cuda where available")
    parser.add_argument(
        "--overlay", action=ActionYesNo(no_prefix="no-"), default=True, help="write a picture of each image"
    )
    parser.add_argument(
        "--annotations", type=str, default=None, metavar="ANN.json", help="take image ids from this COCO file by name"
    )


def run(args: Namespace) -> int:
    from sharpmask.checkpoints import DEFAULT_MODEL, load_network
    from sharpmask.images import find_images
    from sharpmask.proposals.compat import Torch7Proposer
    from sharpmask.proposals.folder import propose_files
    from sharpmask.proposals.proposer import Proposer

    paths = find_images(args.inputs)
    proposer = (Torch7Proposer if args.compat else Proposer)(
        load_network(args.model or DEFAULT_MODEL),
        top=args.top,
        zoom=args.zoom,
        scales=parse_scales(args.scales),
        threshold=args.threshold,
        nms=args.nms,
        min_score=args.min_score,
        min_area=args.min_area,
        max_area=args.max_area,
        device=args.device,
    )
    report = propose_files(
        proposer,
        paths,
        Path(args.output),
        overlay=args.overlay,
        annotations=Path(args.annotations) if args.annotations else None,
    )
    print(f"{report.proposals} proposals for {report.images} of {len(paths)} images in {args.output}/proposals.json")
    if report.failures:
        print(f"sharpmask propose: {len(report.failures)} of {len(paths)} images failed", file=sys.stderr)
    return 1 if report.failures else 0


def parse_scales(text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas; ConfigError when one is none."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--scales {text}: give exponents of two and commas, for example -1,-0.5,0") from None
