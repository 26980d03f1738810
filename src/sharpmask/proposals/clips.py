"""Videos to masks, frame by frame: each frame goes to the writers as a photo does, with its number and its time.

Written into the output folder, besides what the writers write: `<name>_overlay.mp4` for each video, and with
`save_frames` the frames as `frames/<name>_<number>.jpg`, for programs that want pictures. One frame is in memory
at a time.
"""

import glob
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from sharpmask.errors import ConfigError, ImageError
from sharpmask.files import atomic_write, make_folder
from sharpmask.proposals.cleaning import Cleaning
from sharpmask.proposals.compat import Torch7Proposer
from sharpmask.proposals.folder import FolderReport, OpenWriter, Photo, Write, open_coco, overlay_paths, photo_names
from sharpmask.proposals.overlay import draw_on, shrunk
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.tracking import Tracker, Tracking
from sharpmask.proposals.video import Choice, Frame, Video, is_video, open_video
from sharpmask.proposals.video_overlay import open_writer


@dataclass
class _Job:
    """What is the same for all frames of a run, and the number of frames so far."""

    proposer: Proposer | Torch7Proposer
    write: Write
    cleaning: Cleaning | None
    folder: Path
    frames: Path | None
    report: FolderReport


def split_videos(inputs: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Inputs as given on a command line: those that are not videos, and the videos, each once.

    A file is a video by its name. A pattern gives the videos it matches, and stays among the rest where it matches
    anything else, or nothing. Folders stay as they are: they stand for their images.

    Raises:
        ConfigError: a video that does not exist.
    """
    rest: list[str] = []
    videos: dict[Path, None] = {}
    for item in inputs:
        if is_video(Path(item)) and not Path(item).is_dir() and not glob.has_magic(item):
            if not Path(item).exists():
                raise ConfigError(f"{item}: no such file")
            videos[Path(item)] = None
        elif glob.has_magic(item) and not Path(item).exists():
            matches = [Path(match) for match in sorted(glob.glob(item, recursive=True))]
            films = [path for path in matches if is_video(path) and path.is_file() and not path.name.startswith(".")]
            videos.update(dict.fromkeys(films))
            if len(films) < len(matches) or not matches:
                rest.append(item)
        else:
            rest.append(item)
    return rest, list(videos)


def propose_videos(
    proposer: Proposer | Torch7Proposer,
    paths: Sequence[Path],
    output: Path,
    *,
    choice: Choice | None = None,
    tracking: Tracking | None = None,
    overlay: bool = True,
    save_frames: bool = False,
    cleaning: Cleaning | None = None,
    writer: OpenWriter | None = None,
    errors: TextIO | None = None,
    progress: bool = True,
) -> FolderReport:
    """Propose for the chosen frames of each video and write the results.

    A video that cannot be read, or is damaged, is reported on `errors` (default: standard error); what could be decoded
    of it is kept, and the rest is done. Frames have ids 1, 2, … through all videos; the report counts them as images.

    Args:
        choice: which frames; default all.
        tracking: link masks from frame to frame; None: do not.
        overlay, cleaning, writer: as for `folder.propose_files`.
        save_frames: write the frames that were looked at as JPEG files.

    Raises:
        ConfigError: the output folder cannot be made or written to.
        MissingExtraError: PyAV is not installed.
    """
    frames = output / "frames" if save_frames else None
    make_folder(frames or output)
    overlays, names = overlay_paths(paths, output, ".mp4"), photo_names(paths)
    report = FolderReport()
    with (writer or open_coco)(output) as write:
        job = _Job(proposer, write, cleaning, output, frames, report)
        for number, path in enumerate(paths, start=1):
            found: list[str] = []
            try:
                with open_video(path, max_pixels=proposer.max_pixels) as video:
                    record = _record(number, path, video)
                    tracker = Tracker(tracking) if tracking else None
                    target = overlays[path] if overlay else None
                    _run(job, video, record, names[path], choice or Choice(), tracker, target, progress)
                    found = [f"{path}: {fault}" for fault in video.faults]
            except ImageError as error:
                found = [str(error)]
            report.failures += found
            for fault in found:
                tqdm.write(f"sharpmask propose: {fault}", file=errors or sys.stderr)
    return report


def _run(
    job: _Job,
    video: Video,
    record: dict[str, Any],
    name: str,
    choice: Choice,
    tracker: Tracker | None,
    overlay: Path | None,
    progress: bool,
) -> None:
    """One video."""
    before = job.report.images
    with ExitStack() as stack:
        film = None
        # Shown on terminals only.
        frames = tqdm(video.frames(choice), unit="frame", desc=name, leave=False, disable=None if progress else True)
        for frame in frames:
            proposals = job.proposer.propose(frame.pixels)
            if job.cleaning is not None:
                proposals = job.cleaning.apply(proposals)
            if tracker is not None:
                proposals = tracker.update(proposals)
            photo = _photo(job, record, name, frame)
            job.write(photo, proposals)
            job.report.images += 1
            job.report.proposals += len(proposals)
            if job.frames is not None:
                with atomic_write(photo.path) as temporary:
                    Image.fromarray(frame.pixels).save(temporary, quality=95)
            if overlay is not None:
                picture = shrunk(frame.pixels)
                if film is None:
                    target = stack.enter_context(atomic_write(overlay))
                    rate = choice.fps or (video.rate or 25) / choice.step
                    film = stack.enter_context(open_writer(target, (picture.shape[0], picture.shape[1]), rate))
                    began = frame.time
                drawn = draw_on(picture, proposals, numbers=proposals.track_ids)
                film.add(np.asarray(drawn), frame.time - began)
    if job.report.images == before:
        lasts = "" if video.duration is None else f"; the video lasts {video.duration:.2f} s"
        raise ImageError(f"{record['file_name']}: no frame lies between the start and the end{lasts}")


def _record(number: int, path: Path, video: Video) -> dict[str, Any]:
    height, width = video.size
    return {
        "id": number,
        "file_name": path.as_posix(),
        "width": width,
        "height": height,
        "fps": None if video.rate is None else round(video.rate, 6),
        "duration": None if video.duration is None else round(video.duration, 6),
    }


def _photo(job: _Job, video: dict[str, Any], name: str, frame: Frame) -> Photo:
    """A frame as the writers take it; its file is there when frames are saved."""
    own = f"{name}_{frame.number:06d}"
    record = {
        "id": job.report.images + 1,
        "file_name": f"{own}.jpg",
        "width": frame.pixels.shape[1],
        "height": frame.pixels.shape[0],
        "video_id": video["id"],
        "frame_id": frame.number,
        "time": frame.time,
    }
    return Photo(job.folder / "frames" / f"{own}.jpg", own, record, video=video)
