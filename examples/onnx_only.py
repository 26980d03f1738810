"""Masks of a photo with ONNX Runtime, NumPy and Pillow alone, from a file that `sharpmask export --to onnx` wrote.

python examples/onnx_only.py model.onnx photo.jpg overlay.png
"""

import colorsys
import sys
from collections.abc import Iterator

import numpy as np
import onnxruntime
from PIL import Image


def find(model: str, photo: Image.Image) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Scores (N,) and masks (H,W) of a photo's windows, best first."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    threshold = float(session.get_modelmeta().custom_metadata_map["threshold_logit"])
    outputs = ["scores", "windows", "mask_logits"]
    scores, windows, mask_logits = session.run(outputs, {"image": np.asarray(photo)})
    return scores, (paste(*pair, photo.size) > threshold for pair in zip(mask_logits, windows, strict=True))


def paste(logits: np.ndarray, window: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask's logits (M,M) on the photo's pixels (H,W). The mask covers its window, whose corners are no whole pixels:
    place x of the photo is place (x - left) * M / (right - left) of the mask, both counted from the edge of a pixel."""
    left, top, right, bottom = window.tolist()
    across, down = logits.shape[1] / (right - left), logits.shape[0] / (bottom - top)
    place = (across, 0, -left * across, 0, down, -top * down)
    mask = Image.fromarray(logits.astype(np.float32))
    return np.asarray(mask.transform(size, Image.Transform.AFFINE, place, Image.Resampling.BILINEAR, fillcolor=-1e4))


def main(model: str, path: str, output: str, count: int = 12) -> None:
    photo = Image.open(path).convert("RGB")
    pixels, drawn = np.asarray(photo).astype(np.float32), []
    for mask in find(model, photo)[1]:
        if not mask.any() or any((mask & other).sum() > 0.5 * (mask | other).sum() for other in drawn):
            continue  # much the same was drawn already
        pixels[mask] += 0.45 * (255 * np.array(colorsys.hsv_to_rgb(len(drawn) * 0.618 % 1, 0.8, 1)) - pixels[mask])
        drawn.append(mask)
        if len(drawn) == count:
            break
    Image.fromarray(pixels.astype(np.uint8)).save(output)


if __name__ == "__main__":
    main(*sys.argv[1:4])
