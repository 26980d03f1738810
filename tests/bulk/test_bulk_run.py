"""Whole runs on one machine: every image once, whatever stops a run on the way."""

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from fake_proposer import FakeFactory, expected_proposals, picture, write_pictures
from sharpmask.bulk import chunk, engine_local, results, run
from sharpmask.bulk.listing import Listing, SourceOptions
from sharpmask.bulk.plan import make_plan, read_plan
from sharpmask.bulk.results import count, verify
from sharpmask.bulk.run import BulkOptions
from sharpmask.bulk.storage import Place
from sharpmask.bulk.worker import Worker, WorkerBroken, WorkerOptions
from sharpmask.errors import ConfigError, DataError, SharpMaskError

Bulk = Callable[..., run.BulkReport]


def begun(tmp_path: Path) -> list[int]:
    """Numbers of the pictures that processes have begun, in order."""
    log = tmp_path / "log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def rows(destination: Any, table: str) -> list[dict[str, Any]]:
    paths = sorted(Path(destination, table).glob("*")) if table != "errors" else [Path(destination, "errors.parquet")]
    return [row for path in paths for row in parquet.read_table(path).to_pylist()]


def check(destination: Any, images: int, faults: dict[int, str]) -> None:
    """The files hold each of the pictures once: its known proposals, or its error."""
    plan = read_plan(Place(str(destination)))
    assert plan is not None and verify(plan) == []
    table = rows(destination, "images")
    assert [int(Path(row["file_name"]).stem) for row in table] == list(range(images))
    for number, row in enumerate(table):
        kind = faults.get(number)
        assert row["error_kind"] == (kind and ("image" if kind in ("empty", "text", "cut") else "worker"))
        assert row["proposals"] == (0 if kind else expected_proposals([number]))
    bad = [row for row in table if row["error"] is not None]
    assert rows(destination, "errors") == bad
    summary = json.loads(Path(destination, "_SUCCESS").read_text())
    counted = {"images": images, "results": images - len(bad), "errors": len(bad)}
    assert {key: summary[key] for key in counted} == counted
    assert len(rows(destination, "proposals")) == summary["proposals"]


def test_every_image_ends_as_a_result_or_an_error(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    faults = {2: "empty", 5: "kill", 7: "text", 9: "raise", 12: "cut"}
    source = pictures(23, faults)
    report = bulk(source, tmp_path / "out", workers=2)
    check(tmp_path / "out", 23, faults)
    assert (report.total.results, report.total.errors, report.total.kinds) == (18, 5, {"image": 3, "worker": 2})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_SUCCESS",
        "_plan",
        "errors.parquet",
        "images",
        "proposals",
    ]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
    again = bulk(source, tmp_path / "out", workers=2)
    assert again.images == 0 and again.total == report.total and "nothing was left to do" in again.lines()[-2]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()} == before


def test_runners_share_nothing_that_one_of_them_changes(pictures: Callable[..., Path], tmp_path: Path) -> None:
    """Each reads the listing's files in its own order: what one keeps of them must not be another's."""
    plan = make_plan(Place(str(tmp_path / "out")), Listing(str(pictures(8))), 4, {})
    job = chunk.Job(plan, str(tmp_path / "in"), FakeFactory())
    one, two = chunk.ChunkRunner(job), chunk.ChunkRunner(job)
    one.plan.items(0)
    assert one.plan._file is not None and two.plan._file is None and plan._file is None


def test_a_restart_does_only_what_is_missing(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    source = pictures(12)
    bulk(source, tmp_path / "out")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out" / "proposals").iterdir()}
    assert begun(tmp_path) == list(range(12))
    # As after a kill between a chunk's two files, and one before both.
    (tmp_path / "out" / "images" / "chunk-000001.parquet").unlink()
    (tmp_path / "out" / "images" / "chunk-000002.parquet").unlink()
    (tmp_path / "out" / "proposals" / "chunk-000002.parquet").unlink()
    (tmp_path / "out" / "_tmp").mkdir()
    (tmp_path / "out" / "_tmp" / "half.tmp").write_text("half")
    plan = read_plan(Place(str(tmp_path / "out")))
    assert plan is not None and count(plan).results == 4 and len(verify(plan)) == 2
    bulk(source, tmp_path / "out")
    assert begun(tmp_path)[12:] == list(range(4, 12))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "proposals").iterdir()} == whole
    check(tmp_path / "out", 12, {})
    assert not (tmp_path / "out" / "_tmp").exists()


