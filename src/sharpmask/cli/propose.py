"""Find the objects in images and videos: ranked masks in the formats of other programs, and pictures of the best.

The masks can be cleaned on the way: limits, suppression of doubles and of nested masks, one label per pixel. Large
images are searched in tiles, georeferenced ones always; videos frame by frame."""

import re
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from sharpmask.errors import ConfigError

RUNTIME_HELP = (
    "what computes: torch (default), onnx, openvino, auto (the fastest), eager; :bf16, :int8 see docs/runtimes.md"
)
# Options that both proposers take as they are; the filters on masks are part of the cleaning.
_PROPOSER_OPTIONS = ("zoom", "threshold", "min_score", "device")


def add_arguments(parser: ArgumentParser) -> None:
    allow_negative_lists(parser)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images or videos: files, patterns such as 'a/*.jpg', folders (the images in them; "
        "those in sub-folders, too: 'a/**/*.jpg')",
    )
    parser.add_argument("--output", type=str, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--model", type=str, default=None, help="bundled model or .safetensors file")
    parser.add_argument(
        "--top",
        type=int,
        default=None,
        help="windows to decode: at most as many proposals an image; default 1000, in tiles at least 500 a megapixel",
    )
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
        "--ranking",
        choices=["paper", "soft"],
        default=None,
        help="soft: sharp masks first, copies of better ones later (default); paper: by the network's scores alone",
    )
    parser.add_argument(
        "--nms", type=float, default=None, metavar="IOU", help="drop masks that overlap a better one more than this"
    )
    parser.add_argument("--min-score", type=float, default=0.0, help="drop windows below this probability")
    parser.add_argument("--min-area", type=float, default=0.0, help="drop masks of fewer pixels")
    parser.add_argument("--max-area", type=float, default=None, help="drop masks of more pixels")
    parser.add_argument(
        "--compat",
        choices=["torch7"],
        default=None,
        help="repeat the Torch7 release's whole-image arithmetic, quirks included",
    )
    parser.add_argument(
        "--max-aspect", type=float, default=None, metavar="RATIO", help="drop masks whose box has sides more unequal"
    )
    parser.add_argument(
        "--max-border",
        type=float,
        default=None,
        metavar="SHARE",
        help="drop masks with more of their outline (0…1) on the photo's border",
    )
    parser.add_argument(
        "--min-stability",
        type=float,
        default=None,
        metavar="IOU",
        help="drop masks that change more than this when the threshold moves (0…1; higher is stricter)",
    )
    parser.add_argument(
        "--stability-offset",
        type=float,
        default=None,
        help="how far it moves, in logits, up and down; also of the stability that ranks (default 1)",
    )
    parser.add_argument(
        "--containment",
        choices=["parts", "wholes", "both"],
        default=None,
        help="of two nested masks drop the worse one if it is the part, the whole, or either",
    )
    parser.add_argument(
        "--containment-threshold",
        type=float,
        default=None,
        metavar="SHARE",
        help="nested: this share of the smaller mask lies within the larger (default 0.9)",
    )
    parser.add_argument(
        "--partition", action="store_true", help="cut the masks so that each pixel has one, that of the best"
    )
    parser.add_argument("--count", type=int, default=None, help="keep the best so many of an image after all the rest")
    parser.add_argument(
        "--format",
        type=str,
        default="coco",
        metavar="NAME,NAME,…",
        help="coco (proposals.json), coco-polygons, cvat, geojson, geopackage, label-map, label-studio, labelme, "
        "parquet, yolo, youtube-vis",
    )
    parser.add_argument(
        "--simplify", type=float, default=0.0, metavar="PX", help="polygons: pixels an outline may move; 0: exact"
    )
    parser.add_argument(
        "--shapes",
        choices=["masks", "polygons"],
        default=None,
        help="for cvat, label-studio (else masks) and labelme (else polygons)",
    )
    parser.add_argument("--label", type=str, default="object", help="name of the class in the formats that have one")
    parser.add_argument("--from-name", type=str, default="label", help="Label Studio: name of the label tag")
    parser.add_argument("--to-name", type=str, default="image", help="Label Studio: name of the image tag")
    parser.add_argument(
        "--image-prefix",
        type=str,
        default="/data/local-files/?d=",
        help="Label Studio: image address before the file name",
    )
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, cuda:1, …; default: cuda where available")
    parser.add_argument("--runtime", type=str, default=None, metavar="NAME[:PRECISION]", help=RUNTIME_HELP)
    parser.add_argument(
        "--overlay", action=ActionYesNo(no_prefix="no-"), default=True, help="write a picture of each image"
    )
    parser.add_argument(
        "--annotations", type=str, default=None, metavar="ANN.json", help="take image ids from this COCO file by name"
    )
    _add_large_arguments(parser)
    _add_video_arguments(parser)


