"""Training runs that are killed again and again, and whose checkpoints are damaged on the way: what is lost?

    python benchmarks/train_faults.py [--rounds 20] [--kills 4] [--seed 0]

A tiny network is trained on synthetic photos by processes of their own. In each round `kill -9` hits the run at random
moments, from its start to its end; now and then a byte of the newest checkpoint is changed, or the file cut short, and
half a file of a killed writer is laid beside it. Then the run is resumed to its end. Rounds of the second kind have two
processes, of which one is killed, and may be resumed with another number of them. In the end the weights have to be
those of a run that nobody disturbed: to the bit in rounds of the first kind, within rounding in those of the second,
whose sums are added up in another order. The exit status is 1 if one round ends otherwise.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sharpmask.data.sample import write_sample
from sharpmask.networks.specs import SPECS
from sharpmask.training.checkpoint import CHECKPOINTS, checkpoint_files

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "training"))  # the tests kill the same runs, a few times
import tiny_runs

SPEC = replace(
    SPECS["sharpmask-resnet50"],
    name="tiny",
    trunk_width=4,
    patch_size=64,
    features=8,
    encoding=32,
    mask_side=20,
    score_hidden=16,
    refinement_width=16,
    horizontal_width=8,
)


@dataclass
class Tally:
    """What was done to the runs of a kind, and what came of it."""

    rounds: int = 0
    kills: int = 0
    without: int = 0
    """kills before the first checkpoint"""
    resumes: int = 0
    damaged: int = 0
    equal: int = 0

    def row(self, kind: str) -> str:
        numbers = (self.rounds, self.kills, self.without, self.resumes, self.damaged)
        verdict = "yes" if self.equal == self.rounds else f"**no, in {self.rounds - self.equal}**"
        return f"| {kind} | " + " | ".join(map(str, numbers)) + f" | {verdict} |"


def damage(output: Path, rng: random.Random) -> bool:
    """Spoil the newest checkpoint, unless it is the only one; returns whether it was done."""
    folder, files = output / CHECKPOINTS, checkpoint_files(output)
    if len(files) < 2:
        return False
    content = bytearray(files[0].read_bytes())
    (folder / f".{files[0].stem}.half.tmp.pt").write_bytes(content[: rng.randrange(len(content))])
    if rng.random() < 0.5:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        del content[rng.randrange(len(content)) :]
    files[0].write_bytes(content)
    return True


def one_round(data: Path, output: Path, rng: random.Random, tally: Tally, args: argparse.Namespace, most: int) -> None:
    """Kill, damage and resume a run until it has been killed often enough, then let it end."""
    command = tiny_runs.arguments(data, output, SPEC.name)
    for _ in range(args.kills):
        processes = tiny_runs.start(SPEC, command, size=rng.randint(1, most))
        time.sleep(rng.uniform(0, args.seconds))
        victim = rng.choice(processes)
        if victim.pid is not None and victim.is_alive():
            os.kill(victim.pid, signal.SIGKILL)
        statuses = tiny_runs.finish(processes)
        if -signal.SIGKILL in statuses:
            tally.kills += 1
            tally.without += not checkpoint_files(output)
        elif any(statuses):
            raise SystemExit(f"a run that nobody killed ended with status {statuses}")
        if "--resume" not in command:
            command.append("--resume")
        tally.resumes += 1
        if rng.random() < 0.3:
            tally.damaged += damage(output, rng)
    if any(tiny_runs.finish(tiny_runs.start(SPEC, command, size=rng.randint(1, most)))):
        raise SystemExit(f"the run in {output} could not be resumed")
    tally.rounds += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="runs of each kind")
    parser.add_argument("--kills", type=int, default=4, help="attempts to kill a run")
    parser.add_argument("--seed", type=int, default=0, help="of what is done to the runs")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    kinds = {"one process": (1, Tally()), "one or two processes": (2, Tally())}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        annotations, _ = write_sample(folder / "sample", train=12, val=1)
        data = folder / "sample" / "train"
        shutil.copy(annotations, data / "instances.json")
        begin = time.monotonic()
        if tiny_runs.finish(tiny_runs.start(SPEC, tiny_runs.arguments(data, folder / "whole", SPEC.name))) != [0]:
            raise SystemExit("the undisturbed run failed")
        args.seconds = time.monotonic() - begin
        whole = tiny_runs.weights(folder / "whole")
        for number in range(args.rounds):
            for kind, (most, tally) in kinds.items():
                output = folder / f"{most}-{number}"
                one_round(data, output, rng, tally, args, most)
                found = tiny_runs.weights(output)
                limits = {"rtol": 0.0, "atol": 0.0} if most == 1 else {"rtol": 1e-3, "atol": 2e-5}
                tally.equal += all(torch.allclose(found[name], whole[name], **limits) for name in whole)
                print(f"round {number + 1} of {args.rounds}, {kind}: {tally}", file=sys.stderr)
    print("| runs of | rounds | kills | before a checkpoint | resumes | checkpoints damaged | weights as undisturbed |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for kind, (_, tally) in kinds.items():
        print(tally.row(kind))
    return 0 if all(tally.equal == tally.rounds for _, tally in kinds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