def test_other_options_are_refused(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    source = pictures(3)
    bulk(source, tmp_path / "out")
    for changes, message in [
        ({"factory": FakeFactory(mark="other")}, r"other options \(fake:  then, other now\)"),
        ({"chunk_size": 5}, "chunk size: 4 then, 5 now"),
    ]:
        with pytest.raises(ConfigError, match=message):
            bulk(source, tmp_path / "out", **changes)
    assert bulk(source, tmp_path / "out", chunk_size=None, workers=2).images == 0


def test_a_changed_source_is_refused_and_can_be_ignored(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path
) -> None:
    source = pictures(6)
    bulk(source, tmp_path / "out")
    gone = tmp_path / "out" / "images" / "chunk-000001.parquet"
    gone.unlink()
    extra = source / "000" / "zz.png"
    Image.fromarray(picture(1)).save(extra)
    with pytest.raises(DataError, match=r"more images than the 6 listed then, such as 000/zz\.png"):
        bulk(source, tmp_path / "out")
    assert not gone.exists()
    bulk(source, tmp_path / "out", check_source=False)
    check(tmp_path / "out", 6, {})
    extra.unlink()
    os.utime(source / "000" / "00003.png", ns=(1, 1))
    with pytest.raises(DataError, match=r"00003\.png is another file than then"):
        bulk(source, tmp_path / "out")
    (source / "000" / "00005.png").unlink()
    (source / "000" / "00001.png").rename(source / "000" / "00001a.png")
    with pytest.raises(DataError, match=r"image 2 was 000/00001\.png and is now 000/00001a\.png"):
        bulk(source, tmp_path / "out")


def test_another_column_is_refused(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    images = [path.read_bytes() for path in sorted(pictures(3).rglob("*.png"))]
    parquet.write_table(pa.table({"left": images, "right": images[::-1]}), tmp_path / "a.parquet")
    bulk(tmp_path / "a.parquet", tmp_path / "out", source=SourceOptions(column="left"))
    for options in ({}, {"check_source": False}):
        with pytest.raises(ConfigError, match="column: left then, right now"):
            bulk(tmp_path / "a.parquet", tmp_path / "out", source=SourceOptions(column="right"), **options)


def test_a_moved_source_is_the_same_source(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    source = pictures(6)
    bulk(source, tmp_path / "out")
    (tmp_path / "out" / "images" / "chunk-000001.parquet").unlink()
    source.rename(tmp_path / "elsewhere")
    bulk(tmp_path / "elsewhere", tmp_path / "out")
    check(tmp_path / "out", 6, {})


def test_one_run_at_a_time(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    source = pictures(2)
    with Place(str(tmp_path / "out")).claimed(), pytest.raises(ConfigError, match="another run is writing"):
        bulk(source, tmp_path / "out")
    bulk(source, tmp_path / "out")


def test_destinations_that_cannot_be(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    source = pictures(2)
    for destination, message in [
        (source, "lies within the source"),
        (source / "out", "lies within the source"),
        (source / "000" / "00000.png" / "out", "within"),
    ]:
        with pytest.raises(ConfigError, match=message):
            bulk(source, destination)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot use the folder"):
        bulk(source, tmp_path / "file" / "out")
    (tmp_path / "old" / "images").mkdir(parents=True)
    (tmp_path / "old" / "images" / "chunk-000000.parquet").touch()
    with pytest.raises(ConfigError, match="results but no plan"):
        bulk(source, tmp_path / "old")
    bulk(source, tmp_path / "out")
    (tmp_path / "out" / "_plan" / "plan.json").write_text('{"format": "sharpmask bulk 99"}')
    with pytest.raises(DataError, match="not a plan of the format"):
        bulk(source, tmp_path / "out")


def test_a_failed_listing_leaves_no_plan(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(10)
    real = Listing._items

    def fail(self: Listing) -> Iterator[Any]:
        for number, item in enumerate(real(self)):
            if number == 9:
                raise ConnectionResetError("gone")
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(Listing, "_items", fail)
        with pytest.raises(DataError, match="cannot list"):
            bulk(source, tmp_path / "out")
    assert read_plan(Place(str(tmp_path / "out"))) is None
    bulk(source, tmp_path / "out")
    check(tmp_path / "out", 10, {})


def test_a_model_that_fails_at_everything_stops_the_run(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path
) -> None:
    """As a GPU that has gone, or no memory: a thousand sound images must not become a thousand errors."""
    faults = dict.fromkeys(range(6), "raise")
    source = pictures(6, faults)
    with pytest.raises(WorkerBroken, match=r"00000\.png: RuntimeError: .*no other image"):
        bulk(source, tmp_path / "out", worker=WorkerOptions(attempts=1))
    assert not (tmp_path / "out" / "_SUCCESS").exists() and not (tmp_path / "out" / "images").exists()
    bulk(source, tmp_path / "out", worker=WorkerOptions(attempts=1), record_all=True)
    check(tmp_path / "out", 6, faults)


def test_a_run_in_which_all_images_are_broken_files_ends(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path
) -> None:
    faults = dict.fromkeys(range(6), "text")
    bulk(pictures(6, faults), tmp_path / "out")
    check(tmp_path / "out", 6, faults)


def test_a_full_disk_stops_the_run_and_space_lets_it_go_on(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path
) -> None:
    source = pictures(6)
    destination = tmp_path / "out"
    place = Place(str(destination))
    with place.claimed():
        make_plan(place, Listing(str(source)), 4, FakeFactory().describe())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no larger file: what a quota does
    try:
        with pytest.raises(SharpMaskError, match=r"cannot write .*chunk-000000\.parquet: File too large"):
            bulk(source, destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for path in destination.rglob("*") if path.suffix == ".tmp" or "chunk" in path.name] == []
    bulk(source, destination)
    check(destination, 6, {})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_system_that_fills_up(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path, small_disk: Path
) -> None:
    source = pictures(40)
    with pytest.raises(SharpMaskError, match=r"cannot write .*: No space left on device"):
        bulk(source, small_disk / "out", workers=2)
    done = sorted(path.name for path in (small_disk / "out" / "images").iterdir())
    assert 0 < len(done) < 10
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    before = len(begun(tmp_path))
    bulk(source, small_disk / "out", workers=2)
    assert len(begun(tmp_path)) - before == 40 - 4 * len(done)
    check(small_disk / "out", 40, {})


def test_a_failure_of_one_worker_ends_all(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers are busy with endless images when the third fails: nobody waits for them."""
    source = pictures(12, {0: "hang", 4: "hang"})
    real = chunk.ChunkRunner.run

    def fail(self: chunk.ChunkRunner, number: int) -> Any:
        if number < 2:
            return real(self, number)
        while len(begun(tmp_path)) < 2:
            time.sleep(0.01)
        raise SharpMaskError("the third fails")

    monkeypatch.setattr(chunk.ChunkRunner, "run", fail)
    with pytest.raises(SharpMaskError, match="the third fails"):
        bulk(source, tmp_path / "out", workers=3, worker=WorkerOptions(timeout=3600))
    assert sorted(begun(tmp_path)) == [0, 4]


def test_two_runs_at_once_in_a_place_without_locks(pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path) -> None:
    """Work is done twice, results are not."""
    from fsspec.implementations.memory import MemoryFileSystem

    source, faults = pictures(16, {3: "text"}), {3: "text"}
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(bulk, source, "memory://out") for _ in range(2)]
    assert [run.result().total.errors for run in both] == [1, 1]
    MemoryFileSystem().get("memory://out", str(tmp_path / "out"), recursive=True)
    MemoryFileSystem().rm("memory://out", recursive=True)
    check(tmp_path / "out", 16, faults)


def test_a_run_between_buckets(tmp_path: Path, s3: str, bulk: Bulk) -> None:
    """A source and a destination behind URLs, broken off and gone on with; read by DuckDB's and pandas' own means."""
    pandas = pytest.importorskip("pandas")
    from s3fs import S3FileSystem

    faults = {2: "text", 5: "raise"}
    write_pictures(tmp_path / "in", 10, faults)
    fs = S3FileSystem()
    fs.put(str(tmp_path / "in"), f"{s3}/in", recursive=True)
    bulk(f"{s3}/in", f"{s3}/out")
    fs.rm(f"{s3}/out/images/chunk-000001.parquet")
    plan = read_plan(Place(f"{s3}/out"))
    assert plan is not None and len(verify(plan)) == 1
    assert bulk(f"{s3}/in", f"{s3}/out").images == 4
    assert verify(plan) == []
    fs.get(f"{s3}/out", str(tmp_path / "out"), recursive=True)
    check(tmp_path / "out", 10, faults)
    assert len(pandas.read_parquet(f"{s3}/out/images/chunk-000000.parquet")) == 4
    fs.pipe_file(f"{s3}/in/000/00001.png", b"changed")
    with pytest.raises(DataError, match=r"00001\.png is another file"):
        bulk(f"{s3}/in", f"{s3}/out")
    with pytest.raises(ConfigError, match="within the source"):
        bulk(f"{s3}/in", f"{s3}/in/out")


def test_a_server_that_fails_for_a_while(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path, serve: Callable[[Path], Any]
) -> None:
    """Down, the run stops with what it has done; up again, the run ends with single bad objects as errors."""
    source = pictures(12)
    names = [f"000/{number:05d}.png" for number in range(12)]
    (source / "list.txt").write_text("\n".join(names))
    server = serve(source)
    server.answers = {names[1]: [500], names[2]: [404], names[3]: [503] * 99}
    real = results.write_chunk

    def write_and_fail(*args: Any) -> Any:
        server.down = 503
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk, "write_chunk", write_and_fail)
        with pytest.raises(SharpMaskError, match="the source does not answer"):
            bulk(f"{server.url}/list.txt", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["chunk-000000.parquet"]
    server.down = None
    report = bulk(f"{server.url}/list.txt", tmp_path / "out")
    assert (report.total.results, report.total.kinds) == (10, {"source": 2})
    errors = {row["file_name"]: row["error"] for row in rows(tmp_path / "out", "errors")}
    assert errors == {names[2]: "no such file", names[3]: "the server answers 503 Service Unavailable"}


def test_options_are_checked() -> None:
    for wrong in ({"engine": "spark"}, {"workers": 0}, {"chunk_size": 0}):
        with pytest.raises(ConfigError):
            BulkOptions(**wrong)  # type: ignore[arg-type]


def test_workers_are_sized_to_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_local, "usable_cores", lambda: 8)
    assert engine_local.devices("cpu", None, 1) == ["cpu"] * 8
    assert engine_local.devices("cpu", None, 3) == ["cpu"] * 2
    assert engine_local.devices("cpu", 5, 3) == ["cpu"] * 5
    assert engine_local.devices("cpu", None, 16) == ["cpu"]
    assert engine_local.devices("cuda:1", None, 1) == ["cuda:1"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert engine_local.devices(None, None, 1) == ["cuda:0", "cuda:1"]
    assert engine_local.devices("cuda", 3, 1) == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert engine_local.devices(None, None, 2) == ["cpu"] * 4


def test_progress_is_told_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    with run._Progress(100, 40, True) as progress:
        for _ in range(10):
            now[0] += 10
            progress.advance()
    assert capsys.readouterr().err.splitlines() == ["46 of 100 images, 0.10 a second"]


def test_processes_are_closed_when_a_run_ends(
    pictures: Callable[..., Path], bulk: Bulk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    real = Worker.close

    def close(self: Worker) -> None:
        closed.append(self._process)
        real(self)

    monkeypatch.setattr(Worker, "close", close)
    bulk(pictures(8), tmp_path / "out", workers=2)
    assert len(closed) == 2
