"""Kill -9 at random moments: does a bulk run lose an image, or do one twice?

    python benchmarks/bulk_faults.py [--engine ray] [--rounds 24] [--images 300] [--seed 0]

A job is a folder of small pictures: some broken, some that kill, crash or hang the process that gets them. A driver
(a process of its own, with a fast fake proposer) works on it; in each round its worker processes or the driver itself
are killed at random moments, and a killed driver is started again. A job that is done is counted from its files and
against the known answer, and the next one begins. Prints the counts; exits with 1 if anything was lost, doubled or
wrong, or if a process outlived its driver.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fake_proposer import FakeFactory, expected_proposals, write_pictures
from sharpmask.bulk.plan import read_plan
from sharpmask.bulk.results import read_images, verify
from sharpmask.bulk.run import BulkOptions, propose_bulk
from sharpmask.bulk.storage import Place
from sharpmask.bulk.worker import WorkerOptions

KINDS = ("kill", "segfault", "hang", "raise", "memory", "empty", "text", "cut")
CONTENT = {"empty", "text", "cut"}
ATTEMPTS = 3
# For a Ray cluster on a machine that does other things: no lower priority, no limit of memory that others fill, and
# time to start and to answer.
CLUSTER = {
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_raylet_start_wait_time_s": "600",
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}


@dataclass
class Tally:
    """What happened, over all jobs."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def drive(source: str, destination: str, log: str, engine: str, timeout: str) -> None:
    """What the driver process does."""
    options = BulkOptions(
        engine=engine,
        workers=2,
        device="cpu",
        chunk_size=8,
        worker=WorkerOptions(timeout=float(timeout), attempts=ATTEMPTS),
        progress=False,
    )
    propose_bulk(source, destination, FakeFactory(log, seconds=0.01), options)


def descendants(pid: int) -> list[int]:
    """Processes below one, from /proc."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def named(pids: list[int], *words: bytes) -> list[int]:
    """Those whose command line holds all of the words."""
    found = []
    for pid in pids:
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if all(word in line for word in words):
                found.append(pid)
    return found


def own_actors() -> list[int]:
    """The actors of a Ray cluster that this process has started: its descendants, and nobody else's."""
    return named(descendants(os.getpid()), b"ray::", b"ChunkActor")


def start_cluster(**resources: int) -> str:
    """A cluster of this process, patient with a busy machine; its address."""
    import ray

    os.environ.update(CLUSTER)
    context = ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=100_000_000,
        **resources,
    )
    return context.address_info["address"]


def kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def workers_of(driver: int, engine: str) -> list[int]:
    """The processes that propose, and on Ray the actors that hold them."""
    if engine == "local":
        return named(descendants(driver), b"multiprocessing.spawn")
    actors = own_actors()
    return [*actors, *(pid for actor in actors for pid in descendants(actor))]


def start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, __file__, "--drive", *arguments], stderr=subprocess.PIPE)


def one_life(arguments: list[str], engine: str, span: float, dice: random.Random, tally: Tally) -> bool:
    """Start a driver, kill some workers, then the driver unless it ends by itself; whether it ended. `span`: seconds
    in which the kills fall: from the start in one life of four, else from the first picture that it begins."""
    log = Path(arguments[2])
    before_it = log.stat().st_size
    driver = start(arguments)
    if dice.random() < 0.75:
        end = time.monotonic() + 180
        while log.stat().st_size == before_it and driver.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
    # Fewer than the attempts an image has: none shall become an error for kills from outside.
    for _ in range(dice.randrange(ATTEMPTS)):
        time.sleep(dice.uniform(0.1, span / 4))
        if alive := workers_of(driver.pid, engine):
            tally.counts["worker kills"] += kill(dice.choice(alive))
    before = workers_of(driver.pid, engine)
    try:
        errors = driver.communicate(timeout=dice.uniform(0.2, span))[1]
    except subprocess.TimeoutExpired:
        before = workers_of(driver.pid, engine)
        tally.counts["driver kills"] += kill(driver.pid)
        driver.communicate()
        expect_gone(before, tally)
        return False
    if driver.returncode:
        tally.problems.append(f"a driver ended with {driver.returncode}: {errors.decode()[-2000:]}")
    expect_gone(before, tally)
    return True


