"""Videos made for tests: a red square moves to the right and a green one down, over a dark ground."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (96, 160)
TICK = Fraction(1, 1000)


def squares(number: int) -> np.ndarray:
    """(2,H,W) bool: the red and the green square in frame `number`."""
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 10:34, 8 + 4 * number : 32 + 4 * number] = True
    masks[1, 44 + 2 * number : 68 + 2 * number, 120:144] = True
    return masks


def picture(number: int) -> np.ndarray:
    pixels = np.full((*SIZE, 3), 20, np.uint8)
    red, green = squares(number)
    pixels[red], pixels[green] = (250, 20, 20), (20, 250, 20)
    return pixels


def film(
    path: Path,
    pictures: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: bool = False,
) -> Path:
    """A video of pictures (H,W,3) shown from the given times (seconds) on; by default every 0.04 s."""
    import av

    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = TICK
        if codec == "libx264":
            stream.options = {"crf": "4", "g": "6"}
        noise = container.add_stream("aac", rate=8000) if sound else None
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round((number / 25 if times is None else times[number]) * 1000)
            frame.time_base = TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if noise is not None:
            for number in range(4 * len(pictures) // 13):
                sounds = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                sounds.sample_rate, sounds.pts, sounds.time_base = 8000, 1024 * number, Fraction(1, 8000)
                container.mux(noise.encode(sounds))
            container.mux(noise.encode(None))
    return path


def squares_film(path: Path, count: int = 12, **options: Any) -> Path:
    return film(path, [picture(number) for number in range(count)], **options)


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix (a, b, c, d) into the header of an MP4's track, as phones do."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[place : place + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(content)
    return path
