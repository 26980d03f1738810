"""One chunk from its list of images to its two files: what every worker of every engine does."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from sharpmask.bulk.plan import Plan
from sharpmask.bulk.reading import ChunkReader, Origin, SourceCheck, read_chunk
from sharpmask.bulk.results import Counts, chunk_name, count_images, read_images, write_chunk
from sharpmask.bulk.storage import Patience
from sharpmask.bulk.worker import Failed, Found, ProposerFactory, Worker, WorkerOptions


@dataclass(frozen=True)
class Job:
    """All a worker needs to know, anywhere.

    Attributes:
        plan: the images and the destination.
        base: where the plan's relative paths start; see `Listing.base`.
        factory: makes the proposer.
        worker: limits of the processes.
        patience: with the source.
        record_unreadable: see `SourceCheck`.
    """

    plan: Plan
    base: str
    factory: ProposerFactory
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    patience: Patience = field(default_factory=Patience)
    record_unreadable: bool = False


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
        self.worker = Worker(job.factory, device, job.worker, self.stop)
        self.check = SourceCheck(job.plan.samples, record=job.record_unreadable)

    def run(self, chunk: int) -> Counts:
        """Do a chunk and write it.

        Raises:
            SharpMaskError: the source, the destination or the workers fail as a whole; nothing of the chunk counts.
            Stopped: `stop` was set.
        """
        plan = self.job.plan
        items, first = plan.items(chunk), plan.first_id(chunk)
        reader = ChunkReader(items, Origin(self.job.base, plan.column), self.job.patience, self.stop)
        outcomes: dict[int, Found | Failed] = {}
        for place, content in read_chunk(reader, self.check):
            if isinstance(content, str):
                outcomes[place] = Failed("source", content)
            else:
                outcomes[place] = self.worker.propose(content, first + place, items[place].key)
            self.on_image()
        return write_chunk(plan.place, chunk, first, items, [outcomes[place] for place in range(len(items))])

    def run_unless_done(self, chunk: int) -> Counts:
        """Like `run`, for engines that may give out a chunk again after a failure of their own."""
        if chunk_name(chunk) in self.job.plan.place.names("images"):
            return count_images(read_images(self.job.plan.place, chunk))
        return self.run(chunk)

    def close(self) -> None:
        self.worker.close()
