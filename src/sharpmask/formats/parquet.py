"""Parquet: one file, `proposals.parquet`, one row a proposal (needs the extra `parquet`).

The columns stand in `sharpmask.proposal_rows`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sharpmask.errors import MissingExtraError
from sharpmask.files import atomic_write
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals

_ROWS = 20_000  # a row group: many small ones would make the file large and slow to read


@contextmanager
def open_parquet(output: Path, options: FormatOptions) -> Iterator[Write]:
    try:
        import pyarrow as pa
        from pyarrow import parquet

        from sharpmask.proposal_rows import proposal_schema, proposal_table
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "the format parquet") from error
    schema = proposal_schema(options.label)
    waiting: list[Any] = []
    with (
        atomic_write(output / "proposals.parquet") as temporary,
        parquet.ParquetWriter(temporary, schema, compression="zstd") as file,
    ):

        def flush() -> None:
            if waiting:
                file.write_table(pa.concat_tables(waiting))
                waiting.clear()

        def write(photo: Photo, proposals: Proposals) -> None:
            waiting.append(proposal_table(photo.record["id"], photo.record["file_name"], proposals, schema))
            if sum(len(table) for table in waiting) >= _ROWS:
                flush()

        yield write
        flush()
