"""Many image files to one COCO results file, a list of the images and a picture of each.

Written into the output folder: `proposals.json` (a COCO results list), `images.json` (a COCO data set without
annotations that gives the image ids, so that `COCO("images.json").loadRes("proposals.json")` works; left out when the
ids come from an annotation file) and `<name>_overlay.png` for each image. Other formats are other writers: see
`sharpmask.formats`.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from tqdm import tqdm

from sharpmask.errors import ImageError
from sharpmask.files import atomic_write, make_folder, writable
from sharpmask.images import read_image
from sharpmask.proposals.cleaning import Cleaning
from sharpmask.proposals.compat import Torch7Proposer
from sharpmask.proposals.ground import Ground
from sharpmask.proposals.overlay import draw_overlay
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.records import Records
from sharpmask.proposals.result import Proposals


@dataclass
class FolderReport:
    """What a run did: images written, proposals written, and the message for each image that failed."""

    images: int = 0
    proposals: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Photo:
    """One image that was read, for the writers.

    Attributes:
        path: the file, as it was given.
        name: a name for the files written about it: its stem, with a number where another photo has the same one.
        record: the COCO image record: id, file_name, width, height, and what an annotation file says besides.
        known: the record comes from an annotation file.
        ground: where it lies on the ground, if its file says so.
        video: of a frame: its video's record, with the id that the frame's record has as `video_id`.
    """

    path: Path
    name: str
    record: dict[str, Any]
    known: bool = False
    ground: Ground | None = None
    video: dict[str, Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.record["height"], self.record["width"]


T = TypeVar("T")
Write = Callable[[Photo, Proposals], None]
# Opens a writer in a folder; what it writes is complete, under its final name, when the block succeeds.
OpenWriter = Callable[[Path], AbstractContextManager[Write]]


def propose_files(
    proposer: Proposer | Torch7Proposer,
    paths: Sequence[Path],
    output: Path,
    *,
    overlay: bool = True,
    annotations: Path | None = None,
    errors: TextIO | None = None,
    progress: bool = True,
    cleaning: Cleaning | None = None,
    writer: OpenWriter | None = None,
) -> FolderReport:
    """Propose for each file and write the results.

    The next photo is read and the last one's results are written while the network works on a photo, so that up to
    three photos and the proposals of two are in memory; order and content of the results do not depend on it.

    A file that cannot be read, or that the annotations do not know, is reported on `errors` (default: standard error)
    and left out; the rest is done. Ids are those of `annotations` by file name, otherwise 1, 2, … in the order
    of `paths`. A result file for all images appears when all images are done. `cleaning` is applied to each image's
    proposals; `writer` takes the place of the COCO results (`open_coco`), for example one of `sharpmask.formats`.

    Raises:
        ConfigError: the output folder cannot be made or written to.
        DataError: the annotation file cannot be used, or knows none of the images.
    """
    records = Records(annotations, paths)
    make_folder(output)
    overlays, names = overlay_paths(paths, output), photo_names(paths)
    report = FolderReport()

    def read(number: int, path: Path) -> tuple[dict[str, Any], np.ndarray] | ImageError:
        try:
            record = records.find(number, path)
            pixels = read_image(path, max_pixels=proposer.max_pixels)
            return records.sized(record, path, pixels.shape[1], pixels.shape[0]), pixels
        except ImageError as error:
            return error

    def save(photo: Photo, proposals: Proposals, pixels: np.ndarray) -> None:
        write(photo, proposals)
        if overlay:
            with atomic_write(overlays[photo.path]) as picture:
                draw_overlay(pixels, proposals).save(picture)

    tasks = (partial(read, number, path) for number, path in enumerate(paths, start=1))
    with (
        (writer or open_coco)(output) as write,
        _one_thread() as reader,
        _one_thread() as saver,
        tqdm(total=len(paths), unit="image", disable=None if progress else True) as bar,  # shown on terminals only
    ):
        saved: Future[None] | None = None
        for path, found in zip(paths, _one_ahead(reader, tasks), strict=True):
            try:
                if isinstance(found, ImageError):
                    raise found
                record, pixels = found
                proposals = proposer.propose(pixels)
            except ImageError as error:
                report.failures.append(str(error))
                tqdm.write(f"sharpmask propose: {error}", file=errors or sys.stderr)
                bar.update()
                continue
            if cleaning is not None:
                proposals = cleaning.apply(proposals)
            if saved is not None:
                saved.result()
            saved = saver.submit(save, Photo(path, names[path], record, records.known), proposals, pixels)
            report.images += 1
            report.proposals += len(proposals)
            bar.update()
        if saved is not None:
            saved.result()
    return report


@contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread that does what is submitted one after the other; where the block fails, nothing more is begun."""
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread
        except BaseException:
            thread.shutdown(cancel_futures=True)
            raise


