"""The little that several processes (torchrun) need: a group, summed numbers, summed gradients, shared news.

Only the first process reads and writes the output folder; what the others need of it is sent to them. So the machines
of a run share the data, but need no common output folder.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from sharpmask.errors import SharpMaskError
from sharpmask.proposals.proposer import pick_device

# The others wait while the first process validates and writes. A lost process is noticed by torchrun, not by this.
_PATIENCE = timedelta(hours=2)

_T = TypeVar("_T")


@dataclass(frozen=True)
class World:
    """This process's place among the processes of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def in_world(device: str | None) -> Iterator[tuple[torch.device, World]]:
    """This process's device (None: its GPU where there is one, else the CPU) and place in the world, within the block.

    Raises:
        ConfigError: there is no such device.
    """
    # Which of the GPUs is settled below; `pick_device` would take memory on the first.
    unsettled = device in (None, "cuda") and torch.cuda.is_available()
    chosen = torch.device("cuda") if unsettled else pick_device(device)
    world = join_world(chosen.type)
    try:
        if chosen.type == "cuda" and chosen.index is None:
            chosen = torch.device("cuda", world.local_rank)
        yield chosen, world
    finally:
        leave_world()


def join_world(device_type: str) -> World:
    """Join the group that torchrun describes in the environment; a world of one where there is none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)  # what is exchanged outside the training step goes there, too
    if not dist.is_initialized():
        shared, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        store = fresh_store(shared, rank, size)
        backend = "nccl" if device_type == "cuda" else "gloo"
        with _in_touch():
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    return World(dist.get_rank(), size, local_rank)


def fresh_store(store: dist.Store, rank: int, size: int) -> dist.Store:
    """The part of torchrun's store that belongs to these very processes.

    After a restart the store still holds the addresses of the processes before, and who is early would call a dead one.
    So the first process makes up a name, the others answer under it with names of their own, and go on when they see
    theirs in the list that it makes of the answers: in an old list they are not.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set("sharpmask/main", own)
        answers = [store.get(f"sharpmask/{own}/{other}").decode() for other in range(1, size)]
        store.set(f"sharpmask/{own}/all", " ".join(answers))
        return dist.PrefixStore(own, store)
    deadline = time.monotonic() + _PATIENCE.total_seconds()
    while time.monotonic() < deadline:
        main = store.get("sharpmask/main").decode()
        store.set(f"sharpmask/{main}/{rank}", own)
        if store.check([f"sharpmask/{main}/all"]) and own in store.get(f"sharpmask/{main}/all").decode().split():
            return dist.PrefixStore(main, store)
        time.sleep(0.05)
    raise SharpMaskError(f"process {rank} of the run has waited for the others for {_PATIENCE}; start the run again")


def leave_world() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def was_restarted() -> bool:
    """Whether torchrun started this process again after a process of the run was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def from_main(read: Callable[[], _T], world: World) -> _T:
    """What `read` returns in the first process, in every process; what it raises there is raised everywhere."""
    if world.size == 1:
        return read()
    news: list[object] = [None, None]
    if world.is_main:
        try:
            news[0] = read()
        except SharpMaskError as error:
            news[1] = error
    with _in_touch():
        dist.broadcast_object_list(news)
    if isinstance(news[1], SharpMaskError):
        raise news[1]
    return news[0]  # type: ignore[return-value]


@contextmanager
def _in_touch() -> Iterator[None]:
    """Around an exchange: say in words what a lost process does to the others."""
    try:
        yield
    except RuntimeError as error:  # of gloo a plain one
        raise SharpMaskError(
            f"another process of the run is gone ({str(error).partition(chr(10))[0]}); with torchrun --max-restarts N "
            "the run goes on from its last checkpoint by itself, with --resume when it is started again"
        ) from error


def sum_over_world(value: Tensor, world: World) -> Tensor:
    """Sum of a tensor over all processes, in place. Raises SharpMaskError where a process was lost."""
    if world.size > 1:
        with _in_touch():
            dist.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every gradient by its sum over all processes, in one exchange.

    Losses are divided by counts over the whole batch, so that the sum is the gradient a single process would have.
    Which parameters have gradients depends on the kind of batch only, and that is the same in every process.
    """
    if world.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    sum_over_world(flat, world)
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()
