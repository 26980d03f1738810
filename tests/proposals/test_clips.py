"""From a video to masks, tracks and a film of them, on the command line and as functions."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import sharpmask
from sharpmask import checkpoints
from sharpmask.cli.main import main
from sharpmask.errors import SharpMaskError
from sharpmask.formats import open_formats
from sharpmask.proposals import video_overlay
from sharpmask.proposals.clips import propose_videos, split_videos
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.tracking import Tracking
from sharpmask.proposals.video import Choice, open_video

av = pytest.importorskip("av")

from films import SIZE, film, picture, squares, squares_film, with_matrix  # noqa: E402


class ColourProposer:
    """Finds what is red and what is green; the better one alternates, so that order tells nothing."""

    max_pixels = 10**6

    def __init__(self) -> None:
        self.frames = 0

    def propose(self, image: Any) -> Proposals:
        pixels = np.asarray(image).astype(int)
        red, green = (pixels[:, :, i] - pixels[:, :, 1 - i] > 100 for i in (0, 1))
        self.frames += 1
        return Proposals.from_masks(np.array([red, green]), [0.9, 0.8] if self.frames % 2 else [0.8, 0.9])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def run(path: Path, output: Path, formats: tuple[str, ...] = ("coco",), **options: Any) -> Any:
    return propose_videos(
        ColourProposer(),  # type: ignore[arg-type]
        [path],
        output,
        writer=lambda folder: open_formats(formats, folder),
        progress=False,
        **options,
    )


def test_masks_times_and_tracks(tmp_path: Path) -> None:
    path = squares_film(tmp_path / "clip.mp4", 12, times=[0.05 * n for n in range(12)])
    formats = ("coco", "youtube-vis")
    report = run(path, tmp_path / "out", formats, choice=Choice(step=2, start=0.1), tracking=Tracking())
    assert (report.images, report.proposals, report.failures) == (5, 10, [])
    out = tmp_path / "out"
    results = COCO(out / "images.json").loadRes(str(out / "proposals.json"))
    images = json.loads((out / "images.json").read_text())
    assert [video["id"] for video in images["videos"]] == [1]
    assert images["videos"][0] | {"fps": 20.0} == images["videos"][0] | {"width": 160, "height": 96, "fps": 20.0}
    assert [image["frame_id"] for image in images["images"]] == [2, 4, 6, 8, 10]
    assert [image["time"] for image in images["images"]] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-3)
    assert [image["file_name"] for image in images["images"]][:2] == ["clip_000002.jpg", "clip_000004.jpg"]
    owner: dict[int, set[int]] = {0: set(), 1: set()}
    for entry in json.loads((out / "proposals.json").read_text()):
        image = results.imgs[entry["image_id"]]
        assert {key: image[key] for key in ("video_id", "frame_id", "time")}.items() <= entry.items()
        mask = coco_mask.decode(entry["segmentation"]).astype(bool)
        which = int(np.argmax([iou(mask, truth) for truth in squares(entry["frame_id"])]))
        assert iou(mask, squares(entry["frame_id"])[which]) > 0.9
        owner[which].add(entry["track_id"])
    assert all(len(ids) == 1 for ids in owner.values()) and owner[0] != owner[1]
    tracks = json.loads((out / "tracks.json").read_text())
    assert {track["track_id"] for track in tracks} == owner[0] | owner[1]
    for track in tracks:
        which = 0 if track["track_id"] in owner[0] else 1
        assert track["video_id"] == 1 and track["category_id"] == 1
        assert track["score"] == pytest.approx(0.86 if track["segmentations"][0] and which == 0 else 0.84, abs=0.01)
        assert len(track["segmentations"]) == len(track["bboxes"]) == len(track["areas"]) == 5
        for place, (rle, area) in enumerate(zip(track["segmentations"], track["areas"], strict=True)):
            assert coco_mask.area(rle) == area
            assert iou(coco_mask.decode(rle).astype(bool), squares(2 * place + 2)[which]) > 0.9


def test_tracks_begin_and_end(tmp_path: Path) -> None:
    """The green square is there in frames 2 to 4 only; a flash in one frame makes no track."""
    pictures = []
    for number in range(8):
        pixels = picture(number)
        if not 2 <= number <= 4:
            pixels[squares(number)[1]] = 20
        pictures.append(pixels)
    path = film(tmp_path / "clip.mp4", pictures)

    class Seen(ColourProposer):
        def propose(self, image: Any) -> Proposals:
            found = super().propose(image)
            return found[found.areas > 0]

    writer = lambda folder: open_formats(["youtube-vis"], folder)  # noqa: E731
    propose_videos(
        Seen(),  # type: ignore[arg-type]
        [path],
        tmp_path / "out",
        tracking=Tracking(),
        overlay=False,
        writer=writer,
        progress=False,
    )
    tracks = {track["track_id"]: track for track in json.loads((tmp_path / "out" / "tracks.json").read_text())}
    there = {i: [rle is not None for rle in track["segmentations"]] for i, track in tracks.items()}
    assert there == {1: [True] * 8, 2: [False, False, True, True, True, False, False, False]}
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "tracks.json"]


def test_the_film_of_the_masks(tmp_path: Path) -> None:
    """Read back: right size, right times, H.264, and coloured exactly where the masks are."""
    times = [0, 0.04, 0.5, 0.54, 0.58, 0.9]
    path = squares_film(tmp_path / "clip.mkv", 6, times=times)
    run(path, tmp_path / "out", choice=Choice(start=0.04), tracking=Tracking())
    with av.open(str(tmp_path / "out" / "clip_overlay.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    with open_video(tmp_path / "out" / "clip_overlay.mp4") as video:
        frames = list(video.frames())
        assert video.size == SIZE and video.faults == []
    assert [frame.time for frame in frames] == pytest.approx([time - 0.04 for time in times[1:]], abs=0.0011)
    colours = []
    for number, frame in enumerate(frames, start=1):
        changed = np.abs(frame.pixels.astype(int) - picture(number)).sum(axis=2) > 60
        red, green = squares(number)
        assert (changed & (red | green)).sum() > 0.9 * (red | green).sum()
        near = np.abs(frame.pixels.astype(int) - picture(number))[~(red | green)]
        assert near.mean() < 4  # the numbers stand within the squares
        y, x = np.argwhere(red)[0] + 4
        colours.append(frame.pixels[y, x].astype(int))
    assert np.abs(np.array(colours) - colours[0]).max() < 30  # a track keeps its colour, whatever its rank


@pytest.mark.parametrize("size", [(95, 161), (33, 47)])
def test_odd_sides_and_other_encoders(tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (*[-(-side // 16) for side in size], 3), dtype=np.uint8) * 200
    pixels = np.repeat(np.repeat(pixels, 16, axis=0), 16, axis=1)[: size[0], : size[1]]
    for encoders, codec in ((video_overlay.ENCODERS, "h264"), ({"none": {}, "mpeg4": {"qscale": "2"}}, "mpeg4")):
        monkeypatch.setattr(video_overlay, "ENCODERS", encoders)
        with video_overlay.open_writer(tmp_path / "a.mp4", size, 5) as writer:
            for number in range(4):
                writer.add(pixels, number / 5)
            assert writer.encoder in ("libx264", "mpeg4")
        with av.open(str(tmp_path / "a.mp4")) as container:
            assert container.streams.video[0].codec_context.name == codec
        with open_video(tmp_path / "a.mp4") as video:
            frames = list(video.frames())
        assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6], abs=0.0011)
        shown = frames[2].pixels[: size[0], : size[1]].astype(int)
        assert frames[2].pixels.shape[0] in (size[0], size[0] + 1) and np.abs(shown - pixels).mean() < 12
    monkeypatch.setattr(video_overlay, "ENCODERS", {"none": {}})
    with pytest.raises(SharpMaskError, match="--no-overlay"), video_overlay.open_writer(tmp_path / "b.mp4", size, 5):
        pass


def test_frames_for_programs_that_want_pictures(tmp_path: Path) -> None:
    path = with_matrix(squares_film(tmp_path / "clip.mp4", 3), (0, 1, -1, 0))
    run(path, tmp_path / "out", ("yolo", "labelme"), save_frames=True, overlay=False)
    names = sorted(p.name for p in (tmp_path / "out" / "frames").iterdir())
    assert names == ["clip_000000.jpg", "clip_000001.jpg", "clip_000002.jpg"]
    with Image.open(tmp_path / "out" / "frames" / "clip_000001.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - np.rot90(picture(1), -1)).mean() < 6
    content = json.loads((tmp_path / "out" / "labelme" / "clip_000001.json").read_text())
    assert (tmp_path / "out" / "labelme" / content["imagePath"]).resolve() == tmp_path / "out/frames/clip_000001.jpg"


def test_damaged_and_missing_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cut file keeps what came out; another that cannot be read does not stop the third."""
    noise = [np.random.default_rng(n).integers(0, 40, (*SIZE, 3), dtype=np.uint8) for n in range(30)]
    cut = film(tmp_path / "cut.mkv", [np.maximum(picture(n % 12), noise[n]) for n in range(30)])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "words.mp4").write_text("no film")
    good = squares_film(tmp_path / "good.mp4", 3)
    proposer = ColourProposer()
    report = propose_videos(
        proposer,  # type: ignore[arg-type]
        [cut, tmp_path / "words.mp4", good],
        tmp_path / "out",
        progress=False,
    )
    assert len(report.failures) == 2 and "cut.mkv" in report.failures[0] and "words.mp4" in report.failures[1]
    assert capsys.readouterr().err.count("sharpmask propose: ") == 2
    entries = json.loads((tmp_path / "out" / "proposals.json").read_text())
    numbers = [max(e["frame_id"] for e in entries if e["video_id"] == video) for video in (1, 3)]
    assert 5 < numbers[0] < 25 and numbers[1] == 2
    assert {e["image_id"] for e in entries} == set(range(1, report.images + 1))
    assert (tmp_path / "out" / "cut_overlay.mp4").stat().st_size > 0
    assert not (tmp_path / "out" / "words_overlay.mp4").exists()


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def bright_things(self, monkeypatch: pytest.MonkeyPatch, brightness_network: Any) -> None:
        monkeypatch.setattr(checkpoints, "load_network", lambda name: brightness_network())
        monkeypatch.setattr("sharpmask.runtimes.choice.DEFAULT_RUNTIME", "eager")  # no runtime can prepare the fake

    def propose(self, *arguments: str) -> int:
        fixed = ["--device", "cpu", "--scales", "0", "--top", "20", "--threshold", "0.5"]
        return main(["propose", *arguments, *fixed])

    def test_a_clip(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = squares_film(tmp_path / "clip.mp4", 6)
        arguments = ["--fps", "12.5", "--track", "--nms", "0.5", "--format", "coco,youtube-vis", "--end", "0:00.2"]
        assert self.propose(str(path), "--output", str(tmp_path / "out"), *arguments) == 0
        assert "for 3 frames of 1 videos in" in capsys.readouterr().out
        names = sorted(p.name for p in (tmp_path / "out").iterdir())
        assert names == ["clip_overlay.mp4", "images.json", "proposals.json", "tracks.json"]

    def test_patterns(self, tmp_path: Path) -> None:
        squares_film(tmp_path / "a.mp4", 2)
        squares_film(tmp_path / "b.MKV", 2)
        (tmp_path / "c.txt").write_text("")
        assert split_videos([f"{tmp_path}/*.mp4", f"{tmp_path}/b*"]) == ([], [tmp_path / "a.mp4", tmp_path / "b.MKV"])
        assert split_videos([f"{tmp_path}/*"]) == ([f"{tmp_path}/*"], [tmp_path / "a.mp4", tmp_path / "b.MKV"])
        assert split_videos([str(tmp_path), f"{tmp_path}/x*"]) == ([str(tmp_path), f"{tmp_path}/x*"], [])

    def test_an_empty_choice(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = squares_film(tmp_path / "clip.mp4", 3)
        assert self.propose(str(path), "--output", str(tmp_path / "out"), "--start", "50") == 1
        assert "no frame lies between" in capsys.readouterr().err

    def test_a_full_disk(self, tmp_path: Path, files_of_at_most: Any, capsys: pytest.CaptureFixture[str]) -> None:
        noise = [np.random.default_rng(n).integers(0, 255, (*SIZE, 3), dtype=np.uint8) for n in range(8)]
        path = film(tmp_path / "clip.mp4", noise)
        with files_of_at_most(3_000):
            assert self.propose(str(path), "--output", str(tmp_path / "out"), "--min-score", "0.9999") == 1
        message = capsys.readouterr().err
        assert "clip_overlay.mp4" in message or "overlay video" in message
        assert [p.name for p in (tmp_path / "out").iterdir()] == []

    @pytest.mark.parametrize(
        "options",
        [
            ["--step", "0"],
            ["--fps", "0"],
            ["--fps", "2", "--step", "2"],
            ["--start", "late"],
            ["--start", "5", "--end", "4"],
            ["--track", "--track-iou", "0"],
            ["--tile", "512"],
            ["--annotations", "a.json"],
            ["--format", "youtube-vis"],
            ["missing.mp4"],
            ["photo.png"],
        ],
    )
    def test_bad_options_give_status_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
    ) -> None:
        path = squares_film(tmp_path / "clip.mp4", 2)
        Image.new("RGB", (9, 9)).save(tmp_path / "photo.png")
        options = [str(tmp_path / o) if o.endswith((".mp4", ".png")) else o for o in options]
        assert self.propose(str(path), *options, "--output", str(tmp_path / "out")) == 2
        assert capsys.readouterr().err.strip() and not (tmp_path / "out").exists()

    def test_without_the_extra(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = squares_film(tmp_path / "clip.mp4", 2)
        monkeypatch.setitem(sys.modules, "av", None)
        assert self.propose(str(path), "--output", str(tmp_path / "out")) == 2
        assert "sharpmask[video]" in capsys.readouterr().err


def test_the_bundled_model_follows_an_object(tmp_path: Path) -> None:
    """A red ball rolls over green ground: one track holds it in every frame."""
    y, x = np.mgrid[:144, :240]
    balls = [np.hypot(x - 60 - 12 * n, y - 76) < 36 for n in range(6)]
    ground = np.random.default_rng(0).integers(-12, 12, (144, 240, 1))
    shade = (30 * (y - 76) / 36)[:, :, None]
    pictures = [np.where(ball[:, :, None], (215, 60, 45) - shade, np.array((60, 110, 70)) + ground) for ball in balls]
    path = film(tmp_path / "ball.mp4", [picture.clip(0, 255).astype(np.uint8) for picture in pictures])
    proposer = sharpmask.load(top=40, scales=[0, 0.5], nms=0.6, device="cpu")
    report = propose_videos(proposer, [path], tmp_path / "out", tracking=Tracking(), progress=False)
    assert report.images == 6 and report.failures == []
    lives: dict[int, list[float]] = {}
    for entry in json.loads((tmp_path / "out" / "proposals.json").read_text()):
        mask = coco_mask.decode(entry["segmentation"]).astype(bool)
        lives.setdefault(entry["track_id"], []).append(iou(mask, balls[entry["frame_id"]]))
    assert max((len(ious), min(ious)) for ious in lives.values()) > (6, 0.8)