def _one_ahead(thread: ThreadPoolExecutor, tasks: Iterator[Callable[[], T]]) -> Iterator[T]:
    """The results of `tasks` in their order; each is begun in `thread` when the one before it is handed out."""
    pending = [thread.submit(task) for task in itertools.islice(tasks, 1)]
    while pending:
        result = pending.pop().result()
        pending = [thread.submit(task) for task in itertools.islice(tasks, 1)]
        yield result


@contextmanager
def open_coco(output: Path, *, label: str = "object") -> Iterator[Write]:
    """The writer of COCO results: `proposals.json`, and `images.json` with the only class's name, unless the ids come
    from an annotation file."""
    records: list[dict[str, Any]] = []
    videos: dict[int, dict[str, Any]] = {}
    known = empty = True
    with atomic_write(output / "proposals.json") as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("[")

        def write(photo: Photo, proposals: Proposals) -> None:
            nonlocal known, empty
            _append(file, proposals, photo.record, first=empty)
            records.append(photo.record)
            if photo.video is not None:
                videos[photo.video["id"]] = photo.video
            known, empty = known and photo.known, empty and len(proposals) == 0

        yield write
        file.write("\n]\n")
    if not (known and records):
        _write_images(output / "images.json", records, list(videos.values()), label)
    else:
        (output / "images.json").unlink(missing_ok=True)  # that of an earlier run has other ids


def photo_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each input: its stem, or with _2, _3, … added, which makes it no other input's stem; unique also
    without regard to case."""
    stems = {path: writable(path.stem) for path in paths}
    others = {stem.lower() for stem in stems.values()}
    taken: set[str] = set()
    chosen = {}
    for path, stem in stems.items():
        name, number = stem, 2
        while name.lower() in taken or (number > 2 and name.lower() in others):
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        chosen[path] = name
    return chosen


def overlay_paths(paths: Sequence[Path], output: Path, suffix: str = ".png") -> dict[Path, Path]:
    """A picture's path for each input: unique also without regard to case, and never one of the inputs."""
    taken = {str(path.absolute()).lower() for path in paths}
    chosen = {}
    for path in paths:
        for name in _names(path.stem, suffix):
            target = output / name
            key = str(target.absolute()).lower()
            if key not in taken:
                break
        taken.add(key)
        chosen[path] = target
    return chosen


def _names(stem: str, suffix: str) -> Iterator[str]:
    yield f"{stem}_overlay{suffix}"
    number = 2
    while True:
        yield f"{stem}_{number}_overlay{suffix}"
        number += 1


def _append(file: TextIO, proposals: Proposals, record: dict[str, Any], *, first: bool) -> None:
    """Add the entries of one image to an open JSON list, one a line; those of a video's frame say which it is."""
    frame = {key: record[key] for key in ("video_id", "frame_id", "time") if key in record}
    lines = [json.dumps(entry | frame, separators=(",", ":")) for entry in proposals.to_coco(record["id"])]
    if lines:
        file.write(("\n" if first else ",\n") + ",\n".join(lines))


def _write_images(path: Path, records: list[dict[str, Any]], videos: list[dict[str, Any]], label: str) -> None:
    content = {
        **({"videos": videos} if videos else {}),
        "images": records,
        "annotations": [],
        "categories": [{"id": 1, "name": label}],
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
