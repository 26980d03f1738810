"""Show a page in the browser that finds the objects of a photo: choose masks with mouse or keyboard, export them.

Other programs use the same server by its JSON API, described at /docs. It listens to this machine only unless --host
says otherwise, loads nothing from elsewhere, and keeps no image."""

from jsonargparse import ArgumentParser, Namespace

from sharpmask.cli.propose import RUNTIME_HELP


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on; 0.0.0.0: all of them")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0: any that is free")
    parser.add_argument("--model", type=str, default=None, help="bundled model or .safetensors file")
    parser.add_argument("--device", type=str, default=None, help="cpu, cuda, cuda:1, …; default: cuda where available")
    parser.add_argument("--runtime", type=str, default=None, metavar="NAME[:PRECISION]", help=RUNTIME_HELP)
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--max-body", type=int, default=64, metavar="MIB", help="largest request")
    parser.add_argument("--max-pixels", type=int, default=50, metavar="MP", help="largest image, in megapixels")
    parser.add_argument(
        "--timeout", type=float, default=120, metavar="S", help="longest time for an image, waiting included"
    )
    parser.add_argument("--queue", type=int, default=8, help="images that may wait; further ones are refused")
    parser.add_argument("--max-files", type=int, default=32, help="files of a batch")
    parser.add_argument(
        "--allow-host",
        type=str,
        nargs="+",
        default=[],
        metavar="NAME",
        help="further names by which browsers call this server",
    )


def run(args: Namespace) -> int:
    from sharpmask.web.limits import Limits
    from sharpmask.web.server import serve

    limits = Limits(
        max_body=args.max_body * 2**20,
        max_pixels=args.max_pixels * 1_000_000,
        timeout=args.timeout,
        queue=args.queue,
        max_files=args.max_files,
    )
    serve(
        host=args.host,
        port=args.port,
        model=args.model,
        device=args.device,
        runtime=args.runtime,
        limits=limits,
        hosts=args.allow_host,
        open_browser=args.open,
    )
    return 0