def expect_gone(pids: list[int], tally: Tally) -> None:
    """Workers must not outlive their driver by long."""
    end = time.monotonic() + 120
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists() and not is_zombie(pid)]) and (
        time.monotonic() < end
    ):
        time.sleep(0.05)
    if left:
        tally.problems.append(f"processes outlived their driver: {left}")


def is_zombie(pid: int) -> bool:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def check(destination: Path, log: Path, images: int, faults: dict[int, str], tally: Tally) -> None:
    """Count a job that is done, from its files, against the known answer."""
    plan = read_plan(Place(str(destination)))
    if plan is None or not (destination / "_SUCCESS").exists():
        tally.problems.append(f"{destination} is not done")
        return
    tally.problems += verify(plan)
    rows = [row for chunk in range(plan.chunks) for row in read_images(plan.place, chunk).to_pylist()]
    times = Counter(row["file_name"] for row in rows)
    tally.counts["images in"] += images
    tally.counts["results out"] += sum(row["error"] is None for row in rows)
    tally.counts["errors out"] += sum(row["error"] is not None for row in rows)
    tally.counts["lost"] += images - len(times)
    tally.counts["twice"] += sum(times.values()) - len(times)
    tally.counts["begun again"] += max(0, len(log.read_text().splitlines()) - images)
    for row in rows:
        number = int(Path(row["file_name"]).stem)
        fault = faults.get(number)
        kind = None if fault is None else "image" if fault in CONTENT else "worker"
        if row["error_kind"] != kind or row["proposals"] != (0 if fault else expected_proposals([number])):
            tally.counts["wrong"] += 1
            tally.problems.append(f"{row['file_name']} ({fault or 'sound'}): {row}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--rounds", type=int, default=24, help="lives of drivers")
    parser.add_argument("--images", type=int, default=300, help="in a job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default=",".join(KINDS), help="pictures that are mixed into a job, one of each")
    parser.add_argument("--timeout", type=float, default=4.0, help="seconds for one image, which an endless one takes")
    parser.add_argument("--drive", nargs=5, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        drive(*args.drive)
        return 0
    dice, tally, began = random.Random(args.seed), Tally(), time.monotonic()
    if args.engine == "ray":
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        os.environ["RAY_ADDRESS"] = start_cluster(num_cpus=2)
    with tempfile.TemporaryDirectory() as scratch:
        rounds = jobs = 0
        while rounds < args.rounds:
            folder = Path(scratch) / f"job{jobs}"
            kinds = args.faults.split(",")
            faults = dict(zip(dice.sample(range(args.images), len(kinds)), kinds, strict=True))
            write_pictures(folder / "in", args.images, faults)
            (folder / "log").touch()
            arguments = [str(folder / "in"), str(folder / "out"), str(folder / "log"), args.engine, str(args.timeout)]
            done = False
            while not done and rounds < args.rounds:
                rounds += 1
                done = one_life(arguments, args.engine, 0.02 * args.images, dice, tally)
            last = start(arguments)  # undisturbed: what is missing, or nothing
            errors = last.communicate()[1]
            if last.returncode:
                tally.problems.append(f"the last driver ended with {last.returncode}: {errors.decode()[-2000:]}")
            check(folder / "out", folder / "log", args.images, faults, tally)
            jobs += 1
    print(f"engine {args.engine}, seed {args.seed}: {rounds} lives of drivers, {jobs} jobs of {args.images} images")
    names = ("driver kills", "worker kills", "images in", "results out", "errors out", "lost", "twice", "wrong")
    print("\n| | |\n|---|---|")
    for name in (*names, "begun again"):
        print(f"| {name} | {tally.counts[name]} |")
    print("\n“Begun again” are images of unfinished chunks, and attempts at faults.")
    print(f"{time.monotonic() - began:.0f} s")
    for problem in tally.problems:
        print(problem, file=sys.stderr)
    return 1 if tally.problems or tally.counts["lost"] or tally.counts["twice"] else 0


if __name__ == "__main__":
    sys.exit(main())
