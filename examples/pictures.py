"""The pictures in the documentation: an overlay, and DeepMask's masks beside SharpMask's.

python examples/pictures.py examples/riders.jpg docs/images
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import sharpmask
from sharpmask.images import read_image
from sharpmask.proposals.overlay import draw_overlay

SIDE = 320  # pixels of one crop in the picture


def crop_with_outline(image: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int]) -> Image.Image:
    """A square region of the photo, enlarged, with the mask tinted and its boundary drawn."""
    photo = Image.fromarray(image).crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    shape = Image.fromarray(mask).crop(box).resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("L")
    edge = np.asarray(shape.filter(ImageFilter.MaxFilter(5))) != np.asarray(shape.filter(ImageFilter.MinFilter(5)))
    pixels = np.asarray(photo).copy()
    pixels[np.asarray(shape) > 0] = pixels[np.asarray(shape) > 0] * 0.65 + np.array([255, 60, 60]) * 0.35
    pixels[edge] = (255, 240, 0)
    return Image.fromarray(pixels)


def comparison(path: str, count: int = 4) -> Image.Image:
    """DeepMask (above) and SharpMask (below): the masks of the same windows, best first, duplicates left out."""
    image = read_image(path)
    sharp = sharpmask.load("sharpmask-lite0").propose(image, top=200)
    deep = sharpmask.load("deepmask-lite0").propose(image, top=200)
    coarse_of = {
        (*window, scale): k for k, (window, scale) in enumerate(zip(deep.windows.tolist(), deep.scales, strict=True))
    }
    distinct = sharp[sharp.nms_ranks(0.3)].filter(min_area=1500)
    strip = Image.new("RGB", (count * SIDE, 2 * SIDE))
    for column in range(min(count, len(distinct))):
        fine = distinct[[column]]
        coarse = deep[[coarse_of[(*fine.windows[0].tolist(), fine.scales[0])]]]
        x0, y0, x1, y1 = fine.boxes[0]
        half = 0.65 * max(x1 - x0, y1 - y0)
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        box = tuple(int(v) for v in (middle_x - half, middle_y - half, middle_x + half, middle_y + half))
        for row, proposals in enumerate((coarse, fine)):
            strip.paste(crop_with_outline(image, proposals.masks[0], box), (column * SIDE, row * SIDE))
    return strip


def main() -> None:
    source, folder = sys.argv[1], Path(sys.argv[2])
    image = read_image(source)
    found = sharpmask.load().propose(image, top=300)
    draw_overlay(image, found).save(folder / f"{Path(source).stem}.png")
    comparison(source).save(folder / f"{Path(source).stem}-refinement.png")


if __name__ == "__main__":
    main()
