import pytest

from sharpmask.data.stream import StreamSampler
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


@pytest.mark.parametrize(("batch_size", "rank", "world_size"), [(9, 0, 2), (0, 0, 1), (8, 2, 2), (8, -1, 2), (8, 0, 0)])
def test_impossible_splits_are_refused(batch_size: int, rank: int, world_size: int) -> None:
    with pytest.raises(ConfigError):
        StreamSampler(start_step=0, steps=1, batch_size=batch_size, rank=rank, world_size=world_size)
