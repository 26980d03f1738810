"""Every kind of source to the same images in the same order, and nothing dropped silently."""

import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from sharpmask.bulk.listing import Listing, SourceOptions
from sharpmask.bulk.reading import ChunkReader, Item, Origin, Unreadable
from sharpmask.bulk.storage import Patience
from sharpmask.errors import ConfigError, DataError


def listed(source: Any, **options: Any) -> tuple[Listing, list[Item]]:
    listing = Listing(str(source), SourceOptions(**options))
    return listing, list(listing)


def contents(listing: Listing, items: list[Item]) -> list[bytes | str]:
    """What reading gives: the bytes, or the reason why not."""
    reader = ChunkReader(items, Origin(listing.base, listing.column), Patience(attempts=1), threading.Event())
    return [str(data) if isinstance(data, Unreadable) else data for _, data in reader.read_ahead()]


def files(folder: Path, *names: str) -> Path:
    """Files that hold their own names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(Path(name).name.encode())
    return folder


def shard(path: Path, *names: str, mode: str = "w") -> bytes:
    with tarfile.open(path, mode) as file:
        for name in names:
            info = tarfile.TarInfo(name)
            data = Path(name).name.encode() * 300
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def test_a_folder_with_sub_folders_in_a_fixed_order(tmp_path: Path) -> None:
    files(tmp_path, "b.jpg", "a.PNG", "z/c.webp", "c/d/e.tif", ".hidden.jpg", ".dot/f.jpg", "notes.md", "list.txt")
    listing, items = listed(tmp_path)
    assert [item.key for item in items] == ["a.PNG", "b.jpg", "c/d/e.tif", "z/c.webp"]
    assert (listing.kind, listing.left_out) == ("images", 2)
    assert contents(listing, items) == [b"a.PNG", b"b.jpg", b"e.tif", b"c.webp"]
    assert listed(f"{tmp_path}/")[1] == listed(f"file://{tmp_path}")[1] == items


def test_links_are_followed_once(tmp_path: Path) -> None:
    files(tmp_path / "in", "a/x.jpg")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "in" / "a")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    listing, items = listed(tmp_path / "in")
    assert [item.key for item in items] == ["gone.jpg", "a/x.jpg"]
    assert contents(listing, items) == ["no such file", b"x.jpg"]


def test_a_name_that_is_not_unicode_is_an_error_and_not_dropped(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    os.mknod(os.fsencode(tmp_path) + b"/\xff.jpg")
    listing, items = listed(tmp_path)
    assert [item.key for item in items] == ["a.jpg", r"\udcff.jpg"] or items[1].key == r"\xff.jpg"
    assert contents(listing, items)[1] == "its name is not valid UTF-8; rename it"


def test_patterns_and_braces(tmp_path: Path) -> None:
    files(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/3.png", "x[1].jpg")
    assert [item.key for item in listed(tmp_path / "*" / "1.jpg")[1]] == ["a/1.jpg", "b/1.jpg"]
    assert [item.key for item in listed(tmp_path / "{a,b}" / "*.*")[1]] == ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/3.png"]
    assert [item.key for item in listed(tmp_path / "a/{1..2}.jpg")[1]] == ["1.jpg", "2.jpg"]
    listing, items = listed(tmp_path / "x[1].jpg")
    assert contents(listing, items) == [b"x[1].jpg"]
    files(tmp_path, "a/notes.txt", "a/1.md")
    listing, items = listed(tmp_path / "a" / "*")
    assert [item.key for item in items] == ["1.jpg", "2.jpg"] and listing.left_out == 2
    assert [item.key for item in listed(tmp_path / "a" / "*.md", kind="images")[1]] == ["1.md"]
    with pytest.raises(ConfigError, match=r"3\.jpg: no such file"):
        listed(tmp_path / "a/{1..3}.jpg")


def test_a_list_of_paths(tmp_path: Path) -> None:
    files(tmp_path, "in/a.jpg", "in/b c.jpg", "other/d")
    lines = [
        "a.jpg",
        "",
        "b c.jpg",
        f"{tmp_path}/other/d",
        "a.jpg",
        "../other/d",
        "none.jpg",
        f"file://{tmp_path}/in/a.jpg",
    ]
    (tmp_path / "in" / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\n\xff.jpg")
    listing, items = listed(tmp_path / "in" / "list.txt")
    assert [item.key for item in items[:3]] == ["a.jpg", "b c.jpg", f"{tmp_path}/other/d"]
    assert listing.repeated == 1
    assert contents(listing, items) == [
        b"a.jpg",
        b"b c.jpg",
        b"d",
        b"d",
        "no such file",
        b"a.jpg",
        "not valid UTF-8",
    ]
    (tmp_path / "in" / "list.txt").rename(tmp_path / "in" / "names")
    with pytest.raises(ConfigError, match="--source-format"):
        listed(tmp_path / "in" / "names")
    assert listed(tmp_path / "in" / "names", kind="list")[1] == items


def test_folders_pipes_and_devices_in_a_list_are_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "list.txt").write_text("pipe.jpg\nfolder.jpg\n/dev/zero\n")
    assert contents(*listed(tmp_path / "list.txt")) == [
        "not an ordinary file",
        "a folder, not an image",
        "not an ordinary file",
    ]


def test_shards(tmp_path: Path) -> None:
    shard(tmp_path / "s-000.tar", "0001.jpg", "0001.json", "0002.jpg", "sub/0003.left.png", "0002.jpg")
    shard(tmp_path / "s-001.tar", "0001.jpg")
    listing, items = listed(tmp_path)
    assert listing.kind == "webdataset" and listing.repeated == 1
    keys = ["s-000.tar/0001.jpg", "s-000.tar/0002.jpg", "s-000.tar/sub/0003.left.png", "s-001.tar/0001.jpg"]
    assert [item.key for item in items] == keys
    assert contents(listing, items) == [
        name * 300 for name in (b"0001.jpg", b"0002.jpg", b"0003.left.png", b"0001.jpg")
    ]
    assert listed(tmp_path / "s-{000..001}.tar")[1] == listed(tmp_path / "s-*.tar")[1] == items


@pytest.mark.parametrize("keep", [3000, 1100, 0])
def test_a_damaged_shard_keeps_what_is_whole_and_says_so(tmp_path: Path, keep: int) -> None:
    whole = shard(tmp_path / "a.tar", "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "a.tar").write_bytes(whole[:keep])
    shard(tmp_path / "b.tar", "1.jpg")
    listing, items = listed(tmp_path)
    outcome = dict(zip([item.key for item in items], contents(listing, items), strict=True))
    assert outcome.pop("b.tar/1.jpg") == b"1.jpg" * 300
    assert str(outcome.pop("a.tar")).startswith("damaged tar file after")
    if keep == 3000:  # the second image ends too early
        assert outcome.pop("a.tar/1.jpg") == b"1.jpg" * 300
        assert "of the image's 1500 bytes" in str(outcome.pop("a.tar/2.jpg"))
    elif keep:
        assert "of the image's 1500 bytes" in str(outcome.pop("a.tar/1.jpg"))
    assert not outcome


def test_packed_shards_are_refused(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar.gz", "1.jpg", mode="w:gz")
    for source in (tmp_path, tmp_path / "a.tar.gz"):
        with pytest.raises(ConfigError, match=r"a\.tar\.gz.*unpack it to \.tar"):
            listed(source)


def test_parquet_of_images(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(10)]
    table = pa.table({"image": [n.encode() for n in names], "id": [f"k{n}" for n in names], "label": names})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    parquet.write_table(table.slice(0, 1), tmp_path / "b.parquet")
    listing, items = listed(tmp_path)
    assert (listing.kind, listing.column) == ("parquet", "image")
    assert [item.key for item in items[:2]] == ["a.parquet#0", "a.parquet#1"] and items[10].key == "b.parquet#0"
    assert contents(listing, items) == [n.encode() for n in [*names, "0.jpg"]]
    assert contents(listing, items[3:6]) == [b"3.jpg", b"4.jpg", b"5.jpg"]
    named, keyed = listed(tmp_path / "a.parquet", key_column="id")
    assert [item.key for item in keyed] == [f"k{n}" for n in names] and contents(named, keyed[:1]) == [b"0.jpg"]
    with pytest.raises(DataError, match=r"two images have the key 'k0\.jpg'"):
        listed(tmp_path, key_column="id")


def test_parquet_of_structs_as_on_the_hub(tmp_path: Path) -> None:
    rows = [{"bytes": b"one", "path": "x"}, {"bytes": None, "path": "y"}, None]
    parquet.write_table(pa.table({"image": rows, "caption": ["a", "b", "c"]}), tmp_path / "a.parquet")
    listing, items = listed(tmp_path / "a.parquet")
    assert contents(listing, items) == [
        b"one",
        "a.parquet holds no image in row 1",
        "a.parquet holds no image in row 2",
    ]


def test_parquet_of_paths(tmp_path: Path) -> None:
    files(tmp_path, "photos/a.jpg", "photos/b.jpg")
    paths = ["photos/a.jpg", f"{tmp_path}/photos/b.jpg", None, "photos/a.jpg"]
    parquet.write_table(pa.table({"caption": ["x"] * 4, "url": paths, "n": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    listing, items = listed(tmp_path / "a.parquet")
    assert (listing.column, listing.repeated) == (None, 1)
    assert contents(listing, items) == [b"a.jpg", b"b.jpg", "no path in this row"]
    assert [item.key for item in listed(tmp_path / "a.parquet", key_column="n")[1]] == ["1", "2", "3", "4"]


def test_columns_must_be_clear(tmp_path: Path) -> None:
    table = pa.table({"left": [b"1"], "right": [b"2"], "n": [3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"--column; it has: left \(binary\), right \(binary\), n \(int64\)"):
        listed(tmp_path / "a.parquet")
    assert contents(*listed(tmp_path / "a.parquet", column="right")) == [b"2"]
    for column, message in (("none", "no column 'none'"), ("n", "neither images")):
        with pytest.raises(ConfigError, match=message):
            listed(tmp_path / "a.parquet", column=column)
    parquet.write_table(table.select(["left"]), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"b\.parquet has no column 'right'"):
        listed(tmp_path, column="right")


def test_a_damaged_parquet_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
    parquet.write_table(pa.table({"image": [b"1"]}), tmp_path / "b.parquet")
    listing, items = listed(tmp_path)
    outcome = contents(listing, items)
    assert str(outcome[0]).startswith("damaged Parquet file") and outcome[1] == b"1"
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(DataError, match=r"a\.parquet is no Parquet file"):
        listed(tmp_path)


def test_what_a_source_cannot_be(tmp_path: Path) -> None:
    files(tmp_path, "mixed/a.jpg", "empty/readme.md")
    shard(tmp_path / "mixed" / "b.tar", "1.jpg")
    for source, message in [
        (tmp_path / "none", "no such file or folder"),
        (tmp_path / "*.jpg", "nothing matches"),
        (tmp_path / "empty", "holds no images"),
        (tmp_path / "mixed", r"holds images and webdataset \(b.tar\); choose one with --source-format"),
        (tmp_path / "mixed" / "a.jpg" / "b", "no such file"),
        ("nowhere://x/y", "nowhere"),
    ]:
        with pytest.raises(ConfigError, match=message):
            listed(source)
    listing, items = listed(tmp_path / "mixed", kind="webdataset")
    assert [item.key for item in items] == ["b.tar/1.jpg"] and listing.left_out == 1
    with pytest.raises(ConfigError, match="source format 'zip'"):
        SourceOptions("zip")
    with pytest.raises(ConfigError, match="are for Parquet"):
        listed(tmp_path / "mixed" / "a.jpg", column="x")


def test_a_folder_and_a_list_by_http(tmp_path: Path, serve: Callable[[Path], Any]) -> None:
    files(tmp_path, "in/a.jpg", "in/sub/b.jpg", "in/notes.md")
    (tmp_path / "list.txt").write_text("in/a.jpg\nin/none.jpg\n")
    url = serve(tmp_path).url
    listing, items = listed(f"{url}/in")
    assert [item.key for item in items] == ["a.jpg", "sub/b.jpg"]
    assert contents(listing, items) == [b"a.jpg", b"b.jpg"]
    assert contents(*listed(f"{url}/list.txt")) == [b"a.jpg", "no such file"]


def test_every_kind_in_an_s3_bucket(tmp_path: Path, s3: str) -> None:
    from s3fs import S3FileSystem

    files(tmp_path, "in/photos/a.jpg", "in/photos/sub/b.jpg")
    shard(tmp_path / "in" / "s-0.tar", "1.jpg", "2.jpg")
    (tmp_path / "in" / "list.txt").write_text(f"photos/a.jpg\n{s3}/in/photos/sub/b.jpg\nphotos/c.jpg\n")
    parquet.write_table(pa.table({"image": [b"one", b"two"]}), tmp_path / "in" / "t.parquet")
    fs = S3FileSystem()
    fs.put(str(tmp_path / "in"), f"{s3}/in", recursive=True)
    fs.pipe_file(f"{s3}/in/photos/sub/", b"")  # a marker, as consoles make them
    photos = contents(*listed(f"{s3}/in/photos/"))
    assert photos == [b"a.jpg", b"b.jpg"]
    assert [item.key for item in listed(f"{s3}/in/photos")[1]] == ["a.jpg", "sub/b.jpg"]
    assert [item.key for item in listed(f"{s3}/in/photos/*/*.jpg")[1]] == ["sub/b.jpg"]
    assert contents(*listed(f"{s3}/in/s-{{0..0}}.tar")) == [b"1.jpg" * 300, b"2.jpg" * 300]
    assert contents(*listed(f"{s3}/in/list.txt")) == [b"a.jpg", b"b.jpg", "no such file"]
    assert contents(*listed(f"{s3}/in/t.parquet")) == [b"one", b"two"]
    assert listed(f"{s3}/in/photos")[1][0].version  # the ETag: a changed object is noticed
    with pytest.raises(ConfigError, match="no such"):
        listed(f"{s3}/in/none.txt")
    with pytest.raises((ConfigError, DataError), match="none"):
        listed(f"{s3}/none")
