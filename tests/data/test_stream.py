import pytest

from sharpmask.data.stream import StreamSampler, part_of_batch
from sharpmask.errors import ConfigError


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_number_of_processes_sees_the_same_steps(world_size: int) -> None:
    ranks = [
        StreamSampler(start_step=3, steps=5, batch_size=8, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    local = ranks[0].local_batch_size
    streams = [list(sampler) for sampler in ranks]
    assert all(len(stream) == len(sampler) == 40 // world_size for stream, sampler in zip(streams, ranks, strict=True))
    for step in range(5):
        batch = sorted(index for stream in streams for index in stream[step * local : (step + 1) * local])
        assert batch == list(range((3 + step) * 8, (4 + step) * 8))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_process_gets_positives_and_negatives(world_size: int) -> None:
    for rank in range(world_size):
        part = list(StreamSampler(start_step=0, steps=1, batch_size=8, rank=rank, world_size=world_size))
        assert sum(index % 2 for index in part) * 2 == len(part)


def test_resuming_continues_the_stream() -> None:
    whole = list(StreamSampler(start_step=0, steps=10, batch_size=4))
    parts = [StreamSampler(start_step=0, steps=6, batch_size=4), StreamSampler(start_step=6, steps=4, batch_size=4)]
    assert [index for part in parts for index in part] == whole


def test_a_batch_that_cannot_be_split_evenly() -> None:
    for batch_size, world_size in ((7, 3), (4, 3), (2, 3), (1, 4)):
        parts = [part_of_batch(batch_size, rank, world_size) for rank in range(world_size)]
        rows = [row for first, count in parts for row in range(first, first + count)]
        assert rows == list(range(batch_size))
        assert max(count for _, count in parts) - min(count for _, count in parts) <= 1


def test_a_process_without_rows_keeps_in_step() -> None:
    idle = StreamSampler(start_step=5, steps=2, batch_size=2, rank=0, world_size=3, idle_allowed=True)
    assert idle.rows == 0 and idle.local_batch_size == 1 and list(idle) == [10, 12]


@pytest.mark.parametrize(("batch_size", "rank", "world_size"), [(0, 0, 1), (2, 0, 3), (8, 2, 2), (8, -1, 2), (8, 0, 0)])
def test_impossible_splits_are_refused(batch_size: int, rank: int, world_size: int) -> None:
    with pytest.raises(ConfigError):
        StreamSampler(start_step=0, steps=1, batch_size=batch_size, rank=rank, world_size=world_size)
