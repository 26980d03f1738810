"""Reading with patience, and the rule when an image may be given up."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpmask.bulk import reading
from sharpmask.bulk.reading import ChunkReader, Item, Origin, SourceCheck, SourceDown, Unreadable, read_chunk
from sharpmask.bulk.storage import Patience, Stopped
from sharpmask.errors import ConfigError

PATIENCE = Patience(attempts=3, timeout=60, delay=0.01)
Outcome = dict[str, bytes | str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten files that hold their names."""
    for index in range(10):
        (tmp_path / f"{index}.jpg").write_text(f"{index}.jpg")
    return tmp_path


def items(*names: str) -> list[Item]:
    return [Item(name, name) for name in names]


def read(base: Any, names: list[str], samples: list[str] = [], **options: Any) -> Outcome:  # noqa: B006
    """Content or reason of each image, read as one chunk of a source that also has `samples`."""
    patience = options.pop("patience", PATIENCE)
    reader = ChunkReader(items(*names), Origin(str(base)), patience, threading.Event())
    check = SourceCheck(lambda: items(*samples), **options)
    return {names[place]: content for place, content in read_chunk(reader, check)}


def test_content_comes_in_order_and_failures_last(folder: Path) -> None:
    found = read(folder, ["3.jpg", "none.jpg", "1.jpg", "2.jpg"])
    assert list(found.items()) == [
        ("3.jpg", b"3.jpg"),
        ("1.jpg", b"1.jpg"),
        ("2.jpg", b"2.jpg"),
        ("none.jpg", "no such file"),
    ]


def test_failures_that_pass_are_tried_again(folder: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(folder)
    server.answers = {"1.jpg": [503, "reset"], "2.jpg": [429, 500], "3.jpg": [404], "4.jpg": [403]}
    found = read(server.url, [f"{index}.jpg" for index in range(5)])
    assert [found[f"{index}.jpg"] for index in range(3)] == [b"0.jpg", b"1.jpg", b"2.jpg"]
    assert found["3.jpg"] == "no such file" and "403" in str(found["4.jpg"])
    assert server.asked.count("1.jpg") == 3
    # What cannot pass is asked for once.
    assert server.asked.count("3.jpg") == server.asked.count("4.jpg") == 1


def test_a_single_object_that_never_comes_is_given_up(folder: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(folder)
    server.answers = {"1.jpg": [500] * 99, "2.jpg": ["hang"] * 99}
    found = read(server.url, ["0.jpg", "1.jpg", "2.jpg"], patience=Patience(attempts=2, timeout=1.5, delay=0.01))
    assert found["0.jpg"] == b"0.jpg"
    assert "500" in str(found["1.jpg"]) and found["2.jpg"] == "no answer in time"
    # Two rounds of two attempts, with the source known to answer in between.
    assert server.asked.count("1.jpg") == server.asked.count("2.jpg") == 4


def test_an_outage_that_ends_within_the_chunk_costs_nobody(folder: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(folder)
    server.answers = {f"{index}.jpg": [503] * 3 for index in (1, 2)}  # all attempts of the first round
    found = read(server.url, [f"{index}.jpg" for index in range(5)])
    assert found == {f"{index}.jpg": f"{index}.jpg".encode() for index in range(5)}


@pytest.mark.parametrize("status", [500, 403, 404])
def test_a_source_that_is_down_stops_the_run(folder: Path, serve: Callable[[Path], Any], status: int) -> None:
    """Also when it answers as if single images were gone: an expired key, an unmounted disk."""
    server = serve(folder)
    server.down = status
    with pytest.raises(SourceDown, match="the source does not answer"):
        read(server.url, [f"{index}.jpg" for index in range(10)], ["8.jpg", "9.jpg"])
    # It is noticed after a few images and not after the whole chunk.
    assert len(set(server.asked) - {"8.jpg", "9.jpg"}) <= 3 + reading._AHEAD


def test_a_source_that_goes_down_within_a_chunk_stops_the_run(folder: Path, serve: Callable[[Path], Any]) -> None:
    server = serve(folder)
    reader = ChunkReader(items("0.jpg", "1.jpg", "2.jpg"), Origin(server.url), PATIENCE, threading.Event())
    chunk = read_chunk(reader, SourceCheck(lambda: items("0.jpg", "1.jpg", "2.jpg")))
    server.answers = {"2.jpg": [404]}
    assert [next(chunk), next(chunk)] == [(0, b"0.jpg"), (1, b"1.jpg")]
    server.down = 403  # before the last image's failure is judged
    with pytest.raises(SourceDown, match=r"2\.jpg"):
        next(chunk)


def test_a_server_that_is_gone_stops_the_run(folder: Path) -> None:
    with pytest.raises(SourceDown, match="does not answer"):
        read("http://127.0.0.1:9", ["0.jpg", "1.jpg"], ["1.jpg"])


def test_an_unmounted_folder_stops_the_run(folder: Path) -> None:
    with pytest.raises(SourceDown, match="no such file"):
        read(folder / "unmounted", ["0.jpg", "1.jpg"], ["0.jpg", "1.jpg", "2.jpg"])


def test_a_chunk_of_bad_images_is_given_up_when_others_can_be_read(folder: Path) -> None:
    names = [f"none{index}.jpg" for index in range(8)]
    assert read(folder, names, [*names, "5.jpg"]) == dict.fromkeys(names, "no such file")


def test_recording_all_on_demand(folder: Path) -> None:
    names = ["none1.jpg", "none2.jpg"]
    assert read(folder, names, names, record=True) == dict.fromkeys(names, "no such file")


def test_an_item_that_the_listing_found_broken_says_nothing_about_the_source(folder: Path) -> None:
    broken = [Item("a", "a", error="damaged"), Item("b", "b", error="damaged")]
    reader = ChunkReader(broken, Origin(str(folder)), PATIENCE, threading.Event())
    assert list(read_chunk(reader, SourceCheck(lambda: broken))) == [(0, "damaged"), (1, "damaged")]


def test_files_too_large_for_photos_are_not_read(
    folder: Path, serve: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    (folder / "big.jpg").write_bytes(bytes(101))
    for base in (str(folder), serve(folder).url):
        found = read(base, ["0.jpg", "big.jpg"])
        assert found["0.jpg"] == b"0.jpg" and "no photo" in str(found["big.jpg"])
    reader = ChunkReader([Item("x", "x", length=101)], Origin(str(folder)), PATIENCE, threading.Event())
    with pytest.raises(Unreadable, match="no photo"):
        reader.fetch(reader.items[0])


def test_a_pause_ends_when_the_run_does() -> None:
    stop = threading.Event()
    stop.set()
    tried = []

    def fail() -> None:
        tried.append(1)
        raise ConnectionResetError

    with pytest.raises(Stopped):
        Patience(delay=3600).insist(fail, stop)
    assert len(tried) == 1


def test_patience_has_limits() -> None:
    for wrong in ({"attempts": 0}, {"timeout": 0}):
        with pytest.raises(ConfigError):
            Patience(**wrong)  # type: ignore[arg-type]
