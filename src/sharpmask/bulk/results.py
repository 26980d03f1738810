"""What a run writes: two Parquet files a chunk, and at the end the table of errors and the summary.

    proposals/chunk-000000.parquet   one row a proposal, see `sharpmask.proposal_rows`
    images/chunk-000000.parquet      one row an image of the source, done or failed; written second: it ends the chunk
    errors.parquet                   the rows of `images` that failed; written when all chunks are done
    _SUCCESS                         the summary, as JSON; written last

A row a proposal, not a row an image with lists: a condition on score or area then is a plain WHERE that Parquet's
statistics can use, data frames need no unpacking, and image_id, file_name and sizes, which repeat, cost nothing after
compression. Images without proposals are why there is a table of images.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

from sharpmask.bulk.plan import FORMAT, Plan
from sharpmask.bulk.reading import Item
from sharpmask.bulk.storage import Place
from sharpmask.bulk.worker import Failed, Found
from sharpmask.errors import DataError, SharpMaskError
from sharpmask.proposal_rows import proposal_schema

IMAGE_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("file_name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("proposals", pa.int32()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
    ],
    metadata={"format": "sharpmask bulk images 1"},
)
_READERS = 8


@dataclass
class Counts:
    """Images in, results out, errors out.

    Attributes:
        images: of the source; `results` + `errors` of them are done.
        results: images with a result, which may be no proposals.
        errors: images that failed; `kinds` tells how many of each kind.
        proposals: rows of proposals.
        chunks: chunks that are done.
    """

    images: int
    results: int = 0
    errors: int = 0
    proposals: int = 0
    chunks: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For people."""
        kinds = f" ({', '.join(f'{number} {kind}' for kind, number in sorted(self.kinds.items()))})" * bool(self.kinds)
        missing = self.images - self.results - self.errors
        return [
            f"images in   {self.images}",
            f"results out {self.results}, with {self.proposals} proposals",
            f"errors out  {self.errors}{kinds}",
            *([f"not done    {missing}"] if missing else []),
        ]


def chunk_name(chunk: int) -> str:
    return f"chunk-{chunk:06d}.parquet"


def done_chunks(plan: Plan) -> set[int]:
    """The chunks whose results are written."""
    there = plan.place.names("images")
    return {chunk for chunk in range(plan.chunks) if chunk_name(chunk) in there}


def write_chunk(
    place: Place, chunk: int, first_id: int, items: Sequence[Item], outcomes: Sequence[Found | Failed]
) -> Counts:
    """Write a chunk's two files, over what an earlier attempt may have left of it.

    Raises:
        SharpMaskError: the destination cannot be written to.
    """
    found = [outcome.rows for outcome in outcomes if isinstance(outcome, Found)]
    proposals = pa.concat_tables([proposal_schema().empty_table(), *found])
    images = pa.table(
        {
            "image_id": range(first_id, first_id + len(items)),
            "file_name": [item.key for item in items],
            "width": [o.width if isinstance(o, Found) else None for o in outcomes],
            "height": [o.height if isinstance(o, Found) else None for o in outcomes],
            "proposals": [len(o.rows) if isinstance(o, Found) else 0 for o in outcomes],
            "error_kind": [o.kind if isinstance(o, Failed) else None for o in outcomes],
            "error": [_text(o.reason) if isinstance(o, Failed) else None for o in outcomes],
        },
        schema=IMAGE_SCHEMA,
    )
    place.write(f"proposals/{chunk_name(chunk)}", _encode(proposals))
    place.write(f"images/{chunk_name(chunk)}", _encode(images))
    return count_images(images)


def count_images(table: pa.Table) -> Counts:
    """Of one chunk's table of images."""
    kinds = Counter(kind for kind in table.column("error_kind").to_pylist() if kind is not None)
    errors = sum(kinds.values())
    proposals = compute.sum(table.column("proposals")).as_py() or 0
    return Counts(len(table), len(table) - errors, errors, proposals, 1, dict(kinds))


def read_images(place: Place, chunk: int) -> pa.Table:
    """A chunk's table of images; DataError when it is missing or damaged."""
    return _read(place, f"images/{chunk_name(chunk)}", IMAGE_SCHEMA)


def read_proposals(place: Place, chunk: int, columns: list[str] | None = None) -> pa.Table:
    """A chunk's table of proposals, or some columns of it; DataError when it is missing or damaged."""
    return _read(place, f"proposals/{chunk_name(chunk)}", proposal_schema(), columns)


def finish(plan: Plan) -> Counts:
    """When all chunks are done: count what is there, write the table of errors and the summary.

    Raises:
        DataError: chunks are missing, damaged, or do not hold the images they should.
        SharpMaskError: the destination cannot be read or written to.
    """
    total = Counts(plan.images)
    errors = [IMAGE_SCHEMA.empty_table()]
    for chunk, table in _tables(plan, range(plan.chunks)):
        _require_ids(plan, chunk, table)
        _add(total, count_images(table))
        failed = table.filter(compute.is_valid(table.column("error_kind")))
        if len(failed):
            errors.append(failed)
    plan.place.write("errors.parquet", _encode(pa.concat_tables(errors)))
    summary = {"format": FORMAT, **asdict(total)}
    plan.place.write("_SUCCESS", json.dumps(summary, indent=1).encode() + b"\n")
    return total


