"""Measure on this machine how long each stage takes from a photo's file to its masks.

Every runtime and precision that is installed does every photo in every round; the table gives medians with their range,
the share of the rate that matrix products reach here in the same run, memory, and with --annotations and --images what
a precision costs in AR. Photos of the kind and size that will be used give the figures that will be met."""

import json
import sys

import jsonargparse

from sharpmask.cli.propose import allow_negative_lists, parse_scales


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    allow_negative_lists(parser)
    parser.add_argument("photos", nargs="+", type=str, metavar="PHOTO", help="image files, folders or patterns")
    parser.add_argument("--model", type=str, default=None, help="bundled model or .safetensors file")
    parser.add_argument(
        "--runtimes",
        type=str,
        default=None,
        metavar="NAME[:PRECISION],…",
        help="eager, torch, onnx, openvino, each with fp32, bf16 or int8; default: all that work here",
    )
    parser.add_argument("--top", type=int, default=1000, help="windows to decode")
    parser.add_argument("--zoom", type=int, default=0, help="0, 1 or 2 further scales for small objects")
    parser.add_argument("--scales", type=str, default=None, metavar="S,S,…", help="exponents of two, as for propose")
    parser.add_argument("--border", type=int, default=0, metavar="PX", help="leave out windows this near to the edge")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="resize the photos to this first")
    parser.add_argument("--rounds", type=int, default=5, help="how often each choice does each photo")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, …; default: cuda where available")
    parser.add_argument(
        "--memory", action=jsonargparse.ActionYesNo(no_prefix="no-"), default=True, help="measure the peak memory"
    )
    parser.add_argument(
        "--yardstick", type=str, default=None, metavar="FILE.py", help="also run benchmarks/straightforward.py"
    )
    parser.add_argument("--annotations", type=str, default=None, metavar="ANN.json", help="measure AR on these")
    parser.add_argument("--images", type=str, default=None, metavar="DIR", help="the photos of the annotations")
    parser.add_argument("--json", type=str, default=None, metavar="OUT.json", help="write all figures to this file")
    parser.add_argument("--chart", type=str, default=None, metavar="OUT.png", help="draw where the time goes")


def run(args: jsonargparse.Namespace) -> int:
    from contextlib import ExitStack

    from sharpmask.benchmark.candidates import parse_choices
    from sharpmask.benchmark.chart import draw_stages, pyplot
    from sharpmask.benchmark.report import to_dict, to_text
    from sharpmask.benchmark.run import Settings
    from sharpmask.benchmark.run import run as measure
    from sharpmask.checkpoints import DEFAULT_MODEL
    from sharpmask.files import atomic_write
    from sharpmask.images import find_images

    if args.chart:
        pyplot()  # says at once that it is missing
    settings = Settings(
        photos=find_images(args.photos),
        model=args.model or DEFAULT_MODEL,
        choices=parse_choices(args.runtimes),
        options={"top": args.top, "zoom": args.zoom, "scales": parse_scales(args.scales), "border": args.border},
        device=args.device,
        rounds=args.rounds,
        size=None if args.size is None else (args.size[0], args.size[1]),
        memory=args.memory,
        yardstick=args.yardstick,
        annotations=args.annotations,
        images=args.images,
    )
    # The file is opened first: a folder that does not exist must not cost the time of the measurement.
    with ExitStack() as files:
        out = files.enter_context(atomic_write(args.json)) if args.json else None
        report = measure(settings, lambda text: print(f"sharpmask bench: {text}", file=sys.stderr))
        if out is not None:
            out.write_text(json.dumps(to_dict(report), indent=1) + "\n", encoding="utf-8")
    print(to_text(report))
    if args.chart:
        draw_stages(report, args.chart)
    return 0