def _add_large_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        type=int,
        default=None,
        metavar="SIZE",
        help="large images: search in tiles of this side, in pixels as the network sees them (georeferenced: 2048)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=None,
        metavar="PX",
        help="pixels that neighbouring tiles share; never less than lets each window lie whole in one",
    )
    parser.add_argument(
        "--bands", type=str, default=None, metavar="N[,N,N]", help="GeoTIFF: one band or three for red, green, blue"
    )
    parser.add_argument(
        "--stretch",
        type=str,
        default=None,
        metavar="LOW,HIGH",
        help="GeoTIFF: percentiles that become black and white, or none; default 2,98 unless the bands have 8 bits",
    )
    parser.add_argument(
        "--coordinates",
        choices=["auto", "ground", "wgs84", "pixels"],
        default="auto",
        help="geojson, geopackage: in the image's own coordinate system (auto: where it has one), in longitude and "
        "latitude, or in pixels",
    )


def _add_video_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--step", type=int, default=1, help="videos: every so many frames")
    parser.add_argument("--fps", type=float, default=None, help="videos: so many frames a second, in place of --step")
    parser.add_argument("--start", type=str, default=None, metavar="TIME", help="videos: seconds or [h:]m:s")
    parser.add_argument("--end", type=str, default=None, metavar="TIME", help="videos: frames before this time")
    parser.add_argument("--track", action="store_true", help="videos: link masks to tracks by their overlap")
    parser.add_argument(
        "--track-iou", type=float, default=None, metavar="IOU", help="least overlap that links two (default 0.4)"
    )
    parser.add_argument("--track-gap", type=int, default=None, help="frames that a track may miss (default 2)")
    parser.add_argument("--save-frames", action="store_true", help="videos: write the frames as JPEG files, too")


