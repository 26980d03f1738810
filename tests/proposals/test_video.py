"""Frames out of videos: which, when, which way up; and what becomes of damaged files."""

import sys
from pathlib import Path

import numpy as np
import pytest

from sharpmask.errors import ConfigError, ImageError, MissingExtraError
from sharpmask.proposals.video import Choice, is_video, open_video, parse_time

av = pytest.importorskip("av")

from films import SIZE, film, picture, squares_film, with_matrix  # noqa: E402


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) < 6


def test_all_frames_in_order(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.mov", "a.ts", "a.avi"):
        path = squares_film(tmp_path / name, codec="mpeg4" if name == "a.avi" else "libx264", sound=name == "a.mkv")
        with open_video(path) as video:
            assert video.size == SIZE
            frames = list(video.frames())
            assert video.faults == []
        assert [frame.number for frame in frames] == list(range(12))
        np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) * 0.04, atol=0.0021)
        assert all(near(frame.pixels, picture(frame.number)) for frame in frames)


def test_which_frames_are_taken(tmp_path: Path) -> None:
    times = [0.04 * number for number in range(12)]

    def numbers(**options: float) -> list[int]:
        return [number for number, _ in Choice(**options).indices(times)]  # type: ignore[arg-type]

    assert numbers() == list(range(12))
    assert numbers(step=5) == [0, 5, 10]
    assert numbers(start=0.12, end=0.36) == [3, 4, 5, 6, 7, 8]
    assert numbers(start=0.1, step=3) == [3, 6, 9]
    assert numbers(fps=5) == [0, 5, 10]
    assert numbers(fps=10) == [0, 3, 5, 8, 10]  # the first at or after 0, 0.1, 0.2, 0.3, 0.4
    assert numbers(fps=1000) == list(range(12))
    assert numbers(fps=5, start=0.08) == [2, 7]
    assert numbers(start=9) == []
    path = squares_film(tmp_path / "a.mp4")
    with open_video(path) as video:
        frames = list(video.frames(Choice(start=0.12, end=0.36, step=2)))
    assert [frame.number for frame in frames] == [3, 5, 7]
    assert all(near(frame.pixels, picture(frame.number)) for frame in frames)


def test_frames_that_do_not_come_evenly(tmp_path: Path) -> None:
    times = [0, 0.04, 0.5, 0.54, 0.58, 2, 2.5]
    path = film(tmp_path / "a.mkv", [picture(number) for number in range(7)], times)
    with open_video(path) as video:
        assert [frame.time for frame in video.frames()] == pytest.approx(times, abs=0.0011)
    with open_video(path) as video:
        assert [frame.number for frame in video.frames(Choice(fps=2))] == [0, 2, 5, 6]


@pytest.mark.parametrize(
    "matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]
)
def test_pictures_come_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Two corners must end up where the file's matrix sends them."""
    stored = np.full((64, 96, 3), 20, np.uint8)
    stored[:16, :16], stored[-16:, :16] = (250, 20, 20), (20, 250, 20)
    path = with_matrix(film(tmp_path / "a.mp4", [stored] * 2), matrix)
    with open_video(path) as video:
        frames = list(video.frames())
        assert video.size == ((64, 96) if matrix[0] else (96, 64))
    height, width = video.size
    assert all(frame.pixels.shape == (height, width, 3) for frame in frames)
    a, b, c, d = matrix
    for corner, channel in (((8, 8), 0), ((8, 56), 1)):
        p, q = corner[0] - 48, corner[1] - 32
        x, y = a * p + c * q + width // 2, b * p + d * q + height // 2
        pixel = frames[0].pixels[y, x].astype(int)
        assert pixel[channel] > 180 and pixel[1 - channel] < 80


def test_a_phones_video(tmp_path: Path) -> None:
    """Held upright, stored sideways: turned clockwise by a quarter."""
    path = with_matrix(squares_film(tmp_path / "a.mp4", 3), (0, 1, -1, 0))
    with open_video(path) as video:
        assert near(next(video.frames()).pixels, np.rot90(picture(0), -1))


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    """What can be decoded comes out, and the fault is told."""
    pictures = [np.random.default_rng(number).integers(0, 255, (96, 160, 3), dtype=np.uint8) for number in range(40)]
    for name, options in (("a.mkv", {}), ("a.mp4", {"movflags": "faststart"})):
        path = film(tmp_path / name, pictures, options=options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        with open_video(path) as video:
            frames = list(video.frames())
            assert video.faults
        assert 10 < len(frames) < 30
        with open_video(path) as video:  # nobody asked for the missing end
            assert len(list(video.frames(Choice(end=0.2)))) == 5 and video.faults == []


def test_damage_in_the_middle(tmp_path: Path) -> None:
    pictures = [np.random.default_rng(number).integers(0, 255, (96, 160, 3), dtype=np.uint8) for number in range(40)]
    path = film(tmp_path / "a.mkv", pictures)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 20] = bytes(len(content) // 20)
    path.write_bytes(content)
    with open_video(path) as video:
        frames = list(video.frames())
        assert len(video.faults) >= 1
    assert 25 < len(frames) < 41 and frames[-1].time > 1.3
    assert (np.diff([frame.time for frame in frames]) > 0).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no video that can be read"), (b"these are words " * 999, "no video that can be read"), (None, "cut off")],
)
def test_no_videos(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.mp4"
    if content is None:  # the index of an MP4 stands at its end
        squares_film(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message), open_video(path):
        pass
    with pytest.raises(ImageError, match="no such file"), open_video(tmp_path / "none.mp4"):
        pass


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ImageError, match=r"a\.mp4: has no video stream"), open_video(path):
        pass


def test_frames_that_are_too_large(tmp_path: Path) -> None:
    path = squares_film(tmp_path / "a.mp4", 2)
    with pytest.raises(ImageError, match="160x96 have more than the limit"), open_video(path, max_pixels=9999):
        pass


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"sharpmask\[video\]"), open_video(tmp_path / "a.mp4"):
        pass


def test_options() -> None:
    assert parse_time("90") == 90 and parse_time("1:30.5") == 90.5 and parse_time("1:00:01") == 3601
    assert parse_time(None) is None
    for text in ("", "x", "1:2:3:4", "-5", "nan", "1:-2", "inf"):
        with pytest.raises(ConfigError, match="time"):
            parse_time(text)
    for options in ({"step": 0}, {"fps": 0}, {"fps": 2, "step": 2}, {"start": -1}, {"start": 5, "end": 5}):
        with pytest.raises(ConfigError, match=next(reversed(options))):
            Choice(**options)
    assert is_video(Path("A.MP4")) and is_video(Path("b.webm")) and not is_video(Path("c.gif"))
