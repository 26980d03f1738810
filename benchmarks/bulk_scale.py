"""What a million images cost: measured here for a few, and a model on paper for many machines.

    python benchmarks/bulk_scale.py --images DIR [--count 40] [--repeats 3] [--machines 1 4 16 64] [--cores 16]

Measures (1) the cost of one image by stage, one process, one thread; (2) the throughput of the local engine with 1 and
2 worker processes, in turn, and what the driver beside them costs; (3) listing, checking and counting. The model takes
these figures, and nothing else but what it prints as assumed. With the extra `ray` also (4) chunks a second of Ray's
driver.
"""

import argparse
import itertools
import math
import os
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sharpmask.bulk import results
from sharpmask.bulk.chunk import Job
from sharpmask.bulk.engine_local import run_local
from sharpmask.bulk.listing import Listing
from sharpmask.bulk.model import ModelFactory
from sharpmask.bulk.plan import Plan, make_plan, require_same
from sharpmask.bulk.run import CHUNK_SIZE
from sharpmask.bulk.storage import Place
from sharpmask.bulk.worker import Failed, Found, WorkerOptions
from sharpmask.images import decode_image
from sharpmask.proposal_rows import proposal_schema, proposal_table
from sharpmask.proposals import proposer as proposer_module
from sharpmask.proposals.cleaning import Cleaning

MILLION = 1_000_000


@dataclass
class Stages:
    """Of one image, on average: seconds by stage, bytes in and out, proposals."""

    seconds: dict[str, float]
    bytes_in: float
    bytes_out: float
    proposals: float


