"""Turn a model of the Torch7 release (model.t7) into a weights file of this package.

Reads DeepMask and SharpMask as their training programs saved them, binary or ASCII, from CPU or CUDA. No code in the
file is run. The result gives the same numbers; use it as `--model NAME.safetensors`. DeepMask checkpoints of public
PyTorch re-implementations (keys like trunk.0.4.0.conv1.weight) are taken, too."""

import jsonargparse


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model", type=str, metavar="MODEL.t7", help="the Torch7 file")
    parser.add_argument("--output", type=str, required=True, metavar="NAME.safetensors", help="the file to write")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="also run the file's modules one by one on random patches, compare, and read the written file again",
    )
    parser.add_argument(
        "--half", action="store_true", help="store 16-bit weights: half the size, no longer the very same numbers"
    )


def run(args: jsonargparse.Namespace) -> int:
    from sharpmask.checkpoints.torch7_convert import convert_state_dict, convert_torch7, is_state_dict
    from sharpmask.errors import ConfigError

    if is_state_dict(args.model):
        if args.verify:
            raise ConfigError(f"--verify: {args.model} is a PyTorch file, which holds no modules to compare with")
        print(convert_state_dict(args.model, args.output, half=args.half))
        print(f"wrote {args.output}")
        return 0
    report, errors = convert_torch7(args.model, args.output, verify=args.verify, half=args.half)
    print(report)
    if args.verify:
        print(
            "verified on random patches, largest relative differences: "
            + ", ".join(f"{k} {v:.1e}" for k, v in errors.items())
        )
    print(f"wrote {args.output}")
    return 0
