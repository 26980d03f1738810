"""The plan of a run: every image of the source, listed once and cut into chunks, and the options that made it.

It lies in the destination's folder `_plan`: `listing-00000.parquet`, … with one row group a chunk, and `plan.json`,
written last, which makes it valid. All that comes later (which engine, how many workers, after how many kills) works
off this list, so that the same image is in the same chunk and has the same `image_id` for ever.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from sharpmask.bulk.listing import Listing
from sharpmask.bulk.reading import Item
from sharpmask.bulk.storage import Place
from sharpmask.errors import ConfigError, DataError

FORMAT = "sharpmask bulk 1"
_CHUNKS_A_FILE = 256
_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("key", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("row", pa.int64()),
        ("version", pa.string()),
        ("error", pa.string()),
    ],
    metadata={"format": FORMAT},
)
_FIELDS = [item_field.name for item_field in fields(Item)]


@dataclass
class Plan:
    """What is to be done. Images are numbered from 1 in the order of the listing.

    Attributes:
        place: the destination.
        images, chunks, chunk_size: how many; the last chunk may be smaller.
        kind, column: of the source, see `Listing`.
        repeated, left_out: of the listing, see `Listing`.
        options: what decides the results, see `ProposerFactory.describe`.
        source: as it was given.
    """

    place: Place
    images: int
    chunks: int
    chunk_size: int
    kind: str
    column: str | None
    repeated: int
    left_out: int
    options: dict[str, Any]
    source: str
    _file: tuple[int, Any] | None = field(default=None, repr=False, compare=False)  # the last one read: number, content

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def items(self, chunk: int) -> list[Item]:
        """The images of a chunk; the first one has the id `first_id(chunk)`. Threads need a `copy.copy` each."""
        number, group = divmod(chunk, _CHUNKS_A_FILE)
        name = f"_plan/listing-{number:05d}.parquet"
        try:
            if self._file is None or self._file[0] != number:
                self._file = (number, parquet.ParquetFile(pa.BufferReader(self.place.read(name))))
            return _items(self._file[1].read_row_group(group))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.place}/{name} is missing or damaged: the run cannot go on; choose another destination"
            ) from error

    def first_id(self, chunk: int) -> int:
        return chunk * self.chunk_size + 1

    def size(self, chunk: int) -> int:
        """Images in a chunk."""
        return min(self.chunk_size, self.images - chunk * self.chunk_size)

    def samples(self, count: int = 8) -> list[Item]:
        """Some images, spread over the whole listing."""
        places = sorted({round(i * (self.images - 1) / max(1, count - 1)) for i in range(count)})
        return [self.items(place // self.chunk_size)[place % self.chunk_size] for place in places]


def make_plan(place: Place, listing: Listing, chunk_size: int, options: dict[str, Any]) -> Plan:
    """List the source and write the plan; until it is whole, there is none.

    Raises:
        ConfigError: the source has no images, or the chunk size is out of range.
        SharpMaskError: the source cannot be listed, or the destination not be written to.
    """
    if chunk_size < 1:
        raise ConfigError(f"chunk size {chunk_size}: must be at least 1")
    images = chunks = 0
    for number, batch in enumerate(_batched(_batched(listing, chunk_size), _CHUNKS_A_FILE)):
        sink = pa.BufferOutputStream()
        with parquet.ParquetWriter(sink, _SCHEMA, compression="zstd") as file:
            for items in batch:
                file.write_table(_table(items, images + 1))
                images, chunks = images + len(items), chunks + 1
        place.write(f"_plan/listing-{number:05d}.parquet", sink.getvalue())
    if not images:
        raise ConfigError(f"{listing.source}: holds no images")
    plan = Plan(
        place,
        images,
        chunks,
        chunk_size,
        listing.kind,
        listing.column,
        listing.repeated,
        listing.left_out,
        json.loads(json.dumps(options)),
        listing.source,
    )
    content = {name: getattr(plan, name) for name in _STORED}
    place.write("_plan/plan.json", json.dumps({"format": FORMAT, **content}, indent=1).encode() + b"\n")
    return plan


_STORED = ("images", "chunks", "chunk_size", "kind", "column", "repeated", "left_out", "options", "source")


def read_plan(place: Place) -> Plan | None:
    """The plan of a destination, or None where there is none.

    Raises:
        DataError: it is not one that this version can read.
    """
    try:
        content = json.loads(place.read("_plan/plan.json"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        return Plan(place, **content)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{place}/_plan/plan.json is not a plan of the format '{FORMAT}' ({error})") from error


def require_same(
    plan: Plan, options: dict[str, Any], chunk_size: int | None, listing: Listing, *, check_source: bool = True
) -> None:
    """Check that a run would go on as it began.

    Args:
        options: of now, to be those of the plan.
        chunk_size: likewise; None: any.
        listing: the source, to be read in the same way.
        check_source: list it, and compare what is there with what was.

    Raises:
        ConfigError: options differ.
        DataError: the source has changed.
    """
    now = {**json.loads(json.dumps(options)), "source": listing.kind, "column": listing.column}
    then = {**plan.options, "source": plan.kind, "column": plan.column}
    if chunk_size is not None:
        now["chunk size"], then["chunk size"] = chunk_size, plan.chunk_size
    changes = [
        f"{name}: {_short(then.get(name))} then, {_short(now.get(name))} now"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    if changes:
        raise ConfigError(
            f"{plan.place} holds a run with other options ({'; '.join(changes)}): give the same, or another destination"
        )
    if check_source:
        _require_same_source(plan, listing)


def _require_same_source(plan: Plan, listing: Listing) -> None:
    hint = "go on with --no-check-source to do what was listed then, or choose another destination"
    count = 0
    stored = itertools.chain.from_iterable(plan.items(chunk) for chunk in range(plan.chunks))
    for number, (then, now) in enumerate(itertools.zip_longest(stored, listing), start=1):
        count += now is not None
        if then == now:
            continue
        if then is None:
            what = f"it has more images than the {plan.images} listed then, such as {now.key}"
        elif now is None:
            what = f"it has only {count} of the {plan.images} images listed then; {then.key} is gone"
        elif then.key == now.key:
            what = f"{then.key} is another file than then"
        else:
            what = f"image {number} was {then.key} and is now {now.key}"
        raise DataError(f"{listing.source} has changed since the run began: {what}; {hint}")


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text


def _batched(values: Iterable[Any], count: int) -> Iterator[list[Any]]:
    iterator = iter(values)
    while batch := list(itertools.islice(iterator, count)):
        yield batch


def _table(items: Sequence[Item], first_id: int) -> pa.Table:
    columns: dict[str, Any] = {"image_id": range(first_id, first_id + len(items))}
    for name in _FIELDS:
        columns[name] = [getattr(item, name) for item in items]
    return pa.table(columns, schema=_SCHEMA)


def _items(table: pa.Table) -> list[Item]:
    columns = [table.column(name).to_pylist() for name in _FIELDS]
    return [Item(*values) for values in zip(*columns, strict=True)]