def run(args: Namespace) -> int:
    from sharpmask.checkpoints import DEFAULT_MODEL, load_network
    from sharpmask.formats import FormatOptions, assert_used, open_formats, parse_formats
    from sharpmask.images import assert_apart, find_images
    from sharpmask.proposals.cleaning import Cleaning
    from sharpmask.proposals.clips import propose_videos, split_videos
    from sharpmask.proposals.compat import Torch7Proposer
    from sharpmask.proposals.folder import propose_files
    from sharpmask.proposals.large import Tiling, needs_tiles, propose_rasters
    from sharpmask.proposals.proposer import Proposer
    from sharpmask.proposals.ranking import STABILITY_OFFSET
    from sharpmask.proposals.raster_files import parse_bands, parse_stretch
    from sharpmask.proposals.tracking import Tracking
    from sharpmask.proposals.video import Choice, parse_time
    from sharpmask.runtimes import with_runtime

    formats = parse_formats(args.format)
    options = FormatOptions(
        simplify=args.simplify,
        shapes=args.shapes,
        label=args.label,
        from_name=args.from_name,
        to_name=args.to_name,
        image_prefix=args.image_prefix,
        coordinates=args.coordinates,
    )
    assert_used(options, formats)
    cleaning = Cleaning(
        min_area=args.min_area,
        max_area=args.max_area,
        max_aspect=args.max_aspect,
        max_border=args.max_border,
        min_stability=args.min_stability,
        nms=args.nms,
        containment=args.containment,
        partition=args.partition,
        count=args.count,
        **_given(args, containment_threshold="containment_threshold"),
    )
    choice = Choice(step=args.step, fps=args.fps, start=parse_time(args.start) or 0.0, end=parse_time(args.end))
    tracking = Tracking(**_given(args, iou="track_iou", gap="track_gap")) if args.track else None
    assert_apart(args.inputs, Path(args.output))
    inputs, videos = split_videos(args.inputs)
    paths = videos or find_images(inputs)
    tiling = Tiling(
        tile=args.tile,
        overlap=args.overlap,
        top=args.top,
        coarser=args.scales is None,
        bands=parse_bands(args.bands),
        stretch=parse_stretch(args.stretch),
        needs_crs=args.coordinates in ("ground", "wgs84"),
        whole_maps=args.partition or "label-map" in formats,
    )
    _check_options(args, inputs, videos, formats)
    tiled = not videos and needs_tiles(paths, tiling)
    settings = {name: getattr(args, name) for name in _PROPOSER_OPTIONS} | {"scales": parse_scales(args.scales)}
    if args.top is not None:
        settings["top"] = args.top
    if args.ranking is not None and not args.compat:
        settings["ranking"] = args.ranking
    network = load_network(args.model or DEFAULT_MODEL)
    proposer: Proposer | Torch7Proposer
    if args.compat:
        if args.min_stability is not None:
            raise ConfigError("--min-stability cannot be measured with --compat torch7; leave one of them out")
        if args.ranking == "soft":
            raise ConfigError("--compat torch7 ranks as the release does; leave --ranking out")
        if tiled:
            raise ConfigError("--compat torch7 does not work in tiles; leave it out, and take images without ground")
        if args.runtime not in (None, "eager"):
            raise ConfigError("--compat torch7 repeats other arithmetic and has no runtimes; leave one of them out")
        proposer = Torch7Proposer(network, **settings)
    else:
        stability = args.stability_offset
        if stability is None and args.min_stability is not None:
            stability = STABILITY_OFFSET
        network = with_runtime(network, args.runtime, args.device)
        proposer = Proposer(network, stability_offset=stability, **settings)
    output = Path(args.output)
    common = {
        "overlay": args.overlay,
        "cleaning": cleaning,
        "writer": lambda folder: open_formats(formats, folder, options),
    }
    annotations = Path(args.annotations) if args.annotations else None
    if videos:
        report = propose_videos(
            proposer, paths, output, choice=choice, tracking=tracking, save_frames=args.save_frames, **common
        )
    elif tiled and isinstance(proposer, Proposer):
        report = propose_rasters(proposer, paths, output, tiling, annotations=annotations, **common)
    else:
        report = propose_files(proposer, paths, output, annotations=annotations, **common)
    place = f"{args.output}/proposals.json" if formats == ["coco"] else f"{args.output}/ ({', '.join(formats)})"
    what = f"{report.images} frames of {len(paths)} videos" if videos else f"{report.images} of {len(paths)} images"
    print(f"{report.proposals} proposals for {what} in {place}")
    if report.failures:
        kind = "videos are damaged or" if videos else "images"
        print(f"sharpmask propose: {len(report.failures)} of {len(paths)} {kind} failed", file=sys.stderr)
    return 1 if report.failures else 0


def _given(args: Namespace, **names: str) -> dict[str, Any]:
    """By parameter: the options (named after the =) that were given; the others keep the parameters' defaults."""
    return {parameter: getattr(args, name) for parameter, name in names.items() if getattr(args, name) is not None}


def _check_options(args: Namespace, inputs: list[str], videos: list[Path], formats: list[str]) -> None:
    """Refuse options that would go unheeded with the inputs and the other options that are given."""
    if inputs and videos:
        raise ConfigError(f"{videos[0]} is a video and {inputs[0]} is none: give them to separate commands")
    defaults = {"step": 1, "fps": None, "start": None, "end": None, "track": False, "save_frames": False}
    for name, default in defaults.items():
        if not videos and getattr(args, name) != default:
            raise ConfigError(f"--{name.replace('_', '-')} is for videos, and none of the inputs is one by its name")
    for name in ("tile", "overlap", "bands", "stretch", "annotations"):
        if videos and getattr(args, name) is not None:
            raise ConfigError(f"--{name} is for images, not for videos")
    if videos and args.coordinates not in ("auto", "pixels"):
        raise ConfigError(f"--coordinates {args.coordinates} is for images, not for videos")
    for name, needed in {"track_iou": "track", "track_gap": "track", "containment_threshold": "containment"}.items():
        if getattr(args, name) is not None and not getattr(args, needed):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect without --{needed}")
    if args.compat and args.stability_offset is not None:
        raise ConfigError("--stability-offset has no effect with --compat torch7; leave one of them out")
    if "youtube-vis" in formats and not args.track:
        raise ConfigError("the format youtube-vis is for videos with --track")


def allow_negative_lists(parser: ArgumentParser) -> None:
    """argparse takes "-2.5,-2" for an option; a list of numbers after a minus is a value here."""
    parser._negative_number_matcher = re.compile(r"^-[\d.][-+\d.,eE]*$")


def parse_scales(text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas; ConfigError when one is none."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--scales {text}: give exponents of two and commas, for example -1,-0.5,0") from None
