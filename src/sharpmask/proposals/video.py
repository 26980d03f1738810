"""Frames out of a video file, upright, with their numbers and times (needs the extra `video`).

Times are seconds from the beginning of the file as players show them; frames are numbered from 0 in the order in which
they are shown, whatever part is asked for, so that numbers agree between runs and with other programs.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import ConfigError, ImageError, MissingExtraError
from sharpmask.images import MAX_PIXELS

VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
}
_EPSILON = 1e-6  # seconds by which a frame may be early
# What may be missing at the end of a file before it counts as cut off: seconds, and a share of its length.
_MISSING = (0.5, 0.02)


@dataclass(frozen=True)
class Frame:
    """One picture of a video: `number` from 0, `time` in seconds, `pixels` (H,W,3) uint8."""

    number: int
    time: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Choice:
    """Which frames to take.

    Attributes:
        step: every so many frames, counted from the first one taken.
        fps: in place of `step`: so many frames a second at most, the first at or after each point in time.
        start, end: seconds; frames from `start` on and before `end`.

    Raises:
        ConfigError: a value outside its range, or both `step` and `fps`.
    """

    step: int = 1
    fps: float | None = None
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ConfigError(f"step {self.step}: must be a number of frames, at least 1")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ConfigError(f"fps {self.fps:g}: must be a number of frames a second, more than 0")
        if self.fps is not None and self.step != 1:
            raise ConfigError("give step or fps, not both")
        if not 0 <= self.start < math.inf:
            raise ConfigError(f"start {self.start:g}: must be a time in seconds, 0 or more")
        if self.end is not None and not self.end > self.start:
            raise ConfigError(f"end {self.end:g}: must lie after the start, {self.start:g}")

    def indices(self, times: Iterable[float]) -> Iterator[tuple[int, float]]:
        """Number and time of the frames to take, given the times of all; looks no further than the end."""
        taken, due = 0, 0
        for number, time in enumerate(times):
            if self.end is not None and time >= self.end - _EPSILON:
                return
            if time < self.start - _EPSILON:
                continue
            if self.fps is None:
                wanted = taken % self.step == 0
                taken += 1
            else:
                at = math.floor((time - self.start + _EPSILON) * self.fps)
                wanted, due = at >= due, max(due, at + 1)
            if wanted:
                yield number, time


class Video:
    """An open video file; see `open_video`.

    Attributes:
        size: (H, W) of the upright pictures.
        duration: seconds, None where the file does not say.
        rate: frames a second on average, None where the file does not say.
        faults: what was found to be damaged so far, one sentence each.
    """

    def __init__(self, container: Any, path: Path, max_pixels: int) -> None:
        self._container, self._path = container, path
        pictures = [s for s in container.streams.video if not _is_cover(s)]
        if not pictures:
            cut = "" if len(container.streams) else " (if it should have one, the file may be cut off)"
            raise ImageError(f"{path}: has no video stream{cut}")
        self._stream = pictures[0]
        context = self._stream.codec_context
        if context is None:
            raise ImageError(f"{path}: its video is in a coding that this build of PyAV cannot decode")
        self._stored = (context.height, context.width)
        if min(self._stored) < 1:
            raise ImageError(f"{path}: does not say how large its pictures are; the file is damaged")
        if self._stored[0] * self._stored[1] > max_pixels:
            raise ImageError(
                f"{path}: frames of {context.width}x{context.height} have more than the limit of "
                f"{max_pixels / 1e6:g} megapixels; make them smaller"
            )
        self._stream.thread_type = "AUTO"
        self._start = (container.start_time or 0) / 1e6
        self.duration = container.duration / 1e6 if container.duration else None
        self.rate = float(self._stream.average_rate) if self._stream.average_rate else None
        self.faults: list[str] = []
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            raise ImageError(f"{path}: no frame can be decoded; the file is damaged")
        self._matrix = _display_matrix(self._first)
        self.size = self._stored[::-1] if _is_sideways(self._matrix) else self._stored

    def frames(self, choice: Choice | None = None) -> Iterator[Frame]:
        """The chosen frames, in order, once; only they are turned into pixels.

        A damaged place is skipped, or as the decoder mends it, and the end of a damaged file ends the frames; both are
        noted in `faults` at the end. After frames that are lost, numbers count those that came out; times stay true.
        """
        source = self._all_frames()
        shown: list[Any] = []

        def times() -> Iterator[float]:
            last = -math.inf
            for number, frame in enumerate(source):
                shown[:] = [frame]
                time = frame.time
                seconds = number / (self.rate or 25) if time is None else float(time) - self._start
                last = max(last, seconds)  # times of a damaged file may jump back
                yield last

        for number, time in (choice or Choice()).indices(times()):
            height, width = self._stored
            pixels = shown[0].to_ndarray(format="rgb24", width=width, height=height)
            yield Frame(number, max(0.0, round(time, 6)), upright(pixels, self._matrix))

    def _all_frames(self) -> Iterator[Any]:
        if self._first is not None:
            yield self._first
            self._first = None
        yield from self._frames

    def _decode(self) -> Iterator[Any]:
        """All frames that can be decoded; sets `faults` at the end."""
        from av.error import FFmpegError

        packets = self._container.demux()
        damaged, first, latest, cut = 0, 0.0, 0.0, None
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                cut = _reason(error)
                break
            if packet is None:
                break
            if packet.pts is not None and packet.time_base is not None:
                latest = max(latest, float((packet.pts + (packet.duration or 0)) * packet.time_base) - self._start)
            if packet.stream.index != self._stream.index:
                continue
            try:
                frames, broken = packet.decode(), False
            except FFmpegError:
                frames, broken = [], True
            if broken or any(frame.is_corrupt for frame in frames):
                damaged, first = damaged + 1, first if damaged else latest
            yield from frames
        if damaged:
            self.faults.append(f"{damaged} damaged places, the first near {first:.2f} s")
        if cut:
            self.faults.append(f"cannot be read beyond {latest:.2f} s ({cut})")
        elif self.duration and latest < self.duration - max(_MISSING[0], _MISSING[1] * self.duration):
            self.faults.append(f"ends at {latest:.2f} s of {self.duration:.2f} s: the file is cut off")


@contextmanager
def open_video(path: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[Video]:
    """A video file, open within the block.

    Raises:
        ImageError: the file cannot be read, has no video stream or no frame that can be decoded, or frames of more
            than `max_pixels`.
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise MissingExtraError("av", "video", f"{path}: a video") from error
    av.logging.set_level(None)  # damage is reported by us, once
    try:
        container = av.open(str(path.absolute()), "r", metadata_errors="ignore")
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except (FFmpegError, OSError) as error:
        raise ImageError(f"{path}: is no video that can be read, or is cut off ({_reason(error)})") from error
    with container:
        yield Video(container, path, max_pixels)


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def parse_time(text: str | None) -> float | None:
    """Seconds, or [hours:]minutes:seconds; ConfigError otherwise."""
    if text is None:
        return None
    try:
        seconds = 0.0
        parts = [float(part) for part in text.split(":")]
        for part in parts:
            seconds = 60 * seconds + part
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or min(parts) < 0 or not math.isfinite(seconds):
        raise ConfigError(f"time '{text}': give seconds, or minutes and seconds such as 1:23.5")
    return seconds


def upright(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """A stored picture (H,W,3) as it is to be shown: turned by quarters and mirrored, to the nearest of these.

    `matrix` (a, b, c, d) sends a point (p, q) to (a p + c q, b p + d q), both y downwards.
    """
    a, b, c, d = matrix
    if _is_sideways(matrix):
        pixels, mirror_x, mirror_y = pixels.transpose(1, 0, 2), c < 0, b < 0
    else:
        mirror_x, mirror_y = a < 0, d < 0
    return np.ascontiguousarray(pixels[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def _is_sideways(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """How the file wants its pictures to be turned; see `upright`. Phones film sideways and say so here."""
    for data in frame.side_data:
        if str(data.type).endswith("DISPLAYMATRIX"):
            values = np.frombuffer(bytes(data), np.int32)
            return int(values[0]), int(values[1]), int(values[3]), int(values[4])
    return 1, 0, 0, 1


def _is_cover(stream: Any) -> bool:
    """Whether a stream is the picture on the cover of a piece of music."""
    return "attached_pic" in str(getattr(stream, "disposition", "")).lower()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
