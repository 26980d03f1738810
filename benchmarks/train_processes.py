"""Patches a second of one training run on one process and on several, on the same cores.

    python benchmarks/train_processes.py [--steps 40] [--rounds 3] [--config small-cpu] [--cores 2]

`sharpmask train` on `sharpmask sample`, started by torchrun: one process of one thread, one of as many threads as
cores, and one of one thread for each core. The batch is the same, and so is what is learnt. The kinds take turns;
figures are medians over rounds of the median over log lines after the first.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from short_training import arguments, patches_per_second, write_sample


def rate(folder: Path, processes: int, threads: int, args: argparse.Namespace) -> float:
    """Patches a second of the whole run."""
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    train = arguments(
        folder / "train.json", folder / "train", output, args.config, steps=args.steps, workers=0, threads=threads
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "sharpmask.cli.main", *train]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return patches_per_second(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="small-cpu")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    kinds = list(dict.fromkeys([(1, 1), (1, args.cores), (args.cores, 1)]))
    found: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as temporary:
        write_sample(Path(temporary))
        for _ in range(args.rounds):
            for kind, rates in found.items():
                rates.append(rate(Path(temporary), *kind, args))
    print("| processes | threads of each | patches a second | least … most | times the first row |")
    print("|---:|---:|---:|---:|---:|")
    first = statistics.median(found[kinds[0]])
    for (processes, threads), rates in found.items():
        middle = statistics.median(rates)
        print(
            f"| {processes} | {threads} | {middle:.1f} | {min(rates):.1f} … {max(rates):.1f} | {middle / first:.2f} |"
        )


if __name__ == "__main__":
    main()
