"""A bulk run from its first start to its summary."""

import sys
import threading
import time
from dataclasses import dataclass, field

from tqdm import tqdm

from sharpmask.bulk.chunk import Job
from sharpmask.bulk.engine_local import devices, run_local
from sharpmask.bulk.engine_ray import run_ray
from sharpmask.bulk.listing import Listing, SourceOptions
from sharpmask.bulk.plan import Plan, make_plan, read_plan, require_same
from sharpmask.bulk.results import Counts, done_chunks, finish
from sharpmask.bulk.storage import Patience, Place
from sharpmask.bulk.worker import ProposerFactory, WorkerOptions
from sharpmask.errors import ConfigError

ENGINES = ("local", "ray")
CHUNK_SIZE = 64
_LOG_SECONDS = 60


@dataclass(frozen=True)
class BulkOptions:
    """How a run is done; none of this changes a result.

    Attributes:
        engine: "local" or "ray".
        workers: processes that propose, each with the model; None: as many as GPUs, or as the CPU cores have room for.
        device: as for `Proposer`.
        chunk_size: images written, and done again after a kill, together; None: 64, or that of the run's plan.
        check_source: list the source again when a run goes on, and refuse if it has changed.
        record_all: see `Job`.
        source: how to read the source.
        worker: limits of the processes.
        patience: with a source or destination that does not answer.
        progress: show a progress bar on terminals, and a line a minute elsewhere.

    Raises:
        ConfigError: a value outside its range.
    """

    engine: str = "local"
    workers: int | None = None
    device: str | None = None
    chunk_size: int | None = None
    check_source: bool = True
    record_all: bool = False
    source: SourceOptions = field(default_factory=SourceOptions)
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    patience: Patience = field(default_factory=Patience)
    progress: bool = True

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine '{self.engine}': must be one of {', '.join(ENGINES)}")
        for name, value in (("workers", self.workers), ("chunk size", self.chunk_size)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: must be at least 1")


@dataclass(frozen=True)
class BulkReport:
    """What a run did.

    Attributes:
        plan: what there was to do.
        total: what is done now, counted from the files: everything.
        images: images done by this call.
        seconds: it took for them.
    """

    plan: Plan
    total: Counts
    images: int
    seconds: float

    def lines(self) -> list[str]:
        """For people."""
        plan, lines = self.plan, self.total.lines()
        if plan.repeated:
            lines.append(f"named again {plan.repeated} times; each image was taken once")
        if plan.left_out:
            lines.append(f"left out    {plan.left_out} files that are no images by their suffix")
        rate = f"{self.images} images in {self.seconds:.0f} s, {self.images / self.seconds:.2f} a second"
        lines.append(f"this time   {rate if self.images else 'nothing was left to do'}")
        if self.total.errors:
            lines.append(f"what failed is told in {plan.place}/errors.parquet")
        return lines


def propose_bulk(
    source: str, destination: str, factory: ProposerFactory, options: BulkOptions | None = None
) -> BulkReport:
    """Propose for every image of a source, or go on with it: each image ends as a result or as one row of errors.

    Args:
        source: folder, pattern, list, Parquet or tar files, local or fsspec URL; see `listing`.
        destination: folder, local or fsspec URL; see `results` for what is written.
        factory: makes the proposer in each worker process; `model.ModelFactory` for a model.
        options: how.

    Raises:
        ConfigError: source, destination or options cannot be used, or are not those the run began with.
        DataError: the source has changed since the run began, or cannot be listed.
        SharpMaskError: source, destination or workers failed on the way. What is done stays done; call again.
    """
    options = options or BulkOptions()
    place = Place(destination, options.patience)
    _require_apart(source, place)
    listing = Listing(source, options.source)
    with place.claimed():
        plan = read_plan(place)
        if plan is None:
            if place.names("images"):
                raise ConfigError(f"{place} holds results but no plan (_plan/plan.json): choose another destination")
            plan = make_plan(place, listing, options.chunk_size or CHUNK_SIZE, factory.describe())
        else:
            require_same(plan, factory.describe(), options.chunk_size, listing, check_source=options.check_source)
        job = Job(plan, listing.base, factory, options.worker, options.patience, options.record_all)
        return _run(job, options)


def _run(job: Job, options: BulkOptions) -> BulkReport:
    plan, began = job.plan, time.monotonic()
    done = done_chunks(plan)
    missing = [chunk for chunk in range(plan.chunks) if chunk not in done]
    if missing:
        plan.place.delete("_SUCCESS")
    to_do = sum(plan.size(chunk) for chunk in missing)
    with _Progress(plan.images, plan.images - to_do, options.progress) as progress:
        if not missing:
            pass
        elif options.engine == "local":
            places = devices(options.device, options.workers, options.worker.threads)
            run_local(job, missing, places, on_image=progress.advance, on_chunk=lambda counts: None)
        else:
            run_ray(
                job,
                missing,
                device=options.device,
                workers=options.workers,
                on_chunk=lambda counts: progress.advance(counts.images),
            )
    total = finish(plan)
    return BulkReport(plan, total, to_do, time.monotonic() - began)


class _Progress:
    """A bar with throughput on a terminal, a line a minute elsewhere."""

    def __init__(self, images: int, done: int, show: bool) -> None:
        self.images, self.done, self.first = images, done, done
        self.lines = show and not sys.stderr.isatty()
        self.bar = tqdm(total=images, initial=done, unit="image", disable=None if show else True)
        self.began = self.told = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, images: int = 1) -> None:
        with self._lock:
            self.done += images
            self.bar.update(images)
            now = time.monotonic()
            if self.lines and now - self.told >= _LOG_SECONDS:
                self.told = now
                rate = (self.done - self.first) / (now - self.began)
                print(f"{self.done} of {self.images} images, {rate:.2f} a second", file=sys.stderr, flush=True)


def _require_apart(source: str, place: Place) -> None:
    """A destination within the source would become part of it."""
    inside = Place(source).url
    if place.url == inside or place.url.startswith(inside + "/"):
        raise ConfigError(f"the destination {place} lies within the source {source}: choose a folder outside of it")
