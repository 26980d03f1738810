"""The `sharpmask` command: one subcommand a file, each imported only when it is asked for."""

import importlib
import math
import os
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

import sharpmask
from sharpmask.allocator import keep_freed_memory
from sharpmask.errors import ConfigError, SharpMaskError

# subcommand -> (module under sharpmask.cli, one line of help)
COMMANDS = {
    "propose": ("propose", "find the objects in images and write ranked masks"),
    "propose-bulk": ("propose_bulk", "the same for millions of images, on one machine or many, restartable"),
    "bulk-results": ("bulk_results", "count, verify or convert the results of propose-bulk"),
    "sample": ("sample", "write a small synthetic data set to try training on"),
    "check": ("check", "check COCO annotations and their images before training"),
    "train": ("train", "train DeepMask, then SharpMask, on COCO-format data"),
    "ledger": ("ledger", "set finished training runs side by side in a table"),
    "mine": ("mine", "let a model find missing labels, or windows it takes for objects, to train on"),
    "train-detector": ("train_detector", "train Fast R-CNN or MultiPathNet on the proposals: named objects"),
    "detect": ("detect", "find and name the objects in images with a trained detector"),
    "evaluate": ("evaluate", "measure proposals: AR, AR by size, AUC, with intervals"),
    "evaluate-detections": ("evaluate_detections", "measure detections: COCO's and VOC's AP of boxes and masks"),
    "evaluate-patches": ("evaluate_patches", "measure the masks of canonical patches: IoU table"),
    "reproduce": ("reproduce", "rebuild a study of the paper: its rows trained, measured and set beside its figures"),
    "import-torch7": ("import_torch7", "turn a model of the Torch7 release into a weights file"),
    "view": ("view", "write a page to look at proposals, with found and missed objects"),
    "load": ("load", "fetch a published model, import it once, and keep it for offline use"),
    "export": ("export", "write the whole way from photo to masks as one ONNX or OpenVINO graph"),
    "serve": ("serve", "show a local web page and JSON API that find and export masks"),
    "doctor": ("doctor", "tell what is installed and whether it works here"),
    "completion": ("completion", "print the script that completes the command line in a shell"),
    "quantize": ("quantize", "prepare a model for 8-bit arithmetic, and measure what that costs"),
    "bench": ("bench", "measure how fast this machine is, stage by stage, in every runtime"),
    "baseline": ("baseline", "write the proposals of a classical method for comparison"),
}

# Those that run networks for long in this process.
_COMPUTE = {
    "propose", "train", "mine", "train-detector", "detect", "evaluate-patches", "reproduce", "quantize", "bench",
}  # fmt: skip


def build_parser(command: str) -> ArgumentParser:
    """The parser of one subcommand, with the arguments its module declares."""
    module_name, summary = COMMANDS[command]
    module = importlib.import_module(f"sharpmask.cli.{module_name}")
    parser = ArgumentParser(prog=f"sharpmask {command}", description=module.__doc__ or summary)
    module.add_arguments(parser)
    return parser


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sharpmask [--version] COMMAND …",
            "",
            *lines,
            "",
            "`sharpmask COMMAND --help` tells a command's options.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line. Returns the exit status: 0, 1 (bad input, partial result) or 2 (bad options)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"sharpmask {sharpmask.__version__}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        print(f"sharpmask: no command '{command}'; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    parser = build_parser(command)
    module = importlib.import_module(f"sharpmask.cli.{COMMANDS[command][0]}")
    if command in _COMPUTE:
        keep_freed_memory()
    try:
        if hasattr(module, "rewrite"):
            rest = module.rewrite(rest)
        options = parser.parse_args(rest)
        _assert_meaningful(options)
        status = int(module.run(options))
        sys.stdout.flush()  # here, where a reader that has gone is known
        return status
    except SharpMaskError as error:
        print(f"sharpmask {command}: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # who reads the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is the rest wanted when Python ends
        return 1
    except KeyboardInterrupt:
        print(f"sharpmask {command}: interrupted", file=sys.stderr)
        return 130


def _assert_meaningful(options: Namespace) -> None:
    """Refuse what no option means: an empty text, as an unset variable of a shell gives, and numbers that are none.

    Raises:
        ConfigError: which option.
    """
    for name, value in vars(options).items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and not item.strip():
                raise ConfigError(f"{name.replace('_', '-')}: an empty value; is a variable of the shell not set?")
            if isinstance(item, float) and not math.isfinite(item):
                raise ConfigError(f"{name.replace('_', '-')} {item}: must be a finite number")


if __name__ == "__main__":
    sys.exit(main())
