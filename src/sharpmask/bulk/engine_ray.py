"""Chunks on a Ray cluster: Ray Data gives numbers of chunks to actors, each of which holds one worker process.

Ray restarts actors and gives their chunks out again when a machine is lost; what an image does to its process is dealt
with below, as on one machine. The machines must see the source and the destination under the same names.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sharpmask.bulk.chunk import ChunkRunner, Job
from sharpmask.bulk.results import Counts
from sharpmask.errors import ConfigError, MissingExtraError, SharpMaskError

_CHUNKS_A_BLOCK = 4  # what an actor is given at a time, when there are many
_FIELDS = ("images", "results", "errors", "proposals")


class ChunkActor:
    """What Ray starts on the machines."""

    def __init__(self, job: Job, device: str | None) -> None:
        self.runner = ChunkRunner(job, device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        counts, message = [], ""
        for chunk in batch["chunk"].tolist():
            try:
                counts.append(self.runner.run_unless_done(chunk))
            except SharpMaskError as error:  # as data: Ray would wrap the exception, and try again
                counts.append(Counts(0))
                message = str(error)
        columns = {name: np.array([getattr(part, name) for part in counts]) for name in _FIELDS}
        return {**columns, "message": np.array([message] * len(counts), object)}


def run_ray(
    job: Job,
    chunks: Sequence[int],
    *,
    device: str | None,
    workers: int | None,
    on_chunk: Callable[[Counts], None],
) -> None:
    """Do the chunks on the cluster that this process is connected to, or RAY_ADDRESS names, or else one of its own.

    Args:
        device: as for `Proposer`; None: CUDA where the cluster has GPUs.
        workers: actors; None: one a GPU, or as many as the cluster's CPUs have room for at the job's threads each.
        on_chunk: called for each chunk that is done.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: the cluster cannot be reached, or has not what is asked for.
        SharpMaskError: see `ChunkRunner.run`; or Ray gave up.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "--engine ray") from error
    own = not ray.is_initialized()
    if own:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
            logging.getLogger("ray.data").setLevel(logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            address = os.environ.get("RAY_ADDRESS", "a cluster on this machine")
            raise ConfigError(f"Ray cannot be reached at {address}: {error}") from error
    try:
        resources = ray.cluster_resources()
        gpus, cpus = resources.get("GPU", 0), resources.get("CPU", 1)
        on_gpu = device.startswith("cuda") if device else gpus >= 1
        if on_gpu and gpus < 1:
            raise ConfigError(f"device '{device}': the Ray cluster has no GPU")
        threads = job.worker.threads
        if threads > cpus:
            raise ConfigError(f"threads {threads}: the Ray cluster has only {cpus:g} CPUs")
        actors = min(workers or int(gpus if on_gpu else cpus // threads), len(chunks))
        share = math.floor(min(1.0, int(gpus) / actors) * 1e4) / 1e4 if on_gpu else 0
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        blocks = max(min(len(chunks), 4 * actors), len(chunks) // _CHUNKS_A_BLOCK)
        rows = ray.data.from_items([{"chunk": chunk} for chunk in chunks], override_num_blocks=blocks).map_batches(
            ChunkActor,
            fn_constructor_args=(job, "cuda" if on_gpu else device or "cpu"),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=threads,
            num_gpus=share or None,
        )
        for row in rows.iter_rows():
            if row["message"]:
                raise SharpMaskError(row["message"])
            on_chunk(Counts(int(row["images"]), int(row["results"]), int(row["errors"]), int(row["proposals"]), 1))
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise SharpMaskError(f"Ray gave up: {reason[:500]}; run the same command again to go on") from error
    finally:
        if own:
            ray.shutdown()
