"""Runs of a tiny network in processes of their own, which may be killed. As a program it is one process of torchrun.

Processes are forked from a server that has imported everything, so that they start at once.
"""

import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from sharpmask.checkpoints.store import read_safetensors
from sharpmask.cli.main import main
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.training import loop

KILL = "KILL_AFTER"  # seconds from the first step of this process; of one that torchrun started again no more

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["sharpmask.training.run", "sharpmask.cli.main", "torch.utils.tensorboard"])


def arguments(shapes: Path, output: Path, spec: str, *more: str) -> list[str]:
    """A command line of both stages: dropout, clipping and momentum in the first, AdamW in the second."""
    fields = {
        "annotations": shapes / "instances.json",
        "images": shapes,
        "output": output,
        "model": spec,
        "workers": 0,
        "threads": 1,
        "device": "cpu",
        "log_every": 1,
        "checkpoint_every": 1,
        "deepmask.steps": 16,
        "deepmask.batch_size": 4,
        "deepmask.optimiser": "sgd",
        "deepmask.learning_rate": 0.01,
        "deepmask.clip": 0.5,
        "deepmask.negative_shift": 20,
        "sharpmask.steps": 10,
        "sharpmask.batch_size": 2,
    }
    # The shift of positives and the distance of negatives fit the small windows.
    fields |= {"deepmask.shift": 5, "sharpmask.shift": 5, "deepmask.average": 0.9}
    return ["train", "--config=small-cpu", *(f"{name}={value}" for name, value in fields.items()), *more]


def run(spec: ModelSpec, command: list[str], environment: dict[str, str]) -> None:
    """Target of a process: the command line with a tiny network in the table."""
    os.environ.update(environment)
    SPECS[spec.name] = spec
    if KILL in environment:
        _kill_after(float(environment[KILL]))
    sys.exit(main(command))


def _kill_after(seconds: float) -> None:
    def step(*args: Any) -> dict[str, float]:
        if not timer.is_alive():
            timer.start()
            loop._step = before
        return before(*args)

    before = loop._step
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    loop._step = step


def start(spec: ModelSpec, command: list[str], *, size: int = 1, **environment: str) -> list[ForkServerProcess]:
    """Start the processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
        described = {name: str(value) for name, value in group.items()} | {"MASTER_ADDR": "127.0.0.1"}
        process = _server.Process(target=run, args=(spec, command, described | environment))
        process.start()
        processes.append(process)
    return processes


def finish(processes: list[ForkServerProcess]) -> list[int | None]:
    """Wait for the processes; their exit statuses."""
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def weights(output: Path) -> dict[str, torch.Tensor]:
    """Those of both stages in full precision."""
    files = {stage: read_safetensors(output / f"{stage}.safetensors")[0] for stage in ("deepmask", "sharpmask")}
    return {f"{stage}.{name}": tensor for stage, tensors in files.items() for name, tensor in tensors.items()}


def losses(output: Path) -> dict[tuple[str, int], float]:
    """The loss of every step; of a repeated step the last one."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {(line["stage"], line["step"]): line["loss"] for line in lines if "loss" in line}


if __name__ == "__main__":  # tiny_runs.py SPEC-AS-JSON RANK-TO-KILL COMMAND…
    chosen = {}
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == sys.argv[2]:
        chosen[KILL] = str(random.uniform(0, 0.1))
    run(ModelSpec(**json.loads(sys.argv[1])), sys.argv[3:], chosen)
