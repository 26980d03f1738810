"""Tracks of videos in the form of YouTube-VIS results: one file, `tracks.json`, one entry a track.

An entry has video_id, track_id, category_id (1), score (the mean over its masks), and the lists segmentations (COCO
run-length codes), bboxes (xywh) and areas with one element for each frame of the video that was looked at, null where
the track has no mask. Which frames these are stands in `images.json`. Masks that were linked to no other frame make no
track. Needs proposals with `track_ids`.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpmask.errors import ConfigError
from sharpmask.files import atomic_write
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals


@dataclass
class _Track:
    """Frames of a track, counted within those looked at, and where each mask lies in the store."""

    frames: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


@contextmanager
def open_youtube_vis(output: Path, options: FormatOptions) -> Iterator[Write]:
    tracks: dict[tuple[int, int], _Track] = {}
    lengths: dict[int, int] = {}  # frames looked at, by video
    # Masks wait on disk: a track is known when the video is over.
    with atomic_write(output / "tracks.json") as temporary, tempfile.TemporaryFile(dir=output) as store:

        def write(photo: Photo, proposals: Proposals) -> None:
            if photo.video is None or proposals.track_ids is None:
                raise ConfigError("the format youtube-vis is for videos with --track")
            video = photo.video["id"]
            frame = lengths[video] = lengths.get(video, -1) + 1
            for entry, area in zip(proposals.to_coco(0), proposals.areas.tolist(), strict=True):
                track = tracks.setdefault((video, entry["track_id"]), _Track())
                track.frames.append(frame)
                track.places.append(store.tell())
                track.scores.append(entry["score"])
                store.write(json.dumps([entry["segmentation"], entry["bbox"], area]).encode() + b"\n")

        yield write
        with open(temporary, "w", encoding="utf-8") as file:
            file.write("[")
            separator = "\n"
            for (video, number), track in tracks.items():
                if len(track.frames) > 1:
                    entry = _entry(video, number, track, lengths[video] + 1, store)
                    file.write(separator + json.dumps(entry, separators=(",", ":")))
                    separator = ",\n"
            file.write("\n]\n")


def _entry(video: int, number: int, track: _Track, length: int, store: Any) -> dict[str, Any]:
    columns: list[list[Any]] = [[None] * length for _ in range(3)]
    for frame, place in zip(track.frames, track.places, strict=True):
        store.seek(place)
        for column, value in zip(columns, json.loads(store.readline()), strict=True):
            column[frame] = value
    return {
        "video_id": video,
        "track_id": number,
        "category_id": 1,
        "score": sum(track.scores) / len(track.scores),
        "segmentations": columns[0],
        "bboxes": columns[1],
        "areas": columns[2],
    }
