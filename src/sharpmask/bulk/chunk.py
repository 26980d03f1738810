"""One chunk from its list of images to its two files: what every worker of every engine does.

The rule of reading.py holds for the worker process too: an image that made it fail is given up only if another image
goes through after that. Otherwise the machine or the model is at fault, and `WorkerBroken` ends the run instead of
turning every image into an error.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field

from sharpmask.bulk.plan import Plan
from sharpmask.bulk.reading import ChunkReader, Item, Origin, SourceCheck, Unreadable, read_chunk
from sharpmask.bulk.results import Counts, chunk_name, count_images, read_images, write_chunk
from sharpmask.bulk.storage import Patience
from sharpmask.bulk.worker import Failed, Found, ProposerFactory, Worker, WorkerBroken, WorkerOptions


@dataclass(frozen=True)
class Job:
    """All a worker needs to know, anywhere.

    Attributes:
        plan: the images and the destination.
        base: where the plan's relative paths start; see `Listing.base`.
        factory: makes the proposer.
        worker: limits of the processes.
        patience: with the source.
        record_all: make errors of images that cannot be read or fail even when no other image can be or goes through.
    """

    plan: Plan
    base: str
    factory: ProposerFactory
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    patience: Patience = field(default_factory=Patience)
    record_all: bool = False


class ChunkRunner:
    """Does chunks one after the other, with one worker process.

    Args:
        job: what to do.
        device: for the process; None: CUDA where available.
        stop: ends the work, with `Stopped`.
        on_image: called after each image.
    """

    def __init__(
        self,
        job: Job,
        device: str | None = None,
        stop: threading.Event | None = None,
        on_image: Callable[[], None] | None = None,
    ) -> None:
        self.job, self.stop, self.on_image = job, stop or threading.Event(), on_image or (lambda: None)
        self.plan = copy(job.plan)  # it keeps what it has read, and runners are in threads of their own
        self.worker = Worker(job.factory, device, job.worker, self.stop)
        self.check = SourceCheck(self.plan.samples, record=job.record_all)
        self._good: bytes | None = None  # the last image that went through

    def run(self, chunk: int) -> Counts:
        """Do a chunk and write it.

        Raises:
            SharpMaskError: the source, the destination or the workers fail as a whole; nothing of the chunk counts.
            Stopped: `stop` was set.
        """
        plan = self.plan
        items, first = plan.items(chunk), plan.first_id(chunk)
        reader = ChunkReader(items, Origin(self.job.base, plan.column), self.job.patience, self.stop)
        outcomes: dict[int, Found | Failed] = {}
        for place, content in read_chunk(reader, self.check):
            if isinstance(content, str):
                outcomes[place] = Failed("source", content)
            else:
                outcomes[place] = self._propose(reader, content, first + place, items[place])
            self.on_image()
        return write_chunk(plan.place, chunk, first, items, [outcomes[place] for place in range(len(items))])

    def _propose(self, reader: ChunkReader, content: bytes, image_id: int, item: Item) -> Found | Failed:
        outcome = self.worker.propose(content, image_id, item.key)
        if isinstance(outcome, Found):
            self._good = content
        elif outcome.kind == "worker" and not self.job.record_all:
            self._require_working(reader, item, outcome.reason)
        return outcome

    def _require_working(self, reader: ChunkReader, failed: Item, reason: str) -> None:
        """Return when another image goes through now; `WorkerBroken` when none does."""

        def others() -> Iterator[bytes]:
            if self._good is not None:
                yield self._good
            for item in self.plan.samples():
                if item.key != failed.key:
                    with suppress(Unreadable):
                        yield ChunkReader([item], reader.origin, reader.patience, reader.stop).fetch(item)

        for content in others():
            if isinstance(self.worker.propose(content, 0, "another image", attempts=1), Found):
                self._good = content
                return
        raise WorkerBroken(
            f"{failed.key}: {reason}; and no other image that was tried went through after it: it is the machine, the "
            "model or all images. Fewer --workers need less memory; run the same command again to go on, or with "
            "--when-all-fail record if the images are at fault"
        )

    def run_unless_done(self, chunk: int) -> Counts:
        """Like `run`, for engines that may give out a chunk again after a failure of their own."""
        if self.plan.place.exists(f"images/{chunk_name(chunk)}"):
            return count_images(read_images(self.plan.place, chunk))
        return self.run(chunk)

    def close(self) -> None:
        self.worker.close()