def count(plan: Plan) -> Counts:
    """Count what is done so far."""
    total = Counts(plan.images)
    for _, table in _tables(plan, sorted(done_chunks(plan))):
        _add(total, count_images(table))
    return total


def verify(plan: Plan) -> list[str]:
    """Count everything again from the files, proposals too, against the plan; what is wrong, in words.

    Every image must be in the table of images exactly once, under its own key, with as many rows of proposals as it
    says, ranked 1, 2, …, or with an error and no proposals; the table of errors must hold the failed ones.
    """
    problems: list[str] = []
    failed: list[int] = []
    done = done_chunks(plan)
    for folder in ("images", "proposals"):
        known = {chunk_name(chunk) for chunk in range(plan.chunks)}
        problems += [f"{folder}/{name} belongs to no chunk" for name in sorted(plan.place.names(folder) - known)]
    for chunk in range(plan.chunks):
        if chunk not in done:
            problems.append(f"images/{chunk_name(chunk)} is missing: its {plan.size(chunk)} images are not done")
            continue
        try:
            images = read_images(plan.place, chunk)
            proposals = read_proposals(plan.place, chunk, ["image_id", "rank"])
            _require_ids(plan, chunk, images)
            _require_keys(plan, chunk, images)
            _require_rows(plan.place, chunk, images, proposals)
        except SharpMaskError as error:
            problems.append(f"{chunk_name(chunk)}: {error}")
            continue
        failed += images.filter(compute.is_valid(images.column("error_kind"))).column("image_id").to_pylist()
    if not problems:
        try:
            table = _read(plan.place, "errors.parquet", IMAGE_SCHEMA)
            if table.column("image_id").to_pylist() != failed:
                problems.append("errors.parquet does not hold the images that failed; run the same command again")
        except SharpMaskError as error:
            problems.append(f"{error}; run the same command again")
    return problems


def _require_ids(plan: Plan, chunk: int, images: pa.Table) -> None:
    first = plan.first_id(chunk)
    if images.column("image_id").to_pylist() != list(range(first, first + plan.size(chunk))):
        raise _wrong(plan.place, chunk, f"not the {plan.size(chunk)} images from {first} on")


def _require_keys(plan: Plan, chunk: int, images: pa.Table) -> None:
    if images.column("file_name").to_pylist() != [item.key for item in plan.items(chunk)]:
        raise _wrong(plan.place, chunk, "other images than the plan")


def _require_rows(place: Place, chunk: int, images: pa.Table, proposals: pa.Table) -> None:
    ids, counts = images.column("image_id").to_numpy(), images.column("proposals").to_numpy()
    ranks = [np.arange(1, number + 1) for number in counts]
    if (counts[compute.is_valid(images.column("error_kind")).to_numpy()] != 0).any():
        raise _wrong(place, chunk, "a failed image with proposals")
    if not np.array_equal(proposals.column("image_id").to_numpy(), np.repeat(ids, counts)):
        raise _wrong(place, chunk, "other numbers of proposals than its images have")
    if not np.array_equal(proposals.column("rank").to_numpy(), np.concatenate(ranks)):
        raise _wrong(place, chunk, "proposals whose ranks are not 1, 2, …")


def _wrong(place: Place, chunk: int, what: str) -> DataError:
    name = chunk_name(chunk)
    return DataError(f"{place}: {name} holds {what}; delete images/{name} and run the same command again")


def _tables(plan: Plan, chunks: Sequence[int]) -> Iterator[tuple[int, pa.Table]]:
    """Each chunk's table of images, some read at a time: a remote place takes its time for each."""
    with ThreadPoolExecutor(_READERS) as pool:
        for begin in range(0, len(chunks), 64 * _READERS):
            part = chunks[begin : begin + 64 * _READERS]
            yield from zip(part, pool.map(lambda chunk: read_images(plan.place, chunk), part), strict=True)


def _add(total: Counts, part: Counts) -> None:
    total.results += part.results
    total.errors += part.errors
    total.proposals += part.proposals
    total.chunks += part.chunks
    for kind, number in part.kinds.items():
        total.kinds[kind] = total.kinds.get(kind, 0) + number


def _text(reason: str) -> str:
    """Of bounded length, and of characters that can be written."""
    return reason[:1000].encode("utf-8", "replace").decode()


def _encode(table: pa.Table) -> Any:
    sink = pa.BufferOutputStream()
    # Codes of masks hardly ever repeat: a dictionary of them would only cost time.
    parquet.write_table(table, sink, compression="zstd", use_dictionary=["file_name", "image_id", "width", "height"])
    return sink.getvalue()


def _read(place: Place, name: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    try:
        file = parquet.ParquetFile(pa.BufferReader(place.read(name)))
        table = file.read(columns)
    except FileNotFoundError as error:
        raise DataError(f"{place}/{name} is missing; delete images/{name.split('/')[-1]} and run again") from error
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{place}/{name} is damaged ({reason}); delete it and run the same command again") from error
    if not file.schema_arrow.equals(schema):
        raise DataError(f"{place}/{name} has other columns than this version writes")
    return table
