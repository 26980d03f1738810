"""Write the whole way from a photo to ranked masks as one graph, for programs without PyTorch.

The graph takes an image of any size (H,W,3), 8-bit RGB, and gives scores, boxes, windows and mask logits of the best
windows. It is run once and compared with PyTorch; where they do not agree, no file is left and the exit status is 1."""

import sys

from jsonargparse import ArgumentParser, Namespace

from sharpmask.cli.propose import allow_negative_lists, parse_scales


def add_arguments(parser: ArgumentParser) -> None:
    allow_negative_lists(parser)
    parser.add_argument("model", type=str, metavar="MODEL", help="bundled model or .safetensors file")
    parser.add_argument("--to", choices=["onnx", "openvino"], required=True, help="the kind of file")
    parser.add_argument(
        "--output", type=str, required=True, metavar="FILE", help="FILE.onnx, or FILE.xml (and FILE.bin) for openvino"
    )
    parser.add_argument("--top", type=int, default=1000, metavar="N", help="windows whose masks are computed")
    parser.add_argument("--zoom", type=int, default=0, help="0, 1 or 2 further scales for small objects")
    parser.add_argument("--scales", type=str, default=None, metavar="S,S,…", help="exponents of two, as for propose")
    parser.add_argument("--threshold", type=float, default=0.2, help="pixel probability above which a mask is set")
    parser.add_argument(
        "--check",
        type=str,
        nargs="+",
        default=None,
        metavar="PHOTO",
        help="compare with PyTorch on these photos; default: a synthetic picture",
    )


def run(args: Namespace) -> int:
    from pathlib import Path

    from sharpmask.checkpoints import load_network
    from sharpmask.export.check import synthetic_picture
    from sharpmask.export.pipeline import Settings
    from sharpmask.export.trace import check_installed
    from sharpmask.export.write import export
    from sharpmask.images import find_images, read_image
    from sharpmask.proposals.pyramid import scale_exponents

    check_installed(args.to)
    network = load_network(args.model)
    scales = scale_exponents(args.zoom, parse_scales(args.scales), patch_size=network.spec.patch_size)
    name = Path(args.model).name if args.model.endswith(".safetensors") else args.model
    settings = Settings(name, scales, args.top, args.threshold)
    if args.check is None:
        pictures = {"synthetic picture": synthetic_picture()}
    else:
        pictures = {str(path): read_image(path) for path in find_images(args.check)}
    export(
        network,
        settings,
        args.to,
        Path(args.output),
        pictures,
        lambda text: print(f"sharpmask export: {text}", file=sys.stderr),
    )
    print(f"{args.output}: {args.model}, {len(scales)} scales, the best {args.top} windows")
    return 0
