"""Measuring all pieces of results, in this process or in several, and putting together what they say.

Pieces go to the processes in order, a few ahead of the one that is waited for, so that messages name the first fault of
the file and memory is that of the pieces in work. What stays of each proposal are twelve bytes that order it.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from sharpmask.errors import DataError, SharpMaskError
from sharpmask.evaluation.inputs import ImageId
from sharpmask.evaluation.matching import Part
from sharpmask.evaluation.pieces import JsonPiece, NotWhole, Outcome, Source, Wanted, two_images

WORTH = 64 * 2**20  # bytes of results from which on other processes are worth their start
_AHEAD = 2  # pieces a process
_JOINED = 8  # pieces at most that are taken for one record, or wrongly cut

_wanted: Wanted | None = None  # of a worker process


@dataclass
class Collected:
    """What all pieces say: counts, and the parts of each image in the order of the results."""

    count: int = 0
    masks: int = 0
    boxes: int = 0
    parts: dict[ImageId, list[Part]] = field(default_factory=dict)
    names: dict[ImageId, str] = field(default_factory=dict)

    def add(self, outcome: Outcome, label: str, wanted: Wanted) -> None:
        """Raises DataError where an image of another piece is taken for the same one of the annotations."""
        for image_id, name in outcome.names.items():
            if self.names.setdefault(image_id, name) != name:
                raise two_images(self.names[image_id], name, label, wanted)
        self.count += outcome.count
        self.masks += outcome.masks
        self.boxes += outcome.boxes
        for image_id, part in outcome.parts.items():
            self.parts.setdefault(image_id, []).append(part)


def workers_for(source: Source, workers: int | None) -> int:
    """As many processes as asked for; by default as there are cores where there is enough to do."""
    if workers is None:
        from sharpmask.bulk.engine_local import usable_cores

        workers = usable_cores() if source.size >= WORTH else 1
    return max(1, min(workers, len(source.pieces)))


def collect(source: Source, wanted: Wanted, *, label: str, workers: int | None, progress: bool) -> Collected:
    """Measure all pieces.

    Raises:
        DataError: naming the record or image that cannot be measured, or the damage.
        SharpMaskError: a process was killed.
    """
    collected = Collected()
    bar = tqdm(
        total=sum(piece.weight for piece in source.pieces),
        desc=f"evaluate {label}",
        unit=source.unit,
        unit_scale=source.unit != "image",
        disable=None if progress else True,
        leave=False,
    )
    with bar, _outcomes(source.pieces, wanted, workers_for(source, workers)) as outcomes:
        pieces = iter(source.pieces)
        for piece in pieces:
            try:
                outcome = next(outcomes)()
            except NotWhole as error:
                piece, outcome = _join(piece, pieces, outcomes, wanted, collected.count, error)
            except DataError:
                if not collected.count:
                    raise
                outcome = piece.measure(wanted, collected.count)  # raises it again, with the record's number
            except BrokenProcessPool as error:
                raise SharpMaskError(
                    "a process that measured results was killed (memory?); give a smaller --workers"
                ) from error
            collected.add(outcome, label, wanted)
            bar.update(piece.weight)
    return collected


def _join(
    piece: JsonPiece, rest: Iterator[Any], outcomes: Iterator[Any], wanted: Wanted, before: int, error: NotWhole
) -> tuple[JsonPiece, Outcome]:
    """Measure a piece together with the next ones, as many as it takes to make a whole."""
    for _ in range(_JOINED):
        following = next(rest, None)
        if following is None:
            break
        next(outcomes)  # what that piece says by itself is nothing
        piece = piece.joined(following)
        try:
            return piece, piece.measure(wanted, before)
        except NotWhole as other:
            error = other
    raise DataError(f"{piece.path}: not valid JSON ({error}); was it written completely?") from error


@contextmanager
def _outcomes(pieces: list[Any], wanted: Wanted, workers: int) -> Iterator[Iterator[Any]]:
    """For each piece, in order, a function that gives its outcome or raises."""
    if workers == 1:
        yield ((lambda piece=piece: piece.measure(wanted)) for piece in pieces)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare, (wanted,))
    try:
        yield _ahead(pool, pieces, workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(pool: ProcessPoolExecutor, pieces: list[Any], workers: int) -> Iterator[Any]:
    waiting: deque[Future[Outcome]] = deque()
    for piece in pieces:
        waiting.append(pool.submit(_measure, piece))
        if len(waiting) > _AHEAD * workers:
            yield waiting.popleft().result
    while waiting:
        yield waiting.popleft().result


def _prepare(wanted: Wanted) -> None:
    global _wanted
    _wanted = wanted


def _measure(piece: Any) -> Outcome:
    assert _wanted is not None
    return piece.measure(_wanted)
