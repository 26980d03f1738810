"""Prepare a model for 8-bit arithmetic, which is faster on processors with instructions for it.

The ranges of activations are measured on a folder of photos. With --annotations AR is measured, too, and the result is
kept only if it loses at most .005 against fp32. The file that is written is a model like any other, for --model, and
runs in int8 with --runtime openvino:int8 or onnx:int8."""

import sys

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="bundled model or .safetensors file")
    parser.add_argument("--images", type=str, required=True, metavar="DIR", help="photos like those to be searched")
    parser.add_argument("--output", type=str, required=True, metavar="FILE.safetensors", help="the quantized model")
    parser.add_argument(
        "--annotations", type=str, default=None, metavar="ANN.json", help="COCO annotations of these photos, for AR"
    )
    parser.add_argument("--photos", type=int, default=50, help="photos to measure the ranges on")
    parser.add_argument("--top", type=int, default=1000, help="proposals an image when AR is measured")
    parser.add_argument(
        "--runtime", choices=["onnx", "openvino"], default=None, help="measure int8 in this one; default: any installed"
    )


def run(args: Namespace) -> int:
    from sharpmask.errors import ConfigError
    from sharpmask.quantize import quantize

    for name in ("photos", "top"):
        if getattr(args, name) < 1:
            raise ConfigError(f"{name} {getattr(args, name)}: must be at least 1")
    if not args.output.endswith(".safetensors"):
        raise ConfigError(f"--output {args.output}: give a name that ends in .safetensors")
    calibration = quantize(
        args.model,
        args.images,
        args.output,
        annotations=args.annotations,
        photos=args.photos,
        top=args.top,
        runtime=args.runtime,
        say=lambda text: print(f"sharpmask quantize: {text}", file=sys.stderr),
    )
    measured = "AR not measured" if calibration.change is None else f"AR {calibration.change:+.4f} against fp32"
    print(f"{args.output}: ranges of {calibration.photos} photos, {measured}")
    return 0
