"""The images in files that hold many: tar files (WebDataset shards) and Parquet tables."""

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sharpmask.bulk.reading import Item, open_parquet
from sharpmask.bulk.storage import File, Patience, filesystem, join, local_path
from sharpmask.errors import ConfigError
from sharpmask.images import SUFFIXES

_PATH_NAMES = ("path", "url", "uri", "file_name", "filename", "image", "image_path", "image_url", "file")


def index_tar(base: str, file: File) -> Iterator[Item | None]:
    """The images of a shard by their members' suffixes, with their places; None for a member named a second time.

    Only headers are read, so a later read can fetch one image alone. A shard that is damaged ends with an item that
    says so.
    """
    path = join(base, file.name)
    local = local_path(path)
    if local is not None:
        opened: Any = open(local, "rb")  # noqa: SIM115 - closed below
    else:
        fs, inner = filesystem(path)
        opened = Patience().insist(lambda: fs.open(inner, "rb"))
    seen: set[str] = set()
    last = "its start"
    with opened as content:
        try:
            with tarfile.open(fileobj=content, mode="r:") as shard:
                while (member := shard.next()) is not None:
                    shard.members = []  # type: ignore[attr-defined]  # or it would keep them all
                    last = member.name
                    if not member.isreg() or posixpath.splitext(member.name)[1].lower() not in SUFFIXES:
                        continue
                    if member.name in seen:
                        yield None
                        continue
                    seen.add(member.name)
                    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    yield Item(f"{file.name}/{name}", file.name, member.offset_data, member.size, version=file.version)
        except tarfile.TarError as error:
            yield Item(file.name, file.name, version=file.version, error=f"damaged tar file after {last}: {error}")


@dataclass(frozen=True)
class Columns:
    """Columns of a Parquet source: `image` with images (`holds_images`) or paths, and `key` where there is one."""

    image: str
    holds_images: bool
    key: str | None


def find_columns(base: str, name: str, column: str | None, key_column: str | None) -> Columns:
    """Look at one file which column is meant; images are binary, or a struct with a field `bytes`.

    Raises:
        ConfigError: a named column is not there or of another type, or no or several columns could be meant.
    """
    with open_parquet(join(base, name)) as file:
        schema: pa.Schema = file.schema_arrow
    there = f"it has: {', '.join(f'{field.name} ({field.type})' for field in schema)[:500]}"
    for wanted in (column, key_column):
        if wanted is not None and wanted not in schema.names:
            raise ConfigError(f"{name} has no column '{wanted}'; {there}")
    if column is None:
        images = [field.name for field in schema if _holds_images(field.type)]
        paths = [field.name for field in schema if _is_text(field.type) and field.name.lower() in _PATH_NAMES]
        candidates = images or paths
        if len(candidates) != 1:
            raise ConfigError(f"{name}: name the column of images or paths with --column; {there}")
        column = candidates[0]
    kind = schema.field(column).type
    if not _holds_images(kind) and not _is_text(kind):
        raise ConfigError(f"{name}: the column '{column}' is {kind}, neither images (binary) nor paths (string)")
    return Columns(column, _holds_images(kind), key_column)


def rows(base: str, file: File, columns: Columns) -> Iterator[Item]:
    """The rows of one Parquet file; of images only the keys are read. A damaged file gives one item that says so."""
    done = 0
    try:
        with open_parquet(join(base, file.name)) as table:
            missing = {columns.image, columns.key} - {None, *table.schema_arrow.names}
            if missing:
                raise ConfigError(f"{file.name} has no column '{missing.pop()}', unlike the source's first file")
            if _holds_images(table.schema_arrow.field(columns.image).type) != columns.holds_images:
                raise ConfigError(
                    f"{file.name}: the column '{columns.image}' is of another type than in the first file"
                )
            wanted = [columns.key] if columns.key else []
            wanted += [] if columns.holds_images else [columns.image]
            if not wanted:
                for row in range(table.metadata.num_rows):
                    yield _row(file, row, columns, None, None)
                return
            for batch in table.iter_batches(batch_size=8192, columns=wanted):
                keys = batch.column(columns.key).to_pylist() if columns.key else [None] * batch.num_rows
                paths = [None] * batch.num_rows if columns.holds_images else batch.column(columns.image).to_pylist()
                for key, path in zip(keys, paths, strict=True):
                    yield _row(file, done, columns, key, path)
                    done += 1
    except Exception as error:
        if not is_damage(error):
            raise
        where = f" after row {done}" if done else ""
        reason = str(error).splitlines()[0][:200]
        yield Item(file.name, file.name, version=file.version, error=f"damaged Parquet file{where}: {reason}")


def is_damage(error: Exception) -> bool:
    """Whether pyarrow complains about a file's content, and not about reaching it."""
    from_pyarrow = isinstance(error, OSError) and not isinstance(error, TimeoutError) and error.errno is None
    return isinstance(error, (pa.ArrowInvalid, EOFError)) or from_pyarrow


def _row(file: File, row: int, columns: Columns, key: Any, path: str | None) -> Item:
    place = f"{file.name}#{row}"
    if columns.holds_images:
        return Item(place if key is None else str(key), file.name, row=row, version=file.version)
    if not path:
        return Item(place if key is None else str(key), file.name, version=file.version, error="no path in this row")
    return Item(path if key is None else str(key), path)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
