"""A video of pictures at given times: H.264 where the installed PyAV can encode it, else MPEG-4 (both as MP4)."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import SharpMaskError

# Tried in this order, with their options for good quality.
ENCODERS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libopenh264": {"b": "6M"},
    "mpeg4": {"qscale": "4", "flags": "qscale", "global_quality": "472"},
}
_TICK = Fraction(1, 1000)  # MPEG-4 knows no finer time


class VideoWriter:
    """An MP4 file that is being written; see `open_writer`. `encoder` is the name of the one in use."""

    def __init__(self, container: Any, stream: Any, encoder: str) -> None:
        self._container, self._stream, self.encoder = container, stream, encoder
        self._last = -1

    def add(self, pixels: np.ndarray, time: float) -> None:
        """Show pixels (H,W,3) uint8, of the size the file was opened for, from `time` (seconds) on."""
        from av import VideoFrame

        odd = [(0, side % 2) for side in pixels.shape[:2]]
        frame = VideoFrame.from_ndarray(np.pad(pixels, (*odd, (0, 0)), mode="edge"), format="rgb24")
        self._last = max(self._last + 1, round(time / _TICK))
        frame.pts, frame.time_base = self._last, _TICK
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._mux(self._stream.encode(None))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._container.mux(packet)


@contextmanager
def open_writer(path: Path, size: tuple[int, int], rate: float) -> Iterator[VideoWriter]:
    """A video of pictures of `size` (H, W), whose sides are made even, `rate` a second or so; whole when the block
    succeeds.

    Raises:
        SharpMaskError: the installed PyAV has none of the encoders, or the file cannot be written.
    """
    import av
    from av.error import FFmpegError

    height, width = (side + side % 2 for side in size)
    encoder = pick_encoder(height, width)
    if encoder is None:
        raise SharpMaskError(f"the installed PyAV can write none of {', '.join(ENCODERS)}; use --no-overlay")
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream(encoder, rate=_rate(rate), options=ENCODERS[encoder])
            _set_up(stream, height, width)
            writer = VideoWriter(container, stream, encoder)
            yield writer
            writer.finish()
    except FFmpegError as error:
        raise SharpMaskError(f"the overlay video cannot be written: {getattr(error, 'strerror', error)}") from error


def pick_encoder(height: int, width: int) -> str | None:
    """The first of `ENCODERS` that works here for pictures of this size; None when none does."""
    from av import CodecContext
    from av.error import FFmpegError

    for name in ENCODERS:
        try:
            context = CodecContext.create(name, "w")
            _set_up(context, height, width)
            context.open()
        except (FFmpegError, ValueError):
            continue
        return name
    return None


def _set_up(stream: Any, height: int, width: int) -> None:
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.time_base = _TICK
    if hasattr(stream, "codec_context"):
        stream.codec_context.time_base = _TICK


def _rate(rate: float) -> Fraction:
    return Fraction(min(1000.0, max(0.01, rate))).limit_denominator(1001)
