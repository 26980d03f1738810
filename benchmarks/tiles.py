"""Tiles: memory for GeoTIFFs of growing height, and how well an image agrees in tiles and in one piece.

    python benchmarks/tiles.py [--model NAME] [--tile 1024] [--width 4000] [--heights 1000 4000 16000] [--scales -2]
                               [--photos examples/riders.jpg examples/suitcases.jpg] [--photo-tile 512]
    python benchmarks/tiles.py --whole 3000 4000 --zoom 2 [--model NAME]

Memory: each GeoTIFF (noise, tiled, deflated, made in a temporary folder) is searched in a process of its own, at the
given scales and all coarser ones; printed is the largest resident set of the process, which includes torch and the
network. Agreement: of the 1,000 best windows of each photo in one piece, the share that is among those in tiles, and
the IoU of their masks. With `--whole`: the largest resident set of a search of one photo of that height and width,
whose rescaled forms are cut into pieces without being asked for (`Proposer.tile_pixels`).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

import sharpmask
from sharpmask.images import read_image
from sharpmask.proposals.raster_files import open_raster
from sharpmask.proposals.rasters import ArrayRaster
from sharpmask.proposals.tiling import propose_raster


def write_raster(path: Path, height: int, width: int) -> None:
    import rasterio
    from rasterio.transform import from_origin

    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8", "tiled": True}
    place = {"crs": "EPSG:25832", "transform": from_origin(500000, 5500000, 0.2, 0.2), "compress": "deflate"}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile, **place) as file:
        for top in range(0, height, 256):
            rows = min(256, height - top)
            coarse = rng.integers(0, 255, (3, -(-rows // 16), -(-width // 16)), dtype=np.uint8)
            noise = np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)[:, :rows, :width]
            file.write(noise, window=((top, top + rows), (0, width)))


def search(path: Path, model: str | None, tile: int, scales: list[float]) -> None:
    """In the child: search one raster and print what it took."""
    import resource

    proposer = sharpmask.load(model, scales=scales)
    begin = time.perf_counter()
    with open_raster(path) as raster:
        found = propose_raster(proposer, raster, tile=tile)
    seconds = time.perf_counter() - begin
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"proposals": len(found), "seconds": seconds, "megabytes": megabytes}))


def search_whole(size: tuple[int, int], model: str | None, zoom: int) -> None:
    """Search an enlarged photo and print what it took."""
    import resource

    photo = read_image(Path(__file__).parents[1] / "examples" / "riders.jpg")
    pixels = np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BICUBIC))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = time.perf_counter()
    found = sharpmask.load(model, zoom=zoom).propose(pixels)
    seconds = time.perf_counter() - begin
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{size[1]} x {size[0]} pixels, zoom {zoom}: {len(found)} proposals, largest resident set {megabytes:.0f} MB "
        f"({before:.0f} MB with torch and the photo loaded), {seconds:.0f} s"
    )


def memory(arguments: argparse.Namespace) -> None:
    print("| image | megapixels | proposals | largest resident set, MB | seconds |\n|---|---:|---:|---:|---:|")
    for height in arguments.heights:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "raster.tif"
            write_raster(path, height, arguments.width)
            options = ["--tile", str(arguments.tile), "--child", str(path), "--scales", *map(str, arguments.scales)]
            options += ["--model", arguments.model] if arguments.model else []
            child = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
        took = json.loads(child.stdout)
        pixels = height * arguments.width / 1e6
        row = f"| {arguments.width} x {height} | {pixels:.0f} | {took['proposals']} "
        print(row + f"| {took['megabytes']:.0f} | {took['seconds']:.0f} |", flush=True)


def agreement(arguments: argparse.Namespace) -> None:
    print("\n| photo | same windows of 1,000 | median IoU | 1st percentile |\n|---|---:|---:|---:|")
    proposer = sharpmask.load(arguments.model)
    for path in arguments.photos:
        pixels = read_image(path)
        whole = proposer.propose(pixels)
        tiled = propose_raster(proposer, ArrayRaster(pixels), tile=arguments.photo_tile, top=1000, coarser=False)
        a, b = ({tuple(window): i for i, window in enumerate(p.windows.tolist())} for p in (whole, tiled))
        shared = a.keys() & b.keys()
        ious = [coco_mask.iou([whole.rles[a[w]]], [tiled.rles[b[w]]], [0])[0, 0] for w in shared]
        share = f"{len(shared) / len(whole):.1%}"
        print(f"| {Path(path).name} | {share} | {np.median(ious):.3f} | {np.percentile(ious, 1):.3f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--heights", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--scales", type=float, nargs="+", default=[-2.0])
    parser.add_argument("--photos", nargs="*", default=["examples/riders.jpg", "examples/suitcases.jpg"])
    parser.add_argument("--photo-tile", type=int, default=512)
    parser.add_argument("--whole", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--zoom", type=int, default=2, help="of --whole")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.whole:
        search_whole(tuple(arguments.whole), arguments.model, arguments.zoom)
        return 0
    if arguments.child:
        search(arguments.child, arguments.model, arguments.tile, arguments.scales)
        return 0
    memory(arguments)
    agreement(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
