"""The order in which the steps of a run ask for examples, split over processes."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from sharpmask.errors import ConfigError


class StreamSampler(Sampler[int]):
    """The example numbers of steps `start_step` … `start_step + steps - 1` that process `rank` of `world_size` handles.

    Step t consists of the examples t * batch_size … (t + 1) * batch_size - 1 whatever the number of processes; each
    process takes a contiguous part of batch_size / world_size of them, so its DataLoader is given that as its
    `batch_size`. A resumed run starts at the step it stopped at and sees what the uninterrupted one would have seen.

    Raises ConfigError if the batch cannot be split evenly.
    """

    def __init__(self, *, start_step: int, steps: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or world_size < 1 or batch_size % world_size:
            raise ConfigError(f"a batch of {batch_size} cannot be split evenly over {world_size} processes")
        if not 0 <= rank < world_size:
            raise ConfigError(f"process number {rank} is not one of {world_size}")
        self.start_step = start_step
        self.steps = max(0, steps)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    @property
    def local_batch_size(self) -> int:
        """Examples of one step in this process."""
        return self.batch_size // self.world_size

    def __len__(self) -> int:
        return self.steps * self.local_batch_size

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start_step, self.start_step + self.steps):
            first = step * self.batch_size + self.rank * self.local_batch_size
            yield from range(first, first + self.local_batch_size)
