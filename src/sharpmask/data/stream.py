"""The order in which the steps of a run ask for examples, split over processes."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from sharpmask.errors import ConfigError


def part_of_batch(batch_size: int, rank: int, world_size: int) -> tuple[int, int]:
    """First row and number of rows of the batch that process `rank` of `world_size` handles.

    The parts are contiguous and differ by one row at most; where there are more processes than rows some have none.

    Raises ConfigError for numbers that make no sense.
    """
    if batch_size < 1 or world_size < 1:
        raise ConfigError(f"a batch of {batch_size} cannot be split over {world_size} processes")
    if not 0 <= rank < world_size:
        raise ConfigError(f"process number {rank} is not one of {world_size}")
    first = rank * batch_size // world_size
    return first, (rank + 1) * batch_size // world_size - first


class StreamSampler(Sampler[int]):
    """The example numbers of steps `start_step` … `start_step + steps - 1` that process `rank` of `world_size` handles.

    Step t consists of the examples t * batch_size … (t + 1) * batch_size - 1 whatever the number of processes; each
    process takes its part of them (see `part_of_batch`). Its DataLoader is given `local_batch_size`. A resumed run
    starts at the step it stopped at and sees what the uninterrupted one would have seen, with any number of processes.

    With `idle_allowed` there may be more processes than rows: one without rows takes part with the batch's first
    example, which it must not let count, so that all processes do the same exchanges. Otherwise that is a ConfigError.
    """

    def __init__(
        self,
        *,
        start_step: int,
        steps: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        idle_allowed: bool = False,
    ) -> None:
        self.first_row, self.rows = part_of_batch(batch_size, rank, world_size)
        if batch_size < world_size and not idle_allowed:
            raise ConfigError(f"a batch of {batch_size} cannot be shared out among {world_size} processes")
        self.start_step = start_step
        self.steps = max(0, steps)
        self.batch_size = batch_size

    @property
    def local_batch_size(self) -> int:
        """Examples of one step in this process, those that do not count included."""
        return max(1, self.rows)

    def __len__(self) -> int:
        return self.steps * self.local_batch_size

    def __iter__(self) -> Iterator[int]:
        offset = self.first_row if self.rows else 0
        for step in range(self.start_step, self.start_step + self.steps):
            first = step * self.batch_size + offset
            yield from range(first, first + self.local_batch_size)