def measure_stages(factory: ModelFactory, folder: Path, count: int, scratch: Path) -> Stages:
    """Run the stages of a worker and of its driver one after the other, in this process."""
    spent: Counter[str] = Counter()

    def timed(stage: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return action(*args, **options)
            finally:
                spent[stage] += time.perf_counter() - began

        return run

    propose = factory.make("cpu")
    real = proposer_module.paste_windows
    proposer_module.paste_windows = timed("encode", real)  # masks to run lengths, within the proposer
    place, schema = Place(str(scratch / "stages")), proposal_schema()
    plan = make_plan(place, Listing(str(folder)), CHUNK_SIZE, {})
    paths = [folder / item.path for chunk in range(plan.chunks) for item in plan.items(chunk)][:count]
    propose(decode_image(paths[0].read_bytes(), "first"))  # the first image of a process is slower
    spent.clear()
    outcomes: list[Found | Failed] = []
    size = 0
    for number, path in enumerate(paths, start=1):
        data = timed("read", path.read_bytes)()
        size += len(data)
        pixels = timed("decode", decode_image)(data, str(path))
        before = spent["encode"]
        found = timed("network", propose)(pixels)
        spent["network"] -= spent["encode"] - before
        rows = timed("encode", proposal_table)(number, str(path), found, schema)
        outcomes.append(Found(pixels.shape[1], pixels.shape[0], rows))
    proposer_module.paste_windows = real
    for begin in range(0, len(paths), CHUNK_SIZE):
        items = plan.items(begin // CHUNK_SIZE)[: len(paths) - begin]
        part = outcomes[begin : begin + CHUNK_SIZE]
        timed("write", results.write_chunk)(place, begin // CHUNK_SIZE, begin + 1, items, part)
    written = sum(path.stat().st_size for path in Path(place.url).glob("*/chunk-*.parquet"))
    n = len(paths)
    rows_written = sum(len(outcome.rows) for outcome in outcomes if isinstance(outcome, Found))
    return Stages({stage: spent[stage] / n for stage in STAGES}, size / n, written / n, rows_written / n)


STAGES = ("read", "decode", "network", "encode", "write")


def measure_throughput(
    factory: ModelFactory, folder: Path, count: int, workers: int, scratch: Path
) -> dict[str, float]:
    """One run of the local engine: images a second from the first image done to the last, seconds to the first image,
    and seconds of CPU an image in the driver."""
    names = [item.path for item in itertools.islice(Listing(str(folder)), count)]
    source = scratch / "photos.txt"
    source.write_text("\n".join(str(folder.resolve() / name) for name in names))
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        listing = Listing(str(source))
        # Small chunks, so that both workers are busy to the end.
        plan = make_plan(Place(out), listing, max(1, count // (8 * workers)), factory.describe())
        job = Job(plan, listing.base, factory, WorkerOptions(threads=1))
        ends: list[float] = []
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        run_local(
            job,
            range(plan.chunks),
            ["cpu"] * workers,
            on_image=lambda: ends.append(time.perf_counter()),
            on_chunk=lambda counts: None,
        )
        after = resource.getrusage(resource.RUSAGE_SELF)
    driver = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "steady": (len(ends) - 1) / (ends[-1] - ends[0]),
        "start": ends[0] - began,
        "driver": driver / plan.images,
    }


def measure_listing(count: int, scratch: Path) -> dict[str, float]:
    """Seconds an image to list and plan, to check a plan again, and to count the results; bytes of the plan."""
    source = scratch / "names.txt"
    source.write_text("\n".join(f"folder-{number // 1000:05d}/photo-{number:09d}.jpg" for number in range(count)))
    place = Place(str(scratch / "listing"))
    began = time.perf_counter()
    plan: Plan = make_plan(place, Listing(str(source)), CHUNK_SIZE, {})
    planned = time.perf_counter()
    require_same(plan, {}, None, Listing(str(source)))  # lists it again
    checked = time.perf_counter()
    empty = Found(640, 480, proposal_schema().empty_table())
    chunks = min(plan.chunks, 200)
    for chunk in range(chunks):
        items = plan.items(chunk)
        results.write_chunk(place, chunk, plan.first_id(chunk), items, [empty] * len(items))
    plan.chunks, plan.images = chunks, min(plan.images, chunks * CHUNK_SIZE)
    counting = time.perf_counter()
    results.finish(plan)
    done = time.perf_counter()
    size = sum(path.stat().st_size for path in Path(place.url, "_plan").iterdir())
    return {
        "plan": (planned - began) / count,
        "check": (checked - planned) / count,
        "count": (done - counting) / plan.images,
        "bytes": size / count,
    }


def measure_ray(scratch: Path, chunks: int) -> float:
    """Chunks a second that Ray's driver can give out and take back, at least: of one tiny picture each, two actors."""
    from fake_proposer import FakeFactory, write_pictures
    from sharpmask.bulk.engine_ray import run_ray

    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)  # for Ray's processes
    write_pictures(scratch / "tiny", chunks)
    listing = Listing(str(scratch / "tiny"))
    plan = make_plan(Place(str(scratch / "ray")), listing, 1, {})
    ends: list[float] = []
    run_ray(
        Job(plan, listing.base, FakeFactory()),
        range(plan.chunks),
        device="cpu",
        workers=2,
        on_chunk=lambda counts: ends.append(time.perf_counter()),
    )
    return (len(ends) - 1) / (ends[-1] - ends[0])


@dataclass
class Measured:
    """What the model is made from; rates in images a second, times in seconds, of one image where nothing is said."""

    stages: Stages
    one: float  # process
    two: float  # processes
    start: float  # of a worker, to its first image
    driver: float  # CPU beside the workers
    listing: dict[str, float]
    ray: float | None  # chunks a second


def model(args: argparse.Namespace, measured: Measured) -> None:
    """Print what a million images cost on N machines."""
    stages, listing = measured.stages, measured.listing
    core_rate, chunks = measured.two / 2, MILLION / CHUNK_SIZE
    print(f"\nA million images on N machines of {args.cores} cores, one worker process a core (model)")
    print(
        f"Assumed: each core does {core_rate:.3f} images/s, as here with both busy; photos as here; an object store "
        f"answers in {1000 * args.latency:g} ms and lists 1,000 names a page; S3's documented limits for a prefix."
    )
    print(f"core-hours             {MILLION / core_rate / 3600:,.0f}")
    print(f"results                {stages.bytes_out * MILLION / 1e9:,.0f} GB in {2 * chunks:,.0f} files")
    print(f"read                   {stages.bytes_in * MILLION / 1e9:,.0f} GB in {MILLION:,} GET")
    print(f"plan                   {listing['bytes'] * MILLION / 1e6:,.0f} MB")
    once = {
        "list and plan": listing["plan"] * MILLION + MILLION / 1000 * args.latency,
        "count at the end": listing["count"] * MILLION + chunks * args.latency / 8,  # read eight at a time
    }
    print("once, in the driver    " + ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in once.items()))
    share = 100 * measured.driver * core_rate
    print(f"beside each worker     {1000 * measured.driver:.1f} ms CPU an image, {share:.1f} % of its core")
    fixed = sum(once.values()) + measured.start
    print("\n| machines | hours | images/s | read, MB/s | PUT/s | idle, % | fixed, % |\n|---|---|---|---|---|---|---|")
    for machines in args.machines:
        workers = machines * args.cores
        ideal = MILLION / (workers * core_rate)
        work = math.ceil(chunks / workers) * CHUNK_SIZE / core_rate  # the last round of chunks is not full
        seconds = work + fixed
        rate = MILLION / seconds
        print(
            f"| {machines} | {seconds / 3600:.1f} | {rate:.1f} | {rate * stages.bytes_in / 1e6:.1f} | "
            f"{2 * rate / CHUNK_SIZE:.2f} | {100 * (1 - ideal / work):.1f} | {100 * fixed / seconds:.1f} |"
        )
    machine = args.cores * core_rate
    limits = {
        f"fewer chunks than workers (a smaller --chunk-size than {CHUNK_SIZE})": chunks / args.cores,
        "listing and counting take as long as all the workers": MILLION / machine / fixed,
        "5,500 GET/s of one prefix (spread the source over several)": 5500 / machine,
        "3,500 PUT/s of one prefix": 3500 * CHUNK_SIZE / 2 / machine,
        f"a source that gives {args.source_rate:g} MB/s": args.source_rate * 1e6 / stages.bytes_in / machine,
    }
    if measured.ray is not None:
        limits[f"Ray's driver at the {measured.ray:.0f} chunks/s seen here"] = measured.ray * CHUNK_SIZE / machine
    print("\n| the next limit | machines |\n|---|---|")
    for name, machines in sorted(limits.items(), key=lambda entry: entry[1]):
        print(f"| {name} | {machines:,.0f} |")
    bottlenecks(args, measured)


def bottlenecks(args: argparse.Namespace, measured: Measured) -> None:
    """Print what limits one machine when its network gets faster, as by a GPU, and all else stays as measured."""
    cores, seconds = args.cores, measured.stages.seconds
    rest = {"decode": seconds["decode"], "masks": seconds["encode"], "write": seconds["write"]}
    storage = args.source_rate * 1e6 / measured.stages.bytes_in / args.machines_sharing
    print(f"\nA machine of {cores} cores with a faster network, images a second: what each part could do alone, and")
    print("the whole, where a faster network works beside the cores and these do all the rest")
    print("\n| faster | network | decode | masks | write | object storage | the whole | limited by |")
    print("|---|---|---|---|---|---|---|---|")
    for factor in args.faster:
        network = seconds["network"] / factor
        alone = {"network": cores / network, **{name: cores / part for name, part in rest.items()}}
        slowest = max(rest, key=lambda name: rest[name])
        limits = {
            "network": cores / (network + sum(rest.values())) if factor == 1 else alone["network"],
            f"the cores, most of all {slowest}": cores / sum(rest.values()),
            "object storage": storage,
        }
        name = min(limits, key=lambda limit: limits[limit])
        cells = " | ".join(f"{rate:,.1f}" for rate in [*alone.values(), storage, limits[name]])
        print(f"| {factor:g} x | {cells} | {name} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of photos")
    parser.add_argument("--count", type=int, default=40, help="photos to measure with")
    parser.add_argument("--repeats", type=int, default=3, help="runs with 1 and with 2 processes")
    parser.add_argument("--model", default="sharpmask-lite0")
    parser.add_argument("--top", type=int, default=1000)
    parser.add_argument("--zoom", type=int, default=0)
    parser.add_argument("--listing", type=int, default=200_000, help="names to list")
    parser.add_argument("--machines", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--cores", type=int, default=16, help="of one machine")
    parser.add_argument("--faster", type=float, nargs="+", default=[1, 10, 100, 1000], help="networks to think of")
    parser.add_argument("--machines-sharing", type=int, default=1, help="machines that share the source's rate")
    parser.add_argument("--source-rate", type=float, default=1000.0, help="MB/s of the whole source")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds an object store takes to answer")
    parser.add_argument("--ray-chunks", type=int, default=300, help="chunks to measure Ray's driver with; 0: leave out")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    settings = {"top": args.top, "zoom": args.zoom, "threshold": 0.2, "min_score": 0.0, "scales": None}
    factory = ModelFactory.load(args.model, settings, Cleaning())
    print(f"{args.model}, top {args.top}, zoom {args.zoom}; {os.cpu_count()} cores, pyarrow {pa.__version__}")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        stages = measure_stages(factory, args.images, args.count, scratch)
        total = sum(stages.seconds.values())
        print(f"\nOne image, one thread, mean of {args.count}\n")
        print("| stage | ms | % | core-hours for a million |\n|---|---|---|---|")
        for stage, seconds in [*stages.seconds.items(), ("all", total)]:
            print(f"| {stage} | {1000 * seconds:.2f} | {100 * seconds / total:.1f} | {seconds * MILLION / 3600:,.1f} |")
        print()
        print(
            f"{stages.bytes_in / 1e3:.0f} kB read, {stages.bytes_out / 1e3:.0f} kB written, {stages.proposals:.0f} rows"
        )
        runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for _ in range(args.repeats):
            for workers, found in runs.items():
                found.append(measure_throughput(factory, args.images, args.count, workers, scratch))
        print(f"\nThe local engine, {args.repeats} runs each in turn: median (least … most)\n")
        print("| processes | images/s | s to the first image | driver, ms CPU an image |\n|---|---|---|---|")
        for workers, found in runs.items():
            steady = [run["steady"] for run in found]
            middle = {name: statistics.median(run[name] for run in found) for name in found[0]}
            print(
                f"| {workers} | {middle['steady']:.3f} ({min(steady):.3f} … {max(steady):.3f}) | "
                f"{middle['start']:.1f} | "
                f"{1000 * middle['driver']:.1f} |"
            )
        listing = measure_listing(args.listing, scratch)
        print(
            f"\n{args.listing:,} names: plan {1e6 * listing['plan']:.1f}, check {1e6 * listing['check']:.1f}, "
            f"count {1e6 * listing['count']:.1f} µs an image; {listing['bytes']:.1f} bytes of plan an image"
        )
        ray = measure_ray(scratch, args.ray_chunks) if args.ray_chunks else None
        if ray is not None:
            print(f"Ray's driver and two actors: {ray:.0f} chunks of one tiny picture a second")
    middle = {n: {k: statistics.median(r[k] for r in found) for k in found[0]} for n, found in runs.items()}
    one, two = middle[1], middle[2]
    model(args, Measured(stages, one["steady"], two["steady"], two["start"], two["driver"], listing, ray))


if __name__ == "__main__":
    main()
