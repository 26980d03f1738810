"""Find the objects in very many images: every one ends as a result or as one row of errors, also after kills.

Give the same command again to go on after anything that stopped it. See docs/bulk.md."""

import re

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

_PROPOSER_OPTIONS = ("top", "zoom", "threshold", "min_score")
_CLEANING_OPTIONS = ("min_area", "max_area", "max_aspect", "max_border", "nms", "containment", "count")


def add_arguments(parser: ArgumentParser) -> None:
    # argparse takes "-2.5,-2" for an option; a list of numbers after a minus is a value here.
    parser._negative_number_matcher = re.compile(r"^-[\d.][-+\d.,eE]*$")
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder, pattern, list (.txt), Parquet or tar files; local or an fsspec URL")
    add("destination", metavar="DEST", help="folder for the results; local or an fsspec URL such as s3://bucket/run1")
    add("--engine", choices=["local", "ray"], default="local", help="this machine, or a Ray cluster (see RAY_ADDRESS)")
    add("--workers", type=int, default=None, help="processes that propose; default: one a GPU, or CPU cores / threads")
    add("--threads", type=int, default=1, help="CPU threads of each process")
    add("--device", type=str, default=None, help="cpu, cuda, …; default: cuda where available")
    add(
        "--runtime",
        type=str,
        default=None,
        metavar="NAME[:PRECISION]",
        help="what computes: torch (default), onnx, openvino, auto, eager; :bf16, :int8 see docs/runtimes.md",
    )
    add("--chunk-size", type=int, default=None, metavar="N", help="images written together; default: 64")
    add(
        "--source-format",
        choices=["images", "list", "parquet", "webdataset"],
        default=None,
        help="what the source is, where the suffixes do not tell",
    )
    add("--column", type=str, default=None, help="Parquet: the column of images or paths")
    add("--key-column", type=str, default=None, help="Parquet: the column of the images' names")
    add("--model", type=str, default=None, help="bundled model or .safetensors file")
    add("--top", type=int, default=1000, help="windows to decode: at most as many proposals an image")
    add("--zoom", type=int, default=0, help="0, 1 or 2 further scales for small objects (slower)")
    add("--scales", type=str, default=None, metavar="S,S,…", help="exponents of two in place of -2.5,…,0.5")
    add("--threshold", type=float, default=0.2, help="pixel probability above which a mask is set")
    add("--min-score", type=float, default=0.0, help="drop windows below this probability")
    add(
        "--ranking",
        choices=["paper", "soft"],
        default=None,
        help="soft: sharp masks first, copies later (default); paper: by the network's scores alone",
    )
    add("--nms", type=float, default=None, metavar="IOU", help="drop masks that overlap a better one more than this")
    add("--min-area", type=float, default=None, help="drop masks of fewer pixels")
    add("--max-area", type=float, default=None, help="drop masks of more pixels")
    add("--max-aspect", type=float, default=None, metavar="RATIO", help="drop masks whose box has sides more unequal")
    add("--max-border", type=float, default=None, metavar="SHARE", help="drop masks with more outline on the border")
    add("--containment", choices=["parts", "wholes", "both"], default=None, help="which of two nested masks to drop")
    add("--count", type=int, default=None, help="keep the best so many of an image after all the rest")
    add("--timeout", type=float, default=300.0, metavar="S", help="seconds for one image before its process is ended")
    add("--attempts", type=int, default=3, help="times an image may end its process before it becomes an error")
    add("--read-timeout", type=float, default=60.0, metavar="S", help="seconds for one remote read")
    add("--read-attempts", type=int, default=4, help="tries of a read or write that fails for a passing reason")
    add(
        "--when-all-fail",
        choices=["stop", "record"],
        default="stop",
        help="when no image can be read, or goes through, any more: stop the run, or record each as an error",
    )
    add(
        "--check-source",
        action=ActionYesNo(no_prefix="no-"),
        default=True,
        help="going on with a run: list the source again, refuse if it changed",
    )


def run(args: Namespace) -> int:
    from sharpmask.bulk.listing import SourceOptions
    from sharpmask.bulk.model import ModelFactory
    from sharpmask.bulk.run import BulkOptions, propose_bulk
    from sharpmask.bulk.storage import Patience
    from sharpmask.bulk.worker import WorkerOptions
    from sharpmask.checkpoints import DEFAULT_MODEL
    from sharpmask.cli.propose import parse_scales
    from sharpmask.proposals.cleaning import Cleaning

    options = BulkOptions(
        engine=args.engine,
        workers=args.workers,
        device=args.device,
        chunk_size=args.chunk_size,
        check_source=args.check_source,
        record_all=args.when_all_fail == "record",
        source=SourceOptions(args.source_format, args.column, args.key_column),
        worker=WorkerOptions(threads=args.threads, timeout=args.timeout, attempts=args.attempts),
        patience=Patience(attempts=args.read_attempts, timeout=args.read_timeout),
    )
    settings = {name: getattr(args, name) for name in _PROPOSER_OPTIONS} | {"scales": parse_scales(args.scales)}
    if args.ranking is not None:
        settings["ranking"] = args.ranking
    cleaning = Cleaning(**{name: getattr(args, name) for name in _CLEANING_OPTIONS})
    factory = ModelFactory.load(args.model or DEFAULT_MODEL, settings, cleaning, args.runtime)
    report = propose_bulk(args.source, args.destination, factory, options)
    print("\n".join(report.lines()))
    return 0
