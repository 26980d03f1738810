"""What keeping freed memory (sharpmask/allocator.py) is worth, and which workers and threads train fastest.

    python benchmarks/allocator.py [--steps 40] [--rounds 3] [--threads 2] [--workers 1] [--photos 8]
    python benchmarks/allocator.py --rounds 2 --photos 0 --threads 1 2 --workers 0 1 2

Every figure is of a process of its own, `sharpmask train --config fast-cpu` on `sharpmask sample`, or `sharpmask
propose` on the example photos; processes with and without take turns, so that a machine that grows slower or faster
favours neither. Patches a second are the median over log lines after the first; faults are pages that the system had to
provide. Seconds hold the start of the program.
`--config`, `--annotations` and `--images` measure another training.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from sharpmask.allocator import SWITCH
from short_training import arguments, patches_per_second, write_sample

EXAMPLES = Path(__file__).parents[1] / "examples"
Figures = dict[str, float]


def measured(command: list[str], keep: bool, threads: int) -> Figures:
    """Run `sharpmask COMMAND`; wall-clock and processor seconds, page faults and peak memory of it and its workers."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {SWITCH: "1" if keep else "0", "OMP_NUM_THREADS": str(threads)}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sharpmask.cli.main", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, own = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"sharpmask {' '.join(command)} failed:\n{errors.decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "faults": float(after.ru_minflt - before.ru_minflt),
        "megabytes": own.ru_maxrss / 1024,
    }


def train(args: argparse.Namespace, folder: Path, keep: bool, workers: int, threads: int) -> Figures:
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    annotations, images = Path(args.annotations or folder / "train.json"), Path(args.images or folder / "train")
    command = arguments(annotations, images, output, args.config, steps=args.steps, workers=workers, threads=threads)
    figures = measured(command, keep, threads)
    figures["patches"] = patches_per_second(output)
    return figures


def propose(args: argparse.Namespace, folder: Path, keep: bool, threads: int) -> Figures:
    photos = folder / "photos"
    if not photos.exists():
        photos.mkdir()
        for number in range(args.photos):
            for photo in sorted(EXAMPLES.glob("*.jpg")):
                shutil.copy(photo, photos / f"{number}-{photo.name}")
    return measured(["propose", str(photos), "--output", str(folder / "found"), "--no-overlay"], keep, threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="training steps of a process")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each row")
    parser.add_argument("--photos", type=int, default=8, help="copies of each example photo to propose on; 0: none")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--config", default="fast-cpu")
    parser.add_argument("--annotations")
    parser.add_argument("--images")
    args = parser.parse_args()
    results: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_sample(folder)
        for _ in range(args.rounds):
            for threads in args.threads:
                for workers in args.workers if args.steps else []:
                    for keep in (False, True):
                        row = (f"train, {threads} threads, {workers} workers", "kept" if keep else "given back")
                        results[row].append(train(args, folder, keep, workers, threads))
                for keep in (False, True) if args.photos else ():
                    row = (f"propose, {threads} threads", "kept" if keep else "given back")
                    results[row].append(propose(args, folder, keep, threads))
    print("| what | freed memory | patches a second | seconds | processor seconds | million faults | peak, MB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (what, memory), runs in results.items():
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        patches = f"{middle['patches']:.1f}" if "patches" in middle else "–"
        print(
            f"| {what} | {memory} | {patches} | {middle['seconds']:.1f} | {middle['cpu']:.1f} "
            f"| {middle['faults'] / 1e6:.2f} | {middle['megabytes']:.0f} |"
        )


if __name__ == "__main__":
    main()
